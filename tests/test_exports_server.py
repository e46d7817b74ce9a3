"""Every kind of export of a project that several people labelled, for every template: what was entered, and the same pairs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from lsplugin.render import render
from lsplugin.template import Spec, template_names
from tests.helpers import Person, pairwise_result, read_lines, run_cli, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.conftest import LabelStudio

pytestmark = pytest.mark.server

TEXTS = ["The first, with a comma", 'The second\nhas "lines"', "[3]"]


def choices(name: str, *chosen: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": list(chosen)}}


def ranker(**tiers: list[str]) -> list[dict[str, Any]]:
    order: dict[str, list[str]] = {"_": [], "tier1": [], "tier2": [], "tier3": []} | tiers
    result = {"from_name": "ranking", "to_name": "items", "type": "ranker", "value": {"ranker": order}}
    return [result, choices("verdict", "ranked")]


def stars(*counts: int) -> list[dict[str, Any]]:
    return [
        {
            "from_name": f"overall_answer{number}",
            "to_name": f"answer{number}",
            "type": "rating",
            "value": {"rating": count},
        }
        for number, count in enumerate(counts, start=1)
    ]


# What three people enter, and which answers (by number) they thereby prefer.
ENTERED: dict[str, list[tuple[list[dict[str, Any]], list[tuple[int, int]]]]] = {
    "pairwise": [
        ([*pairwise_result("left"), choices("verdict", "much")], [(1, 2)]),
        ([*pairwise_result("right"), choices("verdict", "slightly"), choices("reasons", "kind", "short")], [(2, 1)]),
        ([*pairwise_result("left"), choices("verdict", "tie")], []),
    ],
    "scale": [
        ([choices("comparison", "left-clearly")], [(1, 2)]),
        ([choices("comparison", "right-much"), choices("reasons", "kind")], [(2, 1)]),
        ([choices("comparison", "tie")], []),
    ],
    "ranking": [
        (ranker(tier1=["answer2"], tier2=["answer1", "answer3"]), [(2, 1), (2, 3)]),
        (ranker(tier1=["answer3"], tier2=["answer2"], tier3=["answer1"]), [(3, 2), (3, 1), (2, 1)]),
        (ranker(tier1=["answer3", "answer2", "answer1"]), []),
    ],
    "rating": [(stars(5, 3), [(1, 2)]), (stars(1, 2), [(2, 1)]), (stars(4, 4), [])],
}


def exported(admin: Person, project: int, kind: str, path: Path) -> Path:
    response = admin.http.get(f"/api/projects/{project}/export?exportType={kind}&download_all_tasks=true")
    assert response.status_code == 200, response.text
    path.write_bytes(response.content)
    return path


def pairs_of(export: Path, *options: str) -> list[tuple[str, str, str, float | None, str]]:
    result = run_cli(["lsplugin", "pairs", export, "-o", "out.jsonl", *options])
    assert result.code == 0, result.stderr
    found = read_lines(export.parent / "out.jsonl")
    rows = [(p["prompt"], p["chosen"], p["rejected"], p.get("margin"), str(p["meta"]["annotator"])) for p in found]
    return sorted(rows, key=repr)


@pytest.mark.parametrize("template", template_names())
def test_every_export_gives_the_pairs_that_people_entered(
    template: str, connected: LabelStudio, admin: Person, page: Page, tmp_path: Path
) -> None:
    count = 3 if template == "ranking" else 2
    config = tmp_path / "c.xml"
    options = {"strength": True} if template == "pairwise" else {}
    reasons = ("Kind", "Short") if template in {"pairwise", "scale"} else ()
    config.write_text(render(Spec(answers=count, template=template, reasons=reasons, **options)))
    row = {"prompt": "p, with a comma", **{f"answer{number + 1}": TEXTS[number] for number in range(count)}}
    write_json(tmp_path / "d.json", [row | {"prompt": f"{row['prompt']} {number}"} for number in range(2)])
    made = run_cli(["lsplugin", "create", f"Exports {template}", "--config", config, "--tasks", "d.json"])
    project = int(made.stdout)
    tasks = {task["data"]["prompt"]: task for task in admin.get(f"/api/tasks?project={project}&fields=all")["tasks"]}
    assert len(tasks) == 2
    invite = admin.get("/api/invite")["invite_url"]
    expected = []
    if template == "pairwise":  # the first by hand
        prompt, task = next(iter(tasks.items()))
        me = admin.get("/api/current-user/whoami")["id"]
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(f"{connected.url}/projects/{project}/data?task={task['id']}")
        page.locator(".lsplugin-answer").nth(1).click(position={"x": 8, "y": 8})
        page.get_by_text("Much better", exact=False).first.click()
        with page.expect_response(lambda answer: answer.request.method == "POST" and "/annotations" in answer.url):
            page.get_by_test_id("bottombar-submit-button").click()
        expected.append((prompt, task["data"]["answer2"], task["data"]["answer1"], str(me)))
    for number, (results, preferred) in enumerate(ENTERED[template]):
        with Person(connected.url) as person:
            person.sign_up(invite, f"p{number}.{secrets.token_hex(4)}@example.org")
            me = person.get("/api/current-user/whoami")["id"]
            for prompt, task in tasks.items():
                body = {"result": results, "was_cancelled": False, "lead_time": 2.5}
                person.post(f"/api/tasks/{task['id']}/annotations", body)
                shown = {i: task["data"][f"answer{i}"] for i in range(1, count + 1)}
                if template == "ranking":  # people sort what the items name, which are shuffled
                    shown = {int(item["id"][-1]): shown[box + 1] for box, item in enumerate(task["data"]["items"])}
                expected += [(prompt, shown[better], shown[worse], str(me)) for better, worse in preferred]
            person.post(f"/api/tasks/{task['id']}/annotations", {"result": [], "was_cancelled": True})
    assert run_cli(["lsplugin", "pull", str(project), "-o", "export.json"]).code == 0
    files = [
        tmp_path / "export.json",
        exported(admin, project, "JSON_MIN", tmp_path / "min.json"),
        exported(admin, project, "CSV", tmp_path / "e.csv"),
        exported(admin, project, "TSV", tmp_path / "e.tsv"),
    ]
    first, *others = [pairs_of(file, "--config", "c.xml") for file in files]
    found = [(p, chosen, rejected, who) for p, chosen, rejected, _, who in first]
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert [other == first for other in others] == [True] * 3
    assert [pairs_of(file) == first for file in files[1:]] == [True] * 3  # our names need no config
    aggregated = [pairs_of_aggregate(file) for file in files]
    assert aggregated == [aggregated[0]] * 4


def pairs_of_aggregate(export: Path) -> list[tuple[object, ...]]:
    assert run_cli(["lsplugin", "pairs", export, "--aggregate", "majority", "-o", "agg.jsonl"]).code == 0
    found = read_lines(export.parent / "agg.jsonl")
    keys = ("prompt", "chosen", "rejected", "probability", "weight", "margin")
    return sorted((tuple(pair.get(key) for key in keys) for pair in found), key=repr)


def test_an_old_export_with_nothing_but_clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As versions before the verdicts wrote it: one Pairwise result a task, no meta, no lead time."""
    monkeypatch.chdir(tmp_path)
    data = {"prompt": "p", "answer1": "one", "answer2": "two"}
    tasks = [
        {"id": number, "data": data, "annotations": [{"id": number, "result": pairwise_result(side)}]}
        for number, side in enumerate(["left", "right"])
    ]
    found = write_json(tmp_path / "old.json", tasks)
    assert run_cli(["lsplugin", "pairs", found]).code == 0
    assert [pair["chosen"] for pair in read_lines(tmp_path / "pairs.jsonl")] == ["one", "two"]
