"""render -> create -> push -> annotate -> pull -> pairs on a real Label Studio: what comes back is what was entered."""

from __future__ import annotations

import gzip
import json
import random
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from demo_world.annotators import CREW
from demo_world.corpus import prompts, review
from lsplugin.connection import KEY_VARIABLE
from lsplugin.dialogue import split_dialogues
from lsplugin.errors import LspluginError
from tests.helpers import Person, complaint, read_lines, run_cli, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import LabelStudio

pytestmark = pytest.mark.server


def create(title: str, *options: object) -> int:
    """Create a project by the command line; its number is all that stdout says."""
    result = run_cli(["lsplugin", "create", title, *map(str, options)])
    assert result.code == 0, result.stderr
    return int(result.stdout)


def pull_pairs(project: int) -> tuple[list[dict[str, object]], dict[str, object], list[dict[str, object]]]:
    """Pull a project and make pairs: (pairs, counts, export)."""
    from pathlib import Path

    assert run_cli(["lsplugin", "pull", str(project), "-o", "export.json"]).code == 0
    result = run_cli(["lsplugin", "pairs", "export.json", "-o", "pairs.jsonl", "--counts", "counts.json"])
    assert result.code == 0, result.stderr
    return (
        read_lines(Path("pairs.jsonl")),
        json.loads(Path("counts.json").read_text()),
        json.loads(Path("export.json").read_text()),
    )


def test_what_several_people_enter_comes_back(connected: LabelStudio, admin: Person, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"p{number}",
            "answer1": f"one {number}",
            "answer2": f"two {number}",
            "meta": {"models": {"answer1": "m"}},
        }
        for number in range(6)
    ]
    write_json(tmp_path / "first.json", rows[:4])
    write_json(tmp_path / "more.json", rows[4:])
    assert run_cli(["lsplugin", "render", "-o", "config.xml"]).code == 0
    project = create("Six tasks", "--config", "config.xml", "--tasks", "first.json")
    assert run_cli(["lsplugin", "push", "Six tasks", "more.json"]).code == 0

    invite = admin.get("/api/invite")["invite_url"]
    entered = []
    with Person(connected.url) as ann, Person(connected.url) as bob:
        for person, name in ((ann, "ann"), (bob, "bob")):
            person.sign_up(invite, f"{name}.{secrets.token_hex(4)}@example.org")
        for number, (person, side, skip) in enumerate(
            [
                (ann, "left", False),
                (bob, "right", False),
                (ann, "right", False),
                (bob, "left", False),
                (ann, None, False),
            ]
        ):
            task = person.next_task(project)
            assert task is not None
            person.choose(task["id"], side, skip=skip)  # type: ignore[arg-type]
            entered.append((task["data"], side, number % 2))
        last = bob.next_task(project)
        assert last is not None
        bob.choose(last["id"], None, skip=True)

    pairs, counts, export = pull_pairs(project)
    assert counts == {
        "tasks": 6,
        "unlabelled": 0,
        "annotations": 6,
        "used": 4,
        "pairs": 4,
        "ties": 0,
        "rewrites": 0,
        "dropped": {"skipped by the annotator": 1, "submitted without a choice": 1},
    }
    assert len(export) == 6
    expected = {data["prompt"]: (data, side) for data, side, _ in entered if side}
    for pair in pairs:
        data, side = expected[pair["prompt"]]
        left, right = data["answer1"], data["answer2"]
        assert (pair["chosen"], pair["rejected"]) == ((left, right) if side == "left" else (right, left))
        assert set(pair["meta"]["models"].values()) == {"m", None}  # type: ignore[index]
    assert len({pair["meta"]["annotator"] for pair in pairs}) == 2  # type: ignore[index]


