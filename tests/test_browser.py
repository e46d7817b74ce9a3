"""Every template and theme in a real editor: it can be read, labelled by mouse and by keyboard, and stores what was meant."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsplugin.render import render
from lsplugin.template import Spec, template_names, theme_names
from tests.helpers import pairwise_result, read_lines, run_cli, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from playwright.sync_api import Locator, Page

    from tests.conftest import LabelStudio
    from tests.helpers import Person

pytestmark = [pytest.mark.server, pytest.mark.browser]

ROW = {
    "prompt": "How do I add up a list of numbers in Python?",
    "answer1": "Call sum(numbers). It also works for any other iterable, and for floats. 😀 <b>not bold</b>",
    "answer2": "total = 0\nfor number in numbers:\n    total += number\n\nreturn " + "x" * 70,
    "answer3": "הפונקציה sum מחזירה את הסכום של כל המספרים ברשימה.",
}
ENOUGH_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3


def choice(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": [value]}}


def tiers(*names: list[str]) -> dict[str, Any]:
    order = {"_": [], **{f"tier{number}": found for number, found in enumerate(names, start=1)}}
    return {"from_name": "ranking", "to_name": "items", "type": "ranker", "value": {"ranker": order}}


def stars(answer: str, count: int) -> dict[str, Any]:
    return {"from_name": f"overall_{answer}", "to_name": answer, "type": "rating", "value": {"rating": count}}


_CARD_IN_A_TIER = ".htx-ranker-column:not(:first-child) .htx-ranker-item"
SHOWS_A_CHOICE = f'[style*="order: 0"], .ant-radio-checked, .ant-rate-star-full, {_CARD_IN_A_TIER}'
"""An answer that is clicked, a choice that is ticked, a star that is given, a card in a tier."""


@dataclass(frozen=True)
class Use:
    """How a template is used, and what it then stores."""

    by_mouse: Callable[[Page, Locator], None]
    mouse_result: list[dict[str, Any]]
    by_keyboard: Callable[[Page, Locator], None]
    keyboard_result: list[dict[str, Any]]
    prelabel: list[dict[str, Any]]


def box_of(shown: Locator) -> dict[str, float]:
    """Where it is on the page: x, y, width, height in CSS pixels."""
    box = shown.bounding_box()
    assert box is not None
    return dict(box)  # type: ignore[arg-type]


def click_right_and_better(page: Page, root: Locator) -> None:
    box = root.locator(".lsplugin-answer").nth(1)
    size = box_of(box)
    box.click(position={"x": 8, "y": 8})
    box.click(position={"x": 8, "y": 8})  # a second click takes it back
    box.click(position={"x": size["width"] - 8, "y": size["height"] - 8})  # the corner, where no text is
    root.get_by_text("The one I clicked is better").click()


def drag_into_tiers(page: Page, root: Locator) -> None:
    for item, column in (("answer2", 1), ("answer1", 2), ("answer3", 2)):
        card = root.locator(f'[data-ranker-id="{item}"]')
        place = root.locator(".htx-ranker-column").nth(column)
        root.get_by_text("I have sorted all answers").scroll_into_view_if_needed()
        start, end = box_of(card), box_of(place)
        page.mouse.move(start["x"] + 20, start["y"] + 10)
        page.mouse.down()
        page.mouse.move(start["x"] + 40, start["y"] + 10, steps=3)
        page.mouse.move(end["x"] + 40, end["y"] + 70, steps=12)
        page.wait_for_timeout(150)
        page.mouse.up()
        place.locator(f'[data-ranker-id="{item}"]').wait_for()
        page.wait_for_timeout(400)  # the card glides into place
    root.get_by_text("I have sorted all answers").click()


def carry_into_tiers(page: Page, root: Locator) -> None:
    for item, steps in (("answer3", 1), ("answer2", 3), ("answer1", 3)):
        root.locator(f'[data-ranker-id="{item}"]').focus()
        page.keyboard.press("Space")
        for _ in range(steps):
            page.wait_for_timeout(150)
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(150)
        page.keyboard.press("Space")
        root.locator(".htx-ranker-column").nth(steps).locator(f'[data-ranker-id="{item}"]').wait_for()
        page.wait_for_timeout(400)
    page.keyboard.press("1")


def rate_by_mouse(page: Page, root: Locator) -> None:
    for answer, count in ((0, 5), (1, 2)):
        root.locator(".ant-rate").nth(answer).locator("[role=radio]").nth(count - 1).click()


def rate_by_keyboard(page: Page, root: Locator) -> None:
    for answer, count in ((0, 1), (1, 4)):
        root.locator(".ant-rate").nth(answer).focus()
        for _ in range(count):
            page.keyboard.press("ArrowRight")


USES = {
    "pairwise": Use(
        click_right_and_better,
        [*pairwise_result("right"), choice("verdict", "better")],
        lambda page, _: page.keyboard.press("2"),  # Pairwise itself takes no key, its companion does
        [choice("verdict", "tie")],
        [{**pairwise_result("right")[0], "to_name": "answer1"}, choice("verdict", "better")],
    ),
    "scale": Use(
        lambda _, root: root.get_by_text("Right much better").click(),
        [choice("comparison", "right-much")],
        lambda page, _: page.keyboard.press("3"),
        [choice("comparison", "left-slightly")],
        [choice("comparison", "tie")],
    ),
    "ranking": Use(
        drag_into_tiers,
        [tiers(["answer2"], ["answer1", "answer3"], []), choice("verdict", "ranked")],
        carry_into_tiers,
        [tiers(["answer3"], [], ["answer1", "answer2"]), choice("verdict", "ranked")],
        [tiers(["answer1"], ["answer2"], ["answer3"]), choice("verdict", "ranked")],
    ),
    "rating": Use(
        rate_by_mouse,
        [stars("answer1", 5), stars("answer2", 2)],
        rate_by_keyboard,
        [stars("answer1", 1), stars("answer2", 4)],
        [stars("answer1", 3), stars("answer2", 3)],
    ),
}


def new_project(admin: Person, spec: Spec, tasks: list[dict[str, Any]]) -> tuple[int, list[int]]:
    """Make a project as `lsplugin create` does, and tasks as they stand; give its number and theirs."""
    config = {"title": "browser", "label_config": render(spec), "enable_empty_annotation": False}
    project = admin.post("/api/projects/", config)["id"]
    made = admin.post(f"/api/projects/{project}/import?return_task_ids=true", tasks)
    return project, sorted(made["task_ids"])


def open_task(page: Page, url: str, project: int, task: int) -> Locator:
    """Open a task and give the template's root in the editor."""
    page.goto(f"{url}/projects/{project}/data?task={task}")
    root = page.locator(".lsf-main-view .lsplugin")
    root.locator(".lsplugin-answer").nth(1).locator("text=return").first.wait_for()
    # Colours change at once; a ranking's cards need their glide, at the end of which they are dropped.
    page.add_style_tag(content="*:not(.htx-ranker-item) { transition: none !important; }")
    page.wait_for_timeout(400)  # Pairwise attaches its clicks a moment after the texts are drawn
    return root


