"""What the report says of labels whose truth is known, and what its page looks like."""

from __future__ import annotations

import json
import math
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from lsplugin.labels import read_labels
from lsplugin.summary import summarise
from tests.helpers import complaint, pairwise_result, run_cli, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.helpers import Person


def verdict(value: str) -> dict[str, Any]:
    return {"from_name": "verdict", "to_name": "prompt", "type": "choices", "value": {"choices": [value]}}


def vote(who: int, side: str, seconds: float | None = 30.0, **more: Any) -> dict[str, Any]:
    result = [verdict("tie")] if side == "tie" else [*pairwise_result(side), verdict("better")]
    at = f"2026-10-{1 + who:02d}T10:00:00.000Z"
    return {"id": who, "completed_by": who, "result": result, "lead_time": seconds, "created_at": at, **more}


def task(number: int, *votes: dict[str, Any], swapped: bool = False, **meta: Any) -> dict[str, Any]:
    texts = [f"short {number}", f"a longer answer {number}"]
    order = ["answer2", "answer1"] if swapped else ["answer1", "answer2"]
    left, right = reversed(texts) if swapped else texts
    data = {"prompt": f"p{number}", "answer1": left, "answer2": right}
    meta = {"key": f"k{number}", "order": order, "models": {"answer1": "base", "answer2": "tuned"}} | meta
    return {"id": number, "data": data, "meta": meta, "annotations": list(votes)}


def test_figures_worked_by_hand() -> None:
    skipped = {"id": 9, "completed_by": 2, "result": [], "was_cancelled": True}
    found = summarise(
        read_labels(
            [
                task(1, vote(1, "left"), vote(2, "left")),  # both prefer the short one, of base
                task(2, vote(1, "right"), vote(2, "left"), swapped=True, gold={"answer": "answer1"}),
                task(3, vote(1, "left"), vote(2, "tie"), prelabel={"shown": True, "answer": "answer1"}),
                task(4, vote(1, "right"), skipped, prelabel={"shown": False, "answer": "answer1"}),
                task(1, vote(1, "right"), swapped=True) | {"id": 5},  # asked again: the same answer
                task(6),
            ]
        )
    )
    assert (found["tasks"], found["annotations"], found["votes"], found["items"]) == (6, 9, 8, 4)
    assert found["outcomes"] == {"used": 7, "a tie": 1, "skipped by the annotator": 1}
    assert found["agreement"]["raw"]["value"] == pytest.approx(1 / 3)
    assert found["agreement"]["self"] | {"low": 0, "high": 0} == {"value": 1.0, "low": 0, "high": 0, "trials": 1}
    assert found["length_floor"]["value"] == pytest.approx(2 / 7)
    ann, bob = found["annotators"]
    assert (ann["annotator"], ann["annotations"], bob["annotator"], bob["annotations"]) == ("1", 5, "2", 4)
    assert (ann["left"]["value"], ann["left"]["trials"]) == (0.4, 5)
    assert (ann["longer"]["value"], bob["longer"]["value"]) == (0.2, 0.5)
    assert (ann["gold"]["value"], bob["gold"]["value"]) == (1.0, 0.0)
    assert (ann["agreed"]["value"], ann["agreed"]["trials"]) == (0.5, 2)
    assert bob["outcomes"] == {"used": 2, "a tie": 1, "skipped by the annotator": 1}
    assert found["anchoring"]["shown"]["value"] == 0.5
    assert found["anchoring"]["hidden"]["value"] == 0.0
    (rate,) = found["models"]["win_rates"]
    assert (rate["model"], rate["against"], rate["win_rate"]["trials"]) == ("base", "tuned", 8)
    assert rate["win_rate"]["value"] == pytest.approx((5 + 0.5) / 8)
    assert [row["model"] for row in found["models"]["bradley_terry"]] == ["base", "tuned"]
    assert [row["annotations"] for row in found["progress"]] == [5, 3]


def test_criteria_and_reasons() -> None:
    def said(criterion: str, side: str) -> dict[str, Any]:
        made = vote(1, side)
        made["result"] += [
            {"from_name": "criterion-tone", "type": "choices", "value": {"choices": [criterion]}},
            {"from_name": "reasons", "type": "choices", "value": {"choices": ["kind", "short"]}},
        ]
        return made

    votes = [
        said("left", "left"),
        said("right", "left"),
        said("right", "right"),
        said("tie", "left"),
        said("left", "tie"),
    ]
    found = summarise(read_labels([task(number, made) for number, made in enumerate(votes)]))
    assert found["criteria"]["tone"] | {"low": 0, "high": 0} == {"value": 2 / 3, "low": 0, "high": 0, "trials": 3}
    assert found["reasons"] == {"kind": 5, "short": 5}


def test_an_export_without_anything_to_compare() -> None:
    for tasks in ([], [task(1)], [task(1, vote(1, "left", seconds=None))]):
        found = summarise(read_labels(tasks))
        assert found["agreement"]["ceiling"]["value"] is None
        assert found["agreement"]["raw"]["trials"] == 0
        assert found["anchoring"] is None


PEOPLE = range(1, 11)
FAULTS = {4: "random", 5: "left", 6: "longest", 7: "hasty"}