def test_both_kinds_of_token_work(connected: LabelStudio, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    by_legacy_token = create("By legacy token")
    monkeypatch.setenv(KEY_VARIABLE, admin.personal_access_token())
    by_personal_token = create("By personal token")
    assert by_personal_token > by_legacy_token
    assert run_cli(["lsplugin", "pull", "By legacy token"]).code == 0


def test_render_creates_at_once(connected: LabelStudio, admin: Person) -> None:
    result = run_cli(["lsplugin", "render", "--answers", "2", "--create", "At once"])
    assert result.code == 0, result.stderr
    assert 'toName="answer1,answer2"' in admin.get(f"/api/projects/{int(result.stdout)}")["label_config"]


def test_a_bad_dataset_creates_nothing(connected: LabelStudio, admin: Person, tmp_path: Path) -> None:
    write_json(
        tmp_path / "bad.json", [{"prompt": "p", "answer1": "a", "answer2": "b"}, {"prompt": "p", "answer1": "a"}]
    )
    before = admin.get("/api/projects?page_size=1")["count"]
    assert "row 2: `answer2` is missing" in complaint(["lsplugin", "create", "Never made", "--tasks", "bad.json"])
    assert admin.get("/api/projects?page_size=1")["count"] == before
    project = create("Stays empty")
    assert "row 2: `answer2` is missing" in complaint(["lsplugin", "push", str(project), "bad.json"])
    assert admin.get(f"/api/projects/{project}")["task_number"] == 0


def test_a_project_whose_tasks_are_refused_is_taken_back(
    connected: LabelStudio, admin: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import fails after the project was made: no half-made project stays behind."""
    from lsplugin.project import Client

    write_json(tmp_path / "d.json", [{"prompt": "p", "answer1": "a", "answer2": "b"}])

    def breaks(*_: object, **__: object) -> int:
        raise LspluginError("the connection broke off")

    monkeypatch.setattr(Client, "push", breaks)
    assert complaint(["lsplugin", "create", "Taken back", "--tasks", "d.json"]) == "the connection broke off"
    assert not [
        project for project in admin.get("/api/projects?page_size=1000")["results"] if project["title"] == "Taken back"
    ]


def test_the_simulated_annotators_label_everything_and_the_same_way_again(
    connected: LabelStudio, tmp_path: Path
) -> None:
    rng = random.Random(0)
    rows = []
    for prompt in prompts(0)[:15]:
        one = review(rng, prompt)
        two = next(text for text in (review(rng, prompt) for _ in range(50)) if text != one)
        rows.append({"prompt": prompt, "answer1": one, "answer2": two})
    write_json(tmp_path / "d.json", rows)
    outcomes = []
    for title in ("Crew, once", "Crew, again"):
        project = create(title, "--tasks", "d.json")
        result = run_cli(["demo_world", "label", str(project), "--seed", "3", "-o", "labels.json"])
        assert result.code == 0, result.stderr
        labels = json.loads((tmp_path / "labels.json").read_text())
        pairs, counts, _ = pull_pairs(project)
        assert labels["tasks"] == counts["tasks"] == 15
        assert counts["unlabelled"] == 0
        assert set(labels["annotators"]) == {annotator.name for annotator in CREW}
        assert sum(sum(actions.values()) for actions in labels["annotators"].values()) == counts["annotations"]
        assert labels["labels"] == counts["pairs"] == len(pairs)
        outcomes.append([(pair["prompt"], pair["chosen"]) for pair in pairs])
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
@pytest.mark.data
def test_300_real_comparisons_come_back_as_the_same_300_pairs(
    connected: LabelStudio, admin: Person, tmp_path: Path, real_data: Path
) -> None:
    """Multi-turn text as it is, shown on sides drawn by a coin, labelled as the people labelled it."""
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    expected: list[tuple[str, str, str]] = []
    sides: dict[int, str] = {}
    with gzip.open(real_data / "prefs" / "hh-rlhf" / "harmless-base.test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            try:
                prompt, chosen, rejected = split_dialogues(row["chosen"], row["rejected"])
            except LspluginError:
                continue  # five of them differ before the last turn
            if not chosen.strip() or not rejected.strip() or chosen == rejected:
                continue
            side = rng.choice(["left", "right"])
            answers = (chosen, rejected) if side == "left" else (rejected, chosen)
            rows.append({"prompt": prompt, "answer1": answers[0], "answer2": answers[1], "meta": {"row": len(rows)}})
            sides[len(rows) - 1] = side
            expected.append((prompt, chosen, rejected))
            if len(rows) == 300:
                break
    write_json(tmp_path / "hh.json", rows)
    project = create("Real comparisons", "--tasks", "hh.json")
    for task in admin.tasks(project):
        shown = task["meta"]["order"][0] == "answer1"  # the two stand as they were drawn, not as in the file
        admin.choose(task["id"], "left" if shown == (sides[task["meta"]["row"]] == "left") else "right")
    pairs, counts, _ = pull_pairs(project)
    assert counts == {
        "tasks": 300,
        "unlabelled": 0,
        "annotations": 300,
        "used": 300,
        "dropped": {},
        "pairs": 300,
        "ties": 0,
        "rewrites": 0,
    }
    found = [(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in pairs]
    assert sorted(found) == sorted(expected)  # type: ignore[type-var]
    assert any("\n" in chosen for _, chosen, _ in expected)
    assert any("\u2019" in chosen or '"' in chosen for _, chosen, _ in expected)


def test_what_an_export_lacks_is_named(
    connected: LabelStudio, admin: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server hands out less than it holds: nothing is written, and the tasks are named."""
    from lsplugin import export
    from lsplugin import pull as module

    write_json(tmp_path / "d.json", [{"prompt": f"p{n}", "answer1": "a", "answer2": "b"} for n in range(3)])
    project = create("Less than it holds", "--tasks", "d.json")
    first, second, third = (task["id"] for task in admin.get(f"/api/tasks?project={project}")["tasks"])
    admin.choose(second, "left")
    admin.choose(third, None, skip=True)
    real = export.measure

    def lossy(path: Path, **names: Any) -> Any:
        kept = [task for task in json.loads(path.read_text()) if task["id"] != first]
        write_json(path, [task | {"annotations": []} if task["id"] == third else task for task in kept])
        return real(path, **names)

    monkeypatch.setattr(module, "measure", lossy)
    said = complaint(["lsplugin", "pull", str(project)])
    assert f"the export of project {project} holds 2 tasks with 1 annotations, the server says 3 with 2" in said
    assert f"missing or incomplete: task {first}, {third})" in said
    assert not (tmp_path / "export.json").exists()