def submitted(page: Page, admin: Person, task: int) -> list[dict[str, Any]]:
    """Submit by the keyboard, and give the results that the server stored for the task, without what varies."""
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as sent:
        page.keyboard.press("Control+Enter")
    assert sent.value.status == 201
    (annotation,) = admin.get(f"/api/tasks/{task}/annotations/")
    for found in annotation["result"]:
        if found["type"] == "ranker":  # within a tier the order says nothing
            found["value"]["ranker"] = {tier: sorted(items) for tier, items in found["value"]["ranker"].items()}
    return [{name: found[name] for name in ("from_name", "to_name", "type", "value")} for found in annotation["result"]]


def boxes(root: Locator) -> list[dict[str, float]]:
    return [box_of(answer) for answer in root.locator(".lsplugin-answer").all()]


COLOURS = """root => {
  const under = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(getComputedStyle(e).backgroundColor);
    return layers;
  };
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const shown = element.getClientRects().length > 0 && getComputedStyle(element).visibility === 'visible';
    if (!node.data.trim() || !shown || element.closest('style')) continue;
    found.push([node.data.trim().slice(0, 30), getComputedStyle(element).color, under(element)]);
  }
  for (const field of root.querySelectorAll('textarea'))
    found.push(['placeholder', getComputedStyle(field, '::placeholder').color, under(field)]);
  return found;
}"""


