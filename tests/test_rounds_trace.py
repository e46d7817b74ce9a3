"""From a file back to its annotations, and what the report says: two rounds whose labels are written down here by hand."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from rounds.content import Contents
from rounds.figures import figures
from rounds.ledger import Record
from rounds.report import page, summary, table
from rounds.run import go_on
from rounds.settings import Started
from rounds.state import Place
from rounds.steps import Step, steps
from rounds.trace import trace
from tests.helpers import complaint, pairwise_result, run_cli, write_json, write_lines

if TYPE_CHECKING:
    from pathlib import Path

START, TUNED = "/base", "round-1/policy"
CONFIG = "<View/>"


def task(
    number: int,
    prompt: str,
    votes: dict[int, str | None],
    why: str = "random",
    models: tuple[str, str] = (START, START),
) -> Any:
    """A task of an export: annotators by number, each with a side, or None for a skip; a label takes 36 seconds."""
    made = [
        {
            "id": 100 * number + by, "completed_by": by, "result": pairwise_result(side) if side else [],
            "was_cancelled": side is None, "lead_time": 36.0, "created_at": "2026-11-21T10:00:00Z",
        }
        for by, side in votes.items()
    ]  # fmt: skip
    meta = {"key": f"key{number}", "why": why, "models": dict(zip(("answer1", "answer2"), models, strict=True))}
    data = {"prompt": prompt, "answer1": f"good {prompt}", "answer2": f"a bad one {prompt}"}
    return {"id": number, "project": 7, "data": data, "meta": meta, "annotations": made}


FIRST = [
    task(1, "t1", {1: "left", 2: "left"}),
    task(2, "t2", {1: "left", 2: "right"}),
    task(3, "j1", {1: "left", 2: "left"}, "judge"),
    task(4, "t3", {1: "left", 2: None}),
]
SECOND = [
    task(1, "t1", {1: "left", 3: "left"}, "again"),
    task(2, "t4", {1: "right", 3: "right"}, models=(START, TUNED)),
    task(3, "j2", {1: "right", 3: "left"}, "judge", (START, TUNED)),
    task(4, "t5", {1: "left", 3: "left"}, "uncertain", (START, TUNED)),
]


def table_of(settings: Started) -> list[Step]:
    """The steps that turn labels into pairs, without those that need a server or a model."""
    return [one for one in steps(settings) if one.name in {"pairs", "report", "gather"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds with labels; of the first, a policy was evaluated."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "rounds.yaml").write_text(Started(policy=START, number="00ff", title="Helpful", rounds=2).to_yaml())
    (folder / "prompts").mkdir()
    write_lines(folder / "prompts/judging.jsonl", [{"prompt": "j1"}, {"prompt": "j2"}])
    assert run_cli(["lsplugin", "render", "-o", folder / "config.xml"]).code == 0
    for number, tasks in enumerate((FIRST, SECOND), start=1):
        here = folder / f"round-{number}"
        here.mkdir()
        write_json(here / "export.json", tasks)
        (here / "export.config.xml").write_text((folder / "config.xml").read_text())
    go_on(lambda: Place(folder, table_of), folder, tell=lambda _: None)
    interval = {"low": 0.55, "high": 0.75}
    measures = {
        "judge": {"wins": {"mean": 0.65, **interval, "prompts": 80}},
        "length": {"tuned": {"mean": 60.0, "low": 58, "high": 62}, "base": {"mean": 20.0, "low": 19, "high": 21}},
    }
    write_json(
        folder / "round-1/evaluation.json",
        {"measures": measures, "kl": {"mean": 4.0, "low": 3.5, "high": 4.5}, "prompts": 80},
    )
    for name, accuracy in (("rm", 0.7), ("judge", 0.6)):
        (folder / "round-1" / name).mkdir()
        metrics = {
            "accuracy": accuracy,
            "accuracy_interval": [accuracy - 0.2, accuracy + 0.1],
            "decided": 9,
            "length_floor": 0.5,
        }
        write_json(folder / "round-1" / name / "metrics.json", metrics | {"ceiling": {"value": 0.8}})
    place = Place(folder)
    for one in steps(place.settings):
        if one.round == 1 and one.name in {"fit reward", "fit judge", "evaluate"}:
            (folder / "round-1/evaluation.png").touch()
            record = Record(
                round=1, step=one.name, command=one.typed, seed=one.seed, versions={}, reads=place.hashes(one.reads),
                writes=place.hashes(one.writes),
            )  # fmt: skip
            place.ledger.add(record)
    return folder


def test_a_file_leads_to_its_very_annotations(folder: Path) -> None:
    found = trace(folder / "round-1/rm/metrics.json")
    assert [step["step"] for step in found["steps"]] == ["fit reward", "gather", "pairs", "report"]
    # not those on the judge's prompt, and not the skipped one
    assert sorted(one["annotation"] for one in found["annotations"]) == [101, 102, 201, 202, 401]
    assert found["annotators"] == {"user 1": 3, "user 2": 2}
    assert found["changed"] == []
    assert set(found["from_outside"]) == {
        "prompts/judging.jsonl",
        "round-1/export.json",
        "round-1/export.config.xml",
        START,
    }
    judged = trace(folder / "round-1/judge")
    assert sorted(one["annotation"] for one in judged["annotations"]) == [301, 302]
    later = trace(folder / "round-2/reward.jsonl")
    numbers = sorted((one["round"], one["annotation"]) for one in later["annotations"] if one["prompt"] in {"t4", "t2"})
    assert numbers == [(1, 201), (1, 202), (2, 201), (2, 203)]
    both = trace(folder / "round-2/labels.html")
    assert len(both["annotations"]) == 8


def test_pseudonyms_are_kept_in_a_private_file_alone(folder: Path) -> None:
    found = trace(folder / "round-1/rm", pseudonyms=True)
    salt = folder / ".pseudonyms"
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    names = set(found["annotators"])
    assert len(names) == 2
    assert all(name.startswith("annotator ") for name in names)
    assert found["annotators"] == trace(folder / "round-1/rm", pseudonyms=True)["annotators"]
    text = json.dumps(found) + run_cli(["rounds", "trace", folder / "round-1/rm", "--pseudonyms"]).stdout
    assert "user 1" not in text
    assert salt.read_text().strip() not in text
    salt.unlink()
    assert not names & set(trace(folder / "round-1/rm", pseudonyms=True)["annotators"])


def test_a_trace_says_what_is_not_as_it_was(folder: Path) -> None:
    path = folder / "round-1/pairs.jsonl"
    before = path.read_text()
    try:
        path.write_text(before.replace("good t1", "better t1"))
        result = run_cli(["rounds", "trace", folder / "round-1/rm"])
    finally:
        path.write_text(before)
    assert result.code == 1
    assert "not any more what the ledger says: round-1/pairs.jsonl" in result.stdout
    assert run_cli(["rounds", "trace", folder / "round-1/rm"]).code == 0
    assert "no step in" in complaint(["rounds", "trace", folder / "config.xml"])
    assert "found no rounds.yaml above it" in complaint(["rounds", "trace", folder.parent / "else"])


def test_figures_are_those_of_the_labels(folder: Path) -> None:
    first, second = figures(Place(folder), rate=50)["rounds"]
    assert first["labels"] == {
        "value": 7, "skipped": 1, "people": 2, "hours": pytest.approx(8 * 36 / 3600), "untimed": 0, "cost": pytest.approx(4.0),
        "file": "round-1/export.json",
    }  # fmt: skip
    # of three tasks that two people judged, they agree on two
    assert first["agreement"]["value"] == pytest.approx(2 / 3)
    assert first["again"] is None
    assert second["again"] == {
        "value": 1.0,
        "low": pytest.approx(0.342, abs=1e-3),
        "high": 1.0,
        "trials": 2,
        "file": "round-2/pairs.jsonl",
    }
    # tuned against start at random: t4 twice for it, j2 once of two; the uncertain one does not count
    assert first["people"]["value"] == 0.75
    assert first["people"]["trials"] == 4
    assert first["reward"] | {"low": 0.5} == {
        "value": 0.7, "low": 0.5, "high": pytest.approx(0.8), "trials": 9, "floor": 0.5, "ceiling": 0.8,
        "file": "round-1/rm/report.html",
    }  # fmt: skip
    assert second["policy"] is None


def test_the_page_says_it_and_links_to_the_files(folder: Path, tmp_path: Path) -> None:
    found = figures(Place(folder), rate=50, currency="EUR")
    said = " ".join(summary(found))
    assert "15 labels in 2 rounds: 10 min of labelling, 8 EUR." in said
    assert (
        "the policy of round 1 is better than the start: its answer is the better one for 65.0% (55.0 to 75.0%) of 80"
        in said
    )
    assert "not surely better than a coin" in said
    assert "in 75.0% (30.1 to 95.4%) of 4 comparisons drawn at random" in said
    assert "from 20 to 60 tokens" in said
    assert "65.0% (55.0 to 75.0%)" in table(found)
    result = run_cli(["rounds", "report", folder, "-o", tmp_path / "deep" / "page.html"])
    assert result.code == 0
    html = (tmp_path / "deep" / "page.html").read_text()
    links = {part.split('"')[0] for part in html.split('href="')[1:]}
    assert len(links) > 6
    assert all((tmp_path / "deep" / link).exists() for link in links if not link.endswith("report.html")), links
    assert json.loads((tmp_path / "deep" / "page.json").read_text())["rounds"][0]["labels"]["value"] == 7
    assert "<script" not in page(found | {"title": "<script>"}, folder, folder / "page.html")


def test_a_report_needs_labels(tmp_path: Path) -> None:
    (tmp_path / "rounds.yaml").write_text(Started(policy=START, number="00ff", title="t").to_yaml())
    assert "no round has labels yet" in complaint(["rounds", "report", tmp_path])


def test_what_a_server_numbers_does_not_count(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    write_json(one / "export.json", FIRST)
    elsewhere = [
        found
        | {
            "id": found["id"] + 50,
            "annotations": [made | {"id": 9, "completed_by": 77, "created_at": "x"} for made in found["annotations"]],
        }
        for found in FIRST[::-1]
    ]
    write_json(other / "export.json", elsewhere)
    a, b = (Contents(folder, folder / "memory.json").of("export.json") for folder in (one, other))
    assert a.sha256 != b.sha256
    assert a.content == b.content
    changed = json.loads(json.dumps(elsewhere))
    changed[0]["annotations"][0]["result"] = pairwise_result("right")
    write_json(other / "export.json", changed)
    assert Contents(other, other / "memory.json").of("export.json").content != a.content


def test_a_models_clock_does_not_count_and_hashes_are_remembered(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("w")
    (model / "timings.jsonl").write_text("1")
    contents = Contents(tmp_path, tmp_path / "memory.json")
    before = contents.of("model")
    contents.keep()
    (model / "timings.jsonl").write_text("2 s")
    after = Contents(tmp_path, tmp_path / "memory.json").of("model")
    assert (after.content, after.sha256 == before.sha256) == (before.content, False)
    (model / "weights").write_text("other")
    assert Contents(tmp_path, tmp_path / "memory.json").of("model").content != before.content
    assert contents.of("nobody/nothing").sha256 is None
