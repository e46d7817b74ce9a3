"""The preview page in a real browser: it looks and works like the editor, shows any text unchanged, asks nothing of anyone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree, html

from lsplugin.prepare import prepare
from lsplugin.preview import MOST_TASKS, preview
from lsplugin.render import render, sample_task
from lsplugin.template import Spec, template_names
from tests.helpers import GOOD_CONFIG, complaint, run_cli, write_json
from tests.test_browser import box_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.conftest import LabelStudio
    from tests.helpers import Person

pytestmark = pytest.mark.browser

NASTY = [
    "</script><script>document.title = 'broken'</script>",
    "<!-- <b>bold</b> --> ]]> &amp; &lt; \" ' `",
    "<img src='https://example.org/x.png' onerror='document.title=1'>",
    "$prompt and $5 \\u003c \\n",
    "שלום 😀 \u2028 line \u2029 paragraph",
    "two\nlines  and   spaces",
]


LINES = "box => [...box.querySelectorAll('.lsf-richtext__line')].map(line => line.textContent).join('\\n')"

# What the editor shows in ways of its own: sizes, defaults, keys that it hands out, fields reached by a path.
MANY_TAGS = """<View className="mine">
  <Style>.mine .c::before { content: "a &lt; b &gt; c"; }</Style>
  <Header value="One" size="1"/><Header value="Price of $deep.er[0].word." size="6" underline="true"/>
  <View className="c" display="inline"><Text name="prompt" value="Mixed: $prompt, $number, $flag"/></View>
  <Text name="word" value="$deep.er[0].word"/>
  <HyperText name="html" value="$html" inline="true"/>
  <Pairwise name="comparison" toName="left,right"/>
  <Text name="left" value="$left"/><Text name="right" value="$right"/>
  <Choices name="plain" toName="prompt"><Choice value="p1" hotkey="r"/><Choice value="p2"/>
    <Choice value="p3" selected="true"/></Choices>
  <Choices name="row" toName="prompt" choice="single-radio" showInline="true"><Choice value="r1"/><Choice value="r2"/></Choices>
  <Choices name="html-choices" toName="prompt" choice="multiple">
    <Choice value="m1" alias="m"/><Choice value="m2" html="&lt;b&gt;bold&lt;/b&gt;"/>
  </Choices>
  <Choices name="dynamic" toName="prompt" value="$options"/>
  <Choices name="nested" toName="prompt" allowNested="true">
    <Choice value="n1"><Choice value="n11"/><Choice value="n12"/></Choice>
    <Choice value="n2"><Choice value="n21"/><Choice value="n22"/></Choice>
  </Choices>
  <Choices name="many" toName="prompt" choice="multiple" showInline="true">MANY</Choices>
  <View visibleWhen="choice-selected" whenTagName="row" whenChoiceValue="r2"><Header value="second of the row"/></View>
  <View visibleWhen="choice-unselected" whenTagName="row" whenChoiceValue="r2"><Header value="not the second"/></View>
  <View visibleWhen="no-region-selected"><Header value="no region"/></View>
  <Rating name="stars" toName="prompt" maxRating="7" size="large" defaultValue="2" hotkey="x"/>
  <Number name="count" toName="prompt" min="1" max="9" step="2" defaultValue="3"/>
  <TextArea name="note" toName="prompt" placeholder="write"/>
  <Collapse><Panel value="Closed $number"><Header value="unseen"/></Panel>
    <Panel value="Other"><Header value="unseen"/></Panel></Collapse>
  <Collapse open="true" accordion="false"><Panel value="Open"><Header value="seen"/></Panel>
    <Panel value="Open, too"><Header value="seen, too"/></Panel></Collapse>
  <List name="alone" value="$items" title="Only a list"/>
  <List name="sorted" value="$items" title="Items"/><Ranker name="order" toName="sorted"/>
  <List name="tiered" value="$items" title="Never seen"/>
  <Ranker name="tiers" toName="tiered"><Bucket name="b1" title="First"/><Bucket name="b2" default="true"/></Ranker>