def contrast(colour: str, layers: list[str]) -> float:
    """Contrast of a text with what lies under it: WCAG 2.2's ratio of relative luminances."""

    def channels(css: str) -> tuple[list[float], float]:
        numbers = [float(number) for number in re.findall(r"[\d.]+", css)]
        return [number / 255 for number in numbers[:3]], numbers[3] if len(numbers) > 3 else 1.0

    def luminance(rgb: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ground = [1.0, 1.0, 1.0]
    for layer in reversed(layers):
        rgb, alpha = channels(layer)
        ground = [alpha * c + (1 - alpha) * g for c, g in zip(rgb, ground, strict=True)]
    rgb, alpha = channels(colour)
    text = [alpha * c + (1 - alpha) * g for c, g in zip(rgb, ground, strict=True)]
    light, dark = sorted([luminance(text), luminance(ground)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_known_pairs() -> None:
    assert contrast("rgb(0, 0, 0)", ["rgb(255, 255, 255)"]) == pytest.approx(21)
    assert contrast("rgb(255, 255, 255)", ["rgba(0, 0, 0, 0)", "rgb(0, 132, 255)"]) == pytest.approx(3.65, abs=0.01)
    assert contrast("rgb(255, 255, 255)", ["rgb(39, 174, 96)"]) == pytest.approx(2.87, abs=0.01)


def unreadable(root: Locator) -> list[str]:
    """Texts whose contrast is too small, in Label Studio's light and dark colours."""
    found = []
    for scheme in ("light", "dark"):
        root.page.evaluate(f"document.documentElement.setAttribute('data-color-scheme', '{scheme}')")
        root.page.wait_for_timeout(50)
        texts = root.evaluate(COLOURS)
        assert len(texts) > 4
        found += [
            f"{scheme}: {text}: {ratio:.2f}"
            for text, *colours in texts
            if (ratio := contrast(*colours)) < ENOUGH_CONTRAST
        ]
    root.page.evaluate("document.documentElement.setAttribute('data-color-scheme', 'light')")
    return found


def all_states_are_readable(page: Page, root: Locator, use: Use) -> None:
    assert unreadable(root) == []
    root.locator(".lsplugin-answer").first.hover()
    assert unreadable(root) == []
    use.by_mouse(page, root)
    assert unreadable(root) == []


def keep_screenshots(root: Locator, folder: Path, name: str) -> None:
    """Keep what an annotator sees, in light and dark: SCREENSHOTS=docs/images pytest tests/test_browser.py."""
    root.page.set_viewport_size({"width": 1280, "height": 1400})
    root.page.mouse.move(5, 5)
    for scheme in ("dark", "light"):
        root.page.evaluate(f"document.documentElement.setAttribute('data-color-scheme', '{scheme}')")
        root.page.wait_for_timeout(100)
        root.screenshot(path=folder / f"{name}-{scheme}.png")


def everyday(names: Iterable[str], *chosen: str) -> list[Any]:
    """Mark all but the chosen ones as slow."""
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("theme", everyday(theme_names(), "default"))
@pytest.mark.parametrize("template", everyday(template_names(), "pairwise", "scale"))
def test_label_by_mouse_and_keyboard_and_from_prelabels(
    template: str, theme: str, page: Page, server: LabelStudio, admin: Person
) -> None:
    use, count = USES[template], 3 if template == "ranking" else 2
    names = [f"answer{number}" for number in range(1, count + 1)]
    data: dict[str, Any] = {name: ROW[name] for name in ["prompt", *names]}
    if template == "ranking":
        data["items"] = [{"id": name, "title": f"Answer {letter}"} for name, letter in zip(names, "ABC", strict=True)]
    tasks = [
        {"data": data},
        {"data": data},
        {"data": data, "predictions": [{"model_version": "m", "result": use.prelabel}]},
    ]
    project, (first, second, third) = new_project(admin, Spec(answers=count, template=template, theme=theme), tasks)

    page.set_viewport_size({"width": 1280, "height": 900})
    root = open_task(page, server.url, project, first)
    editor = page.locator(".lsf-main-view").inner_text()
    assert "Incorrect" not in editor
    assert "error" not in editor.lower()
    for name, box in zip(names, root.locator(".lsplugin-answer").all(), strict=True):
        assert ROW[name] in box.inner_text()  # markup is shown as the text that it is
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)
        shown = boxes(root)
        assert len({box["y"] for box in shown}) == len({box["height"] for box in shown}) == 1
        widths = [box["width"] for box in shown]
        assert max(widths) - min(widths) <= 1  # a long word pushes nothing aside
        for left, right in itertools.pairwise(shown):
            assert left["x"] + left["width"] <= right["x"]
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_timeout(150)
    for upper, lower in itertools.pairwise(boxes(root)):
        assert upper["y"] + upper["height"] <= lower["y"]

    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_timeout(150)
    assert page.get_by_role("button", name="Submit").is_disabled()  # nothing is chosen yet
    all_states_are_readable(page, root, use)
    if folder := os.environ.get("SCREENSHOTS"):
        keep_screenshots(root, Path(folder), f"{template}-{theme}")
    assert submitted(page, admin, first) == use.mouse_result

    root = open_task(page, server.url, project, second)
    use.by_keyboard(page, root)
    page.wait_for_timeout(200)
    assert submitted(page, admin, second) == use.keyboard_result

    root = open_task(page, server.url, project, third)
    root.locator(SHOWS_A_CHOICE).first.wait_for(state="attached")  # a pre-label is put in after the page is shown
    assert submitted(page, admin, third) == use.prelabel


@pytest.mark.parametrize("template", ["pairwise", "scale"])
def test_the_whole_box_shows_what_is_chosen(template: str, page: Page, server: LabelStudio, admin: Person) -> None:
    data = {name: ROW[name] for name in ("prompt", "answer1", "answer2")}
    project, (task,) = new_project(admin, Spec(template=template), [{"data": data}])
    page.set_viewport_size({"width": 1280, "height": 900})
    root = open_task(page, server.url, project, task)

    def looks() -> list[str]:
        script = "e => { const s = getComputedStyle(e); return s.backgroundColor + s.borderColor + s.boxShadow }"
        page.mouse.move(5, 5)
        page.wait_for_timeout(50)
        return [str(answer.evaluate(script)) for answer in root.locator(".lsplugin-answer").all()]

    def choose(side: int) -> None:
        if template == "pairwise":
            root.locator(".lsplugin-answer").nth(side).click(position={"x": 8, "y": 8})
        else:
            page.keyboard.press("17"[side])

    plain = looks()
    assert plain[0] == plain[1]
    choose(0)
    first = looks()
    assert first[0] != plain[0]
    assert first[1] == plain[1]
    choose(1)
    assert looks() == [plain[0], first[0]]


def test_focus_is_visible(page: Page, server: LabelStudio, admin: Person) -> None:
    data = {name: ROW[name] for name in ("prompt", "answer1", "answer2")}
    project, (task,) = new_project(admin, Spec(), [{"data": data}])
    root = open_task(page, server.url, project, task)
    choices = root.locator(".ant-radio-wrapper")
    assert choices.first.evaluate("e => getComputedStyle(e).outlineStyle") == "none"
    root.locator("input").first.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    style = choices.first.evaluate("e => { const s = getComputedStyle(e); return [s.outlineStyle, s.outlineWidth] }")
    assert style == ["solid", "3px"]


def test_every_option_at_once(page: Page, connected: LabelStudio, admin: Person, tmp_path: Path) -> None:
    """Chat, Markdown and every companion control: it shows, does no harm, and comes back as a pair."""
    attack = '**bold** <img src=x onerror="document.title=1"> ![i](https://example.org/i.png)\n\n    code'
    talk = [
        {"role": "user", "content": "Hi\nthere"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ]
    write_json(tmp_path / "d.json", [{"prompt": talk, "answer1": attack, "answer2": "def f():\n    return 1"}])
    (tmp_path / "how.md").write_text("Pay at most **$5**.")
    options = (
        "--chat --markdown --strength --both-bad --reason --reasons Accurate,Kind --criteria Clarity --rewrite --flag"
    )
    run_cli(["lsplugin", "render", *options.split(), "--instructions", "how.md", "-o", "config.xml"])
    made = run_cli(["lsplugin", "create", "All options", "--config", "config.xml", "--tasks", "d.json"])
    assert made.code == 0, made
    project = int(made.stdout)
    (task,) = [found["id"] for found in admin.get(f"/api/tasks?project={project}")["tasks"]]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": 1280, "height": 2400})
    root = open_task(page, connected.url, project, task)
    assert unreadable(root) == []
    assert [url for url in asked if not url.startswith(connected.url)] == []
    assert root.locator("strong", has_text="bold").count() == 1
    assert root.locator("img").count() == 0
    assert page.title() != "1"
    for message in talk:
        assert message["content"] in root.locator(".lsplugin-prompt").inner_text()
    root.get_by_text("Instructions").click()
    root.get_by_text("$5").wait_for()

    root.locator(".lsplugin-answer").first.click(position={"x": 30, "y": 8})
    root.get_by_text("Edit into a better answer").first.click()
    root.locator("textarea").first.fill("A better answer")
    for label in ("Clearly better", "Left", "Kind", "Needs an expert"):
        root.get_by_text(label, exact=False).first.click()
    root.locator("textarea[name=reason]").fill("It says why.")
    page.get_by_role("button", name="Submit").focus()
    stored = {found["from_name"]: found["value"] for found in submitted(page, admin, task)}
    assert stored == {
        "comparison": {"selected": "left"},
        "verdict": {"choices": ["clearly"]},
        "criterion-clarity": {"choices": ["left"]},
        "reasons": {"choices": ["kind"]},
        "flags": {"choices": ["needs-expert"]},
        "reason": {"text": ["It says why."]},
        "rewrite_answer1": {"text": ["A better answer"]},
        "rewrite_answer2": {"text": ["def f():\n    return 1"]},
    }
    assert run_cli(["lsplugin", "pull", str(project), "-o", "export.json"]).code == 0
    assert run_cli(["lsplugin", "pairs", "export.json", "--config", "config.xml"]).code == 0
    pair, rewrite = read_lines(tmp_path / "pairs.jsonl")
    assert (pair["prompt"], pair["chosen"], pair["meta"]["strength"]) == (talk, attack, "clearly")
    said = {name: pair["meta"][name] for name in ("criteria", "reasons", "flags", "reason")}
    assert said == {
        "criteria": {"clarity": "chosen"},
        "reasons": ["kind"],
        "flags": ["needs-expert"],
        "reason": "It says why.",
    }
    assert (rewrite["chosen"], rewrite["rejected"]) == ("A better answer", attack)
    for kind in ("JSON_MIN", "CSV"):
        (tmp_path / "other").write_bytes(admin.http.get(f"/api/projects/{project}/export?exportType={kind}").content)
        assert run_cli(["lsplugin", "pairs", "other", "--config", "config.xml", "-o", "other.jsonl"]).code == 0
        other = read_lines(tmp_path / "other.jsonl")
        assert [(p["prompt"], p["chosen"], p["rejected"], p.get("margin")) for p in other] == [
            (p["prompt"], p["chosen"], p["rejected"], p.get("margin")) for p in (pair, rewrite)
        ]
