"""The preview page in a real browser: it looks and works like the editor, shows any text unchanged, asks nothing of anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lsplugin.preview import MOST_TASKS, preview
from lsplugin.render import render, sample_task
from lsplugin.template import Spec, template_names
from tests.helpers import GOOD_CONFIG, complaint, run_cli, write_json
from tests.test_browser import box_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

NASTY = [
    "</script><script>document.title = 'broken'</script>",
    "<!-- <b>bold</b> --> ]]> &amp; &lt; \" ' `",
    "<img src='https://example.org/x.png' onerror='document.title=1'>",
    "$prompt and $5 \\u003c \\n",
    "שלום 😀 \u2028 line \u2029 paragraph",
    "two\nlines  and   spaces",
]


@pytest.fixture
def window(browser: Browser) -> Iterator[Page]:
    """A page that remembers what it asked for, and what went wrong in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    yield page
    context.close()


def open_page(window: Page, path: Path, html: str) -> list[str]:
    """Open a preview; gives the list of what it asks for besides itself, and of its errors, as it grows."""
    path.write_text(html, encoding="utf-8")
    trouble: list[str] = []
    window.on("request", lambda request: trouble.append(request.url) if request.url != path.as_uri() else None)
    window.on("pageerror", lambda error: trouble.append(str(error)))
    window.on("console", lambda message: trouble.append(message.text))
    window.goto(path.as_uri())
    return trouble


def spec_of(template: str, **settings: Any) -> Spec:
    return Spec(template=template, answers=3 if template == "ranking" else 2, **settings)


@pytest.mark.parametrize("template", template_names())
def test_every_template_shows_whole_and_side_by_side(template: str, window: Page, tmp_path: Path) -> None:
    spec = spec_of(template, chat=True, markdown=True, reason=True, reasons=("A", "B"), criteria=("C",), rewrite=True)
    trouble = open_page(window, tmp_path / "p.html", preview(render(spec), [sample_task(spec)]))
    assert window.locator(".preview-unknown").count() == 0
    tops = [box_of(box)["y"] for box in window.locator(".lsplugin-answer").all()]
    assert len(tops) == spec.answers
    assert len(set(tops)) == 1
    assert trouble == []


def test_any_text_is_shown_unchanged_and_harmless(window: Page, tmp_path: Path) -> None:
    tasks = [{"prompt": text, "answer1": text + " 1", "answer2": text + " 2"} for text in NASTY]
    trouble = open_page(window, tmp_path / "p.html", preview(render(), tasks))
    for number, text in enumerate(NASTY):
        assert window.locator("#place").inner_text() == f"{number + 1} of {len(NASTY)}"
        shown = window.locator("section:not([hidden]) .lsf-richtext__container")
        assert [found.text_content() for found in shown.all()] == [text, text + " 1", text + " 2"]
        if number + 1 < len(NASTY):
            window.locator("#next").click()
    assert window.locator("#next").is_disabled()
    assert window.title() == "Preview of a labeling config"
    assert trouble == []


def test_html_of_a_task_is_sanitised(window: Page, tmp_path: Path) -> None:
    config = GOOD_CONFIG.replace('<Text name="prompt"', '<HyperText name="prompt" inline="true"')
    html = "<b>bold</b><script>document.title=1</script><img src='https://example.org/x.png' alt='a cat' onerror='x'>"
    row = {"prompt": html, "answer1": "a", "answer2": "b"}
    trouble = open_page(window, tmp_path / "p.html", preview(config, [row]))
    assert window.locator("b", has_text="bold").count() == 1
    assert window.locator("main script, main img").count() == 0
    assert window.get_by_text("[picture: a cat]").count() == 1
    assert trouble == []


def test_pairwise_and_choices_work_by_mouse_and_keyboard(window: Page, tmp_path: Path) -> None:
    trouble = open_page(window, tmp_path / "p.html", preview(render(), [sample_task()]))
    left, right = window.locator("[data-side]").all()

    def pressed() -> list[str | None]:
        return [side.get_attribute("aria-pressed") for side in (left, right)]

    def border(number: int) -> str:
        window.mouse.move(3, 3)
        window.wait_for_timeout(200)
        script = "box => getComputedStyle(box).borderTopColor"
        return str(window.locator(".lsplugin-answer").nth(number).evaluate(script))

    plain = border(0)
    left.click(position={"x": 5, "y": 5})
    assert pressed() == ["true", "false"]
    assert border(0) != plain
    right.focus()
    window.keyboard.press("Enter")
    assert pressed() == ["false", "true"]
    assert border(0) == plain
    right.click()
    assert pressed() == ["false", "false"]

    def ticked() -> list[bool]:
        return [choice.is_checked() for choice in window.locator("[data-choices=verdict] input").all()]

    window.keyboard.press("2")
    assert ticked() == [False, True]
    window.get_by_text("The one I clicked is better").click()
    assert ticked() == [True, False]
    assert trouble == []