</View>""".replace("MANY", "".join(f'<Choice value="k{number}"/>' for number in range(24)))
MANY_FIELDS = {
    "prompt": "First  line\n\nthird <b>line</b>",
    "number": 5.0,
    "flag": True,
    "deep": {"er": [{"word": "deep word"}]},
    "html": "<p>text <b>bold</b></p><ul><li>item</li></ul>",
    "left": "left\ntwo lines",
    "right": "right",
    "options": [{"value": "o1"}, {"value": "o2", "alias": "second", "hotkey": "v"}],
    "items": [{"id": 1, "title": "T1", "body": "B1"}, {"id": "two", "html": "<i>html</i>"}, {"id": "three"}],
}


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
        assert [found.evaluate(LINES) for found in shown.all()] == [text, text + " 1", text + " 2"]
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
    left = window.locator(".htx-ranker-column").first.locator("[data-ranker-id]")
    order = [found.get_attribute("data-ranker-id") for found in left.all()]
    left.first.focus()
    window.keyboard.press("ArrowDown")
    assert [found.get_attribute("data-ranker-id") for found in left.all()] == order[::-1]

    spec = spec_of("rating")
    open_page(window, tmp_path / "s.html", preview(render(spec), [sample_task(spec)]))
    row, full = window.locator(".ant-rate").first, window.locator(".ant-rate-star-full")
    row.get_by_role("radio").nth(3).click()
    assert full.count() == 4
    assert row.locator("[aria-checked=true]").get_attribute("aria-label") == "4 of 5"
    row.get_by_role("radio").nth(3).click()  # a second click takes it back
    assert full.count() == 0
    row.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        window.keyboard.press(key)
    assert full.count() == 1

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


@pytest.mark.server
@pytest.mark.parametrize("name", ["many tags", "every option", *template_names()])
def test_the_editor_shows_the_same(
    name: str, window: Page, page: Page, server: LabelStudio, admin: Person, tmp_path: Path
) -> None:
    """The same texts with the same keys in the same order, under tags of the same kind, the same boxes ticked."""
    if name == "many tags":
        config, data = MANY_TAGS, MANY_FIELDS
    else:
        options = {"chat": True, "markdown": True, "strength": True, "reason": True, "reasons": ("A", "B")}
        spec = Spec(**options) if name == "every option" else spec_of(name)
        config = render(spec)
        data = prepare(sample_task(spec), etree.fromstring(config))
    project = admin.post("/api/projects/", {"title": "preview", "label_config": config})["id"]
    (task,) = admin.post(f"/api/projects/{project}/import?return_task_ids=true", [{"data": data}])["task_ids"]
    page.goto(f"{server.url}/projects/{project}/data?task={task}")
    root = page.locator(".lsf-main-view").locator(".mine, .lsplugin").first
    root.wait_for()
    trouble = open_page(window, tmp_path / "p.html", preview(config, [data]))
    ours = window.locator("main").locator(".mine, .lsplugin").first
    for _ in range(60):  # Pairwise and the choices of a task come a moment later
        page.wait_for_timeout(250)
        lines = [[line for line in shown.inner_text().splitlines() if line] for shown in (root, ours)]
        if lines[1] == lines[0]:
            break
    assert lines[1] == lines[0]
    assert len(lines[0]) > 3
    for script in (HEADINGS, INPUTS):
        assert ours.evaluate(script) == root.evaluate(script)
    assert trouble == []


HEADINGS = "root => [...root.querySelectorAll('h1, h2, h3, h4, h5')].map(found => found.tagName + found.textContent)"
INPUTS = """root => [...root.querySelectorAll('input:not([type=text]), .ant-rate-star-full')].map(
  found => [found.type, found.name, found.checked, found.type === 'number' ? found.value : null])"""


def test_choices_as_in_the_editor(window: Page, tmp_path: Path) -> None:
    open_page(window, tmp_path / "p.html", preview(MANY_TAGS, [MANY_FIELDS]))

    def ticked(name: str) -> list[str]:
        return [
            str(found.get_attribute("name")) for found in window.locator(f"[data-choices={name}] input:checked").all()
        ]

    assert ticked("plain") == ["p3"]
    window.keyboard.press("r")  # boxes, but one at a time, and a second stroke takes it back
    assert ticked("plain") == ["p1"]
    window.keyboard.press("r")
    assert ticked("plain") == []
    window.get_by_text("m1").click()
    window.get_by_text("bold", exact=True).last.click()
    assert ticked("html-choices") == ["m1", "m2"]
    window.get_by_text("n1", exact=False).first.click()
    assert ticked("nested") == ["n1", "n11", "n12"]
    window.keyboard.press("v")
    assert ticked("dynamic") == ["o2"]
    assert window.get_by_text("not the second").is_visible()
    window.get_by_text("r2").click()
    assert window.get_by_text("second of the row").is_visible()
    assert not window.get_by_text("not the second").is_visible()
    for count in (1, 2):
        window.keyboard.press("x")
        assert window.locator(".ant-rate-star-full").count() == count
    window.locator("[name=note]").press_sequentially("rx")  # typing is not choosing
    assert (ticked("plain"), window.locator("[name=note]").input_value()) == ([], "rx")


def test_the_same_answer_to_two_questions(window: Page, tmp_path: Path) -> None:
    """Radio buttons are named by their labels, as in the editor; that must not tie one question, or task, to another."""
    spec = Spec(criteria=("Clarity", "Tone"))
    trouble = open_page(window, tmp_path / "p.html", preview(render(spec), [sample_task(spec)] * 2))
    for _ in range(2):
        for same in window.locator("section:not([hidden])").get_by_text("About the same").all():
            same.click()
        window.locator("#next").click(force=True)
    assert window.locator("input:checked").count() == 6
    window.locator("section:not([hidden]) input").last.focus()
    window.keyboard.press("Enter")
    assert window.locator("input:checked").count() == 6
    assert trouble == []


def test_a_choice_shows_without_a_style_for_it(window: Page, tmp_path: Path) -> None:
    open_page(window, tmp_path / "p.html", preview(GOOD_CONFIG, [{"prompt": "p", "answer1": "a", "answer2": "b"}]))
    colour = "side => getComputedStyle(side).borderTopColor"
    left, right = window.locator("[data-side]").all()
    right.click()
    assert right.evaluate(colour) == "rgb(97, 122, 218)"  # the editor's own, measured there
    assert left.evaluate(colour) == "rgba(0, 0, 0, 0)"


@given(st.text(), st.text(st.characters(codec=None)))
@example("\x00\x1b\ufffe\ud800", "\n\r\n\x85\xa0")
def test_no_text_breaks_the_page(one: str, other: str) -> None:
    config = """<View><Style>.a { content: "&lt;/style&gt;&lt;script&gt;" }</Style><Header value="$a"/><Text name="t" value="$a"/>
      <HyperText name="h" value="$b" inline="true"/><Choices name="c" toName="t" value="$c"/><List name="l" value="$d"/>
      <TextArea name="x" toName="t" rows="3" value="$b" placeholder="$a"/><Rating name="r" toName="t" maxRating="\u00b2"/>
      <Rating name="s" toName="t" maxRating="999999999"/></View>"""
    task = {"a": one, "b": other, "c": [{"value": one, "alias": other}, 1], "d": [{"id": one, "title": other}, None]}
    page = preview(config, [task])
    made = html.document_fromstring(page.replace("\r", "\n"))
    shown = "\n".join(line.text or "" for line in made.iter("span") if line.get("class") == "lsf-richtext__line")
    assert shown == UNSHOWABLE.sub("\ufffd", one).replace("\r", "\n")
    assert len(made.findall(".//script")) == 1
    assert len(page) < 200_000


UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def test_what_needs_a_region_is_said(window: Page, tmp_path: Path) -> None:
    view = '<View visibleWhen="region-selected"><Header value="unseen"/></View>'
    control = '<Rating name="r" toName="prompt" perRegion="true"/>'
    config = GOOD_CONFIG.replace("</View>", view + control + '<Text name="u" value="$u" valueType="url"/></View>')
    open_page(window, tmp_path / "p.html", preview(config, [{"prompt": "p", "answer1": "a", "answer2": "b", "u": "x"}]))
    said = [found.inner_text().split(" ")[0] for found in window.locator(".preview-unknown").all()]
    assert said == ["<View>", "<Rating>", "<Text>"]
    assert window.get_by_text("unseen").count() == 0


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
