"""A person at a real editor: the rendered config shows, takes a click anywhere in an answer's box, and stores the choice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.helpers import read_lines, run_cli, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page, Response

    from tests.conftest import LabelStudio

pytestmark = [pytest.mark.server, pytest.mark.browser]

ROW = {
    "prompt": "Explain to a ten-year-old why the sky is blue.",
    "answer1": "Sunlight is a mix of all colours, and the air scatters the blue part most. 😀 שלום <b>not bold</b>",
    "answer2": "def f(x):\n    return " + "x" * 300,
}


@pytest.fixture
def page(browser: Browser, connected: LabelStudio) -> Iterator[Page]:
    """A page of the administrator's, signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(connected.url + "/user/login")
    page.fill("[name=email]", connected.user)
    page.fill("[name=password]", connected.password)
    page.click("[type=submit]")
    page.wait_for_url(lambda url: "/login" not in url)
    yield page
    context.close()


def open_task(page: Page, url: str, project: str) -> Locator:
    """Open the project's first task and give the template's root in the editor."""
    assert run_cli(["lsplugin", "pull", project, "-o", "before.json"]).code == 0
    with open("before.json", encoding="utf-8") as stream:  # noqa: PTH123
        task = json.load(stream)[0]["id"]
    page.goto(f"{url}/projects/{project}/data?task={task}")
    root = page.locator(".lsf-main-view .lsplugin")
    root.locator(".lsplugin-answer").nth(1).locator("text=return").wait_for()
    page.wait_for_timeout(300)  # the Pairwise control attaches its clicks a moment after the texts are drawn
    return root


def _is_submission(response: Response) -> bool:
    return "/annotations" in response.url and response.request.method == "POST"


def test_label_a_task_by_mouse(page: Page, connected: LabelStudio, tmp_path: Path) -> None:
    write_json(tmp_path / "d.json", [ROW])
    run_cli(["lsplugin", "render", "-o", "config.xml"])
    project = run_cli(["lsplugin", "create", "By mouse", "--config", "config.xml", "--tasks", "d.json"]).stdout.strip()
    root = open_task(page, connected.url, project)
    editor = page.locator(".lsf-main-view")
    assert "Incorrect" not in editor.inner_text()
    assert "error" not in editor.inner_text().lower()
    for field, shown in (
        ("prompt", root.locator(".lsplugin-prompt")),
        ("answer1", root.locator(".lsplugin-answer").first),
    ):
        assert shown.inner_text().strip() == ROW[field]  # markup is shown as the text that it is

    answers = [root.locator(".lsplugin-answer").nth(number) for number in (0, 1)]

    def boxes() -> list[dict[str, float]]:
        return [dict(answer.bounding_box() or {}) for answer in answers]

    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(200)
        left, right = boxes()
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] <= right["x"]
        assert left["height"] == right["height"]
        assert abs(left["width"] - right["width"]) <= 1  # three hundred letters in one word do not push the other aside
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_timeout(200)
    left, right = boxes()
    assert left["y"] + left["height"] <= right["y"]
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_timeout(200)

    def looks() -> list[str]:
        script = "e => { const s = getComputedStyle(e); return s.backgroundColor + s.borderColor + s.boxShadow }"
        page.mouse.move(5, 5)
        page.wait_for_timeout(250)
        return [str(answer.evaluate(script)) for answer in answers]

    plain = looks()
    assert plain[0] == plain[1]
    box = boxes()[0]
    answers[0].click(position={"x": box["width"] - 8, "y": box["height"] - 8})  # the corner, where no text is
    chosen_first = looks()
    assert chosen_first[0] != plain[0]
    assert chosen_first[1] == plain[1]
    answers[1].click(position={"x": 8, "y": 8})
    chosen_second = looks()
    assert chosen_second == [plain[0], chosen_first[0]]
    page.screenshot(path=tmp_path / "chosen.png")

    with page.expect_response(_is_submission) as sent:
        page.get_by_role("button", name="Submit").click()
    assert sent.value.status == 201
    run_cli(["lsplugin", "pull", project, "-o", "export.json"])
    (task,) = json.loads((tmp_path / "export.json").read_text())
    (result,) = task["annotations"][0]["result"]
    assert (result["type"], result["from_name"], result["value"]) == ("pairwise", "comparison", {"selected": "right"})
    assert run_cli(["lsplugin", "pairs", "export.json"]).code == 0
    (pair,) = read_lines(tmp_path / "pairs.jsonl")
    assert (pair["chosen"], pair["rejected"]) == (ROW["answer2"], ROW["answer1"])