def test_cards_stars_and_conditions(window: Page, tmp_path: Path) -> None:
    spec = spec_of("ranking")
    open_page(window, tmp_path / "r.html", preview(render(spec), [sample_task(spec)]))
    card = window.locator('[data-ranker-id="answer2"]')
    card.focus()
    window.keyboard.press("ArrowRight")
    window.keyboard.press("ArrowRight")
    assert window.locator(".htx-ranker-column").nth(2).locator('[data-ranker-id="answer2"]').count() == 1
    card.drag_to(window.locator(".htx-ranker-column").nth(1))
    assert window.locator(".htx-ranker-column").nth(1).locator('[data-ranker-id="answer2"]').count() == 1

    spec = spec_of("rating")
    open_page(window, tmp_path / "s.html", preview(render(spec), [sample_task(spec)]))
    window.locator(".ant-rate").first.get_by_role("button").nth(3).click()
    assert window.locator(".ant-rate-star-full").count() == 4

    when = 'visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="tie"'
    hidden = f'<View {when}><Header value="Why the same?"/></View>'
    config = GOOD_CONFIG.replace("</View>", hidden + "</View>")
    open_page(window, tmp_path / "w.html", preview(config, [{"prompt": "p", "answer1": "a", "answer2": "b"}]))
    assert not window.get_by_text("Why the same?").is_visible()
    window.get_by_text("About the same").click()
    assert window.get_by_text("Why the same?").is_visible()


def test_what_it_cannot_show_and_what_the_editor_loses(window: Page, tmp_path: Path) -> None:
    style = "<Style>.mine .a { color: rgb(1, 2, 3) } .mine &gt; .b { color: rgb(1, 2, 3) } </Style>"
    views = '<View className="a"><Header value="kept"/></View><View className="b"><Header value="lost"/></View>'
    config = GOOD_CONFIG.replace("<View>", f'<View className="mine">{style}{views}', 1)
    config = config.replace("</View>\n", '<Image name="i" value="$i"/></View>\n') if "<Image" not in config else config
    open_page(window, tmp_path / "p.html", preview(config, [{"prompt": "p", "answer1": "a", "answer2": "b", "i": "x"}]))
    assert window.get_by_text("The preview does not show <Image>.").count() >= 1
    colours = [window.get_by_text(name).evaluate("e => getComputedStyle(e).color") for name in ("kept", "lost")]
    assert [colour == "rgb(1, 2, 3)" for colour in colours] == [True, False]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: Page) -> None:
    monkeypatch.chdir(tmp_path)
    run_cli(["lsplugin", "render", "--answers", "3", "-o", "c.xml"])
    assert run_cli(["lsplugin", "preview", "c.xml"]).stderr == "wrote preview.html: open it in a browser\n"
    rows = [{"prompt": f"p{n}", "answer1": f"a{n}", "answer2": "b", "answer3": "c"} for n in range(MOST_TASKS + 2)]
    write_json(tmp_path / "d.json", rows)
    assert run_cli(["lsplugin", "preview", "c.xml", "--tasks", "d.json", "-o", "p.html"]).code == 0
    window.goto((tmp_path / "p.html").as_uri())
    assert f"The first {MOST_TASKS} of {MOST_TASKS + 2} tasks." in window.locator("#banner").inner_text()
    window.locator("#scheme").click()
    assert window.locator("html").get_attribute("data-color-scheme") == "dark"

    write_json(tmp_path / "d.json", [*rows[:1], {"prompt": "p"}, {"prompt": "p", "answer1": ""}])
    said = complaint(["lsplugin", "preview", "c.xml", "--tasks", "d.json", "-o", "q.html"])
    assert said.startswith("d.json: 2 bad rows")
    (tmp_path / "bad.xml").write_text(GOOD_CONFIG.replace("answer1,answer2", "answer1"))
    assert complaint(["lsplugin", "preview", "bad.xml", "-o", "q.html"]).startswith(
        "bad.xml has errors, first on line 3"
    )
    (tmp_path / "good.xml").write_text(GOOD_CONFIG)
    assert "name a dataset with --tasks" in complaint(["lsplugin", "preview", "good.xml", "-o", "q.html"])
    assert not (tmp_path / "q.html").exists()


def test_the_policy_lets_nothing_in(window: Page, tmp_path: Path) -> None:
    """Even a config that should never have passed, with a picture from elsewhere, makes no request."""
    config = GOOD_CONFIG.replace(
        "<View>", "<View><Style>body { background: url(https://example.org/x.png) }</Style>", 1
    )
    page = preview(config, [{"prompt": "p", "answer1": "a", "answer2": "b"}])
    asked: list[str] = []
    window.on("requestfinished", lambda request: asked.append(request.url))
    (tmp_path / "p.html").write_text(page)
    window.goto((tmp_path / "p.html").as_uri())
    window.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s) }"
    )
    window.wait_for_timeout(200)
    assert asked == [(tmp_path / "p.html").as_uri()]
    assert window.title() == "Preview of a labeling config"