def crew(seed: int, items: int = 800) -> Iterator[dict[str, Any]]:
    """Three of ten people judge each task: six are honest and agree with the better answer in four of five cases."""
    rng = random.Random(seed)
    for number in range(items):
        swapped = rng.random() < 0.5
        better = rng.choice(["answer1", "answer2"])
        right = "answer1" if swapped else "answer2"
        votes = []
        for who in rng.sample(PEOPLE, 3):
            said = better if rng.random() < 0.8 else {"answer1": "answer2", "answer2": "answer1"}[better]
            side = "right" if said == right else "left"
            kind = FAULTS.get(who)
            if kind in {"random", "hasty"}:
                side = rng.choice(["left", "right"])
            elif kind == "left" and rng.random() < 0.8:
                side = "left"
            elif kind == "longest":
                side = "right" if right == "answer2" else "left"
            votes.append(vote(who, side, 0.1 if kind == "hasty" else rng.lognormvariate(3, 0.5)))
        yield task(number, *votes, swapped=swapped, gold={"answer": better})


def test_the_faulty_are_flagged_and_the_honest_are_not() -> None:
    found = summarise(read_labels(crew(0)))
    flags = {int(person["annotator"]): person["flags"] for person in found["annotators"]}
    assert [flags[who] for who in PEOPLE if who not in FAULTS] == [[]] * 6
    everybody, trusted = found["agreement"], found["agreement"]["without_flagged"]
    assert everybody["ceiling"]["value"] + 0.05 < trusted["ceiling"]["value"]
    assert trusted["ceiling"]["at_most"] == pytest.approx(0.8, abs=0.03)  # opinions are split alike on every item
    assert trusted["raw"]["value"] == pytest.approx(0.8**2 + 0.2**2, abs=0.05)
    assert "random" in flags[4] or "misses gold" in flags[4]
    assert "one-sided" in flags[5]
    assert "longest" in flags[6]
    assert "too fast" in flags[7]


def test_the_ceiling_is_what_a_perfect_model_reaches() -> None:
    """Each item has its own split of opinion; a model that knows the majority is right as often as the ceiling says."""
    rng = random.Random(2)
    tasks, right, total = [], 0.0, 0
    for number in range(2500):
        p = rng.betavariate(0.7, 0.7)
        tasks.append(task(number, *(vote(who, "left" if rng.random() < p else "right") for who in (1, 2, 3))))
        right, total = right + max(p, 1 - p), total + 1
    ceiling = summarise(read_labels(tasks))["agreement"]["ceiling"]
    assert ceiling["low"] <= right / total <= ceiling["high"]
    assert ceiling["high"] - ceiling["low"] < 0.06


TITLE = "Simulated labels, <b> & all"


class TestTheCommand:
    @pytest.mark.browser
    def test_the_page_is_whole_and_loads_nothing(self, tmp_path: Path, browser: Browser) -> None:
        export = write_json(tmp_path / "e.json", [*crew(1, 600), *({**t, "id": 900} for t in crew(1, 1))])
        result = run_cli(["lsplugin", "report", export, "-o", tmp_path / "r.html", "--title", TITLE])
        assert result.code == 0, result.stderr
        assert "ceiling: most that a reward model can reach" in result.stdout
        figures = json.loads((tmp_path / "r.json").read_text())
        assert figures["accounting"]["annotations"] == 1803 == figures["annotations"]
        assert not math.isnan(figures["agreement"]["fleiss_kappa"]["value"])
        asked: list[str] = []
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: asked.append(message.text))
        page.goto((tmp_path / "r.html").as_uri())
        assert page.locator("h1").inner_text() == TITLE
        widths = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
        assert len(widths) == 5
        assert all(width > 100 for width in widths)
        assert page.locator(".flag").count() >= 2
        assert [found for found in asked if not found.startswith(("file:", "data:"))] == []
        if folder := os.environ.get("SCREENSHOTS"):  # SCREENSHOTS=docs/images pytest tests/test_report.py
            page.set_viewport_size({"width": 1000, "height": 1180})
            page.screenshot(path=f"{folder}/report.png")
        page.close()

    def test_triage_finds_the_disputed_and_asks_them_as_they_were(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        tasks = [
            task(1, vote(1, "left"), vote(2, "left")),
            task(2, vote(1, "left"), vote(2, "right"), vote(3, "right"), swapped=True),
            task(3, vote(1, "left"), vote(2, "right"), swapped=True, gold={"answer": "answer1"}, source="web"),
            task(4, vote(1, "left"), vote(2, "tie")),
        ]
        write_json(tmp_path / "e.json", tasks)
        result = run_cli(["lsplugin", "triage", "e.json", "--top", "3"])
        assert [line.split()[0] for line in result.stdout.splitlines()[3:]] == ["3", "2", "4"]
        rows = json.loads((tmp_path / "disputed.json").read_text())
        assert rows[0] == {
            "prompt": "p3",
            "answer1": "short 3",
            "answer2": "a longer answer 3",
            "meta": {
                "models": {"answer1": "base", "answer2": "tuned"},
                "source": "web",
                "triage": {"task": 3, "votes": {"answer2": 1, "answer1": 1, "tie": 0}},
            },
        }
        write_json(tmp_path / "calm.json", tasks[:1])
        assert "no two annotators disagree" in complaint(["lsplugin", "triage", "calm.json"])

    @pytest.mark.server
    @pytest.mark.usefixtures("connected")
    def test_triage_makes_a_project(self, admin: Person, tmp_path: Path) -> None:
        assert run_cli(["lsplugin", "render", "-o", "e.config.xml", "--both-bad"]).code == 0
        write_json(tmp_path / "e.json", [task(1, vote(1, "left"), vote(2, "right"))])
        result = run_cli(["lsplugin", "triage", "e.json", "--create", "To decide"])
        assert result.code == 0, result.stderr
        project = int(result.stdout.splitlines()[-1])
        assert "both-bad" in admin.get(f"/api/projects/{project}")["label_config"]
        (made,) = admin.get(f"/api/tasks?project={project}&fields=all")["tasks"]
        assert made["data"]["prompt"] == "p1"
        assert "votes" not in json.dumps(made["data"])
