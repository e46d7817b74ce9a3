"""Pushing is idempotent: whatever breaks, and whenever, the project ends with every task exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from lsplugin import push as module
from lsplugin import server as local
from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE
from lsplugin.dataset import Task, keyed
from lsplugin.errors import LspluginError
from lsplugin.project import Client, UnreachableError
from lsplugin.render import render
from tests.conftest import copy_migrated
from tests.helpers import Person, complaint, pairwise_result, run_cli, write_json, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.conftest import LabelStudio

pytestmark = pytest.mark.server


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"p{n}", "answer1": f"one {n}", "answer2": f"two {n}"} for n in range(count)]


def prompts(project: str) -> Counter[str]:
    """How often each task is in a project, by its prompt."""
    assert run_cli(["lsplugin", "pull", project, "-o", "check.json"]).code == 0
    with open("check.json", encoding="utf-8") as stream:  # noqa: PTH123
        return Counter(task["data"]["prompt"] for task in json.load(stream))


def once(count: int) -> Counter[str]:
    return Counter({f"p{n}": 1 for n in range(count)})


def test_keys_tell_rows_apart() -> None:
    same = Task({"prompt": "p"}, {"models": {"answer1": "m"}}, 1)
    other = Task({"prompt": "p"}, {"models": {"answer1": "n"}}, 2)
    made = [task.key for task in keyed([same, other, same])]
    assert len(set(made)) == 3
    assert made == [task.key for task in keyed([same, other, same])]
    assert made[2] == f"{made[0]}-1"


def test_a_second_push_imports_nothing_twice(connected: LabelStudio, tmp_path: Path) -> None:
    write_json(tmp_path / "d.json", rows(30))
    first = run_cli(["lsplugin", "create", "Twice the same", "--tasks", "d.json"])
    again = run_cli(["lsplugin", "create", "Twice the same", "--tasks", "d.json"])
    assert again.stdout == first.stdout
    assert "imported 0 of 30 tasks" in again.stderr
    assert "imported 0 tasks" in run_cli(["lsplugin", "push", "Twice the same", "d.json"]).stderr
    write_json(tmp_path / "more.json", [*rows(32), rows(1)[0]])  # two new ones, and the first a second time
    assert "imported 3 tasks" in run_cli(["lsplugin", "push", "Twice the same", "more.json"]).stderr
    assert prompts("Twice the same") == once(32) + Counter({"p0": 1})
    run_cli(["lsplugin", "render", "--no-tie", "-o", "other.xml"])
    said = complaint(["lsplugin", "create", "Twice the same", "--config", "other.xml", "--tasks", "d.json"])
    assert "with another config" in said


def test_copies_go_and_labels_stay(connected: LabelStudio, admin: Person, tmp_path: Path) -> None:
    """What a server took twice: the copy without labels is taken out again."""
    write_json(tmp_path / "d.json", rows(3))
    project = run_cli(["lsplugin", "create", "Copies", "--tasks", "d.json"]).stdout.strip()
    held = admin.get(f"/api/tasks?project={project}")["tasks"]
    copies = [{"data": task["data"], "meta": task["meta"]} for task in held]
    made = admin.post(f"/api/projects/{project}/import?return_task_ids=true", copies)["task_ids"]
    admin.post(f"/api/tasks/{made[1]}/annotations", {"result": pairwise_result("left")})
    run_cli(["lsplugin", "push", project, "d.json"])
    left = admin.get(f"/api/tasks?project={project}")["tasks"]
    assert Counter(task["data"]["prompt"] for task in left) == once(3)
    assert made[1] in {task["id"] for task in left}


def test_of_two_copies_the_one_with_a_prelabel_stays(connected: LabelStudio, admin: Person, tmp_path: Path) -> None:
    write_json(tmp_path / "d.json", rows(3))
    project = run_cli(["lsplugin", "create", "Prelabelled copies", "--tasks", "d.json"]).stdout.strip()
    held = admin.get(f"/api/tasks?project={project}")["tasks"]
    guess = [{"result": pairwise_result("left")}]
    copies = [{"data": task["data"], "meta": task["meta"], "predictions": guess} for task in held]
    admin.post(f"/api/projects/{project}/import", copies)
    assert run_cli(["lsplugin", "push", project, "d.json"]).code == 0
    left = admin.get(f"/api/tasks?project={project}&fields=all")["tasks"]
    assert Counter(task["data"]["prompt"] for task in left) == once(3)
    assert all(task["predictions"] for task in left)


def test_a_server_that_breaks_off_again_and_again(connected: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for at every step, and each batch that it takes gives it new time."""
    calls: Counter[str] = Counter()

    def break_off(name: str, when: Callable[[int], bool]) -> None:
        real = getattr(module, name)

        def call(*args: object) -> Any:
            calls[name] += 1
            if when(calls[name]):
                raise UnreachableError("broke off")
            return real(*args)

        monkeypatch.setattr(module, name, call)

    break_off("held_by", lambda number: number == 1)
    break_off("import_batch", lambda number: number % 2 == 1)
    break_off("drop_copies", lambda number: number == 1)
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(module, "BATCH", 10)
    with Client(connected.connection) as client:
        project, _ = client.open("Breaks off", render())
        made = [Task(row) for row in rows(40)]
        assert client.push(project, made, path="d.json") == 40
        assert calls["import_batch"] == 8
        assert prompts("Breaks off") == once(40)
        assert client.push(client.find("Breaks off"), made, path="d.json") == 0


def test_what_a_server_only_says_to_have_taken(connected: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "import_batch", lambda *_: None)
    with Client(connected.connection) as client:
        project, _ = client.open("Takes nothing", render())
        made = [Task(row, predictions=({"result": pairwise_result("left")},)) for row in rows(3)]
        with pytest.raises(LspluginError, match="took 0 of 3 tasks"):
            client.push(project, made, path="d.json")


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again(connected: LabelStudio, tmp_path: Path) -> None:
    count = 3000
    write_json(tmp_path / "d.json", rows(count))
    command = [sys.executable, "-m", "lsplugin", "create", "Killed", "--tasks", "d.json"]
    dice, killed = random.Random(0), 0
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=2.5 + dice.random() * 2.5)  # the SDK alone takes two seconds to import
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
    assert killed > 1
    assert run_cli(["lsplugin", "create", "Killed", "--tasks", "d.json"]).code == 0
    assert prompts("Killed") == once(count)


@pytest.mark.slow
def test_the_server_goes_away_under_it(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    count = 4000
    write_json(tmp_path / "d.json", rows(count))
    data = copy_migrated(migrated, tmp_path / "data")
    with local.serve(data) as running:
        port = int(running.connection.url.rpartition(":")[2])
        monkeypatch.setenv(URL_VARIABLE, running.connection.url)
        monkeypatch.setenv(KEY_VARIABLE, running.connection.api_key)
        project = run_cli(["lsplugin", "create", "Goes away"]).stdout.strip()
        command = [sys.executable, "-m", "lsplugin", "push", project, "d.json"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        with Person(running.connection.url) as person:
            person.http.headers["Authorization"] = f"Token {running.connection.api_key}"
            while person.get(f"/api/projects/{project}")["task_number"] == 0 and time.monotonic() < deadline:
                time.sleep(0.05)
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
    with local.serve(data, port=port):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
        assert prompts(project) == once(count)


def test_a_plan_reaches_the_server(connected: LabelStudio, admin: Person, tmp_path: Path) -> None:
    """Sides, gold, copies, pre-labels, annotators: pushed twice, it is the same project; what people chose is undone."""
    write_json(tmp_path / "d.json", rows(40))
    write_json(tmp_path / "gold.json", [{**row, "prompt": "known", "gold": "answer2"} for row in rows(4)])
    scores = [
        {"prompt": row["prompt"], "answer": row[f"answer{n}"], "score": 2.0 * n} for row in rows(40) for n in (1, 2)
    ]
    write_lines(tmp_path / "scores.jsonl", scores)
    command = ["lsplugin", "create", "Planned", "--tasks", "d.json", "--gold", "gold.json", "--mirror", "10%"]
    command += [
        "--predictions",
        "scores.jsonl",
        "--prelabel-share",
        "0.5",
        "--annotators-per-task",
        "2",
        "--source",
        "web",
    ]
    first, again = run_cli(command), run_cli(command)
    assert first.code == 0, first.stderr
    assert "among them 4 with a known answer, 4 asked again with sides swapped" in first.stderr
    assert "imported 0 of 48 tasks" in again.stderr
    project = int(first.stdout)
    assert admin.get(f"/api/projects/{project}")["maximum_annotations"] == 2
    tasks = admin.get(f"/api/tasks?project={project}&page_size=100&fields=all")["tasks"]
    assert len(tasks) == 48
    assert Counter(task["meta"]["order"][0] for task in tasks if "mirror" not in task["meta"]) == {
        "answer1": 22,
        "answer2": 22,
    }
    shown = [task for task in tasks if task["meta"].get("prelabel", {}).get("shown")]
    assert [task["id"] for task in tasks if task["predictions"]] == [task["id"] for task in shown]
    assert 12 < len(shown) < 32
    for task in tasks:
        left_is_second = task["meta"]["order"][0] == "answer2"
        admin.choose(task["id"], "left" if left_is_second else "right")
    assert run_cli(["lsplugin", "pull", str(project)]).code == 0
    assert run_cli(["lsplugin", "pairs", "export.json", "--aggregate", "majority"]).code == 0
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert {pair["chosen"].split()[0] for pair in pairs} == {"two"}
    assert all(pair["meta"]["answers"] == {"chosen": "answer2", "rejected": "answer1"} for pair in pairs)
    assert Counter(pair["weight"] for pair in pairs) == {1.0: 40, 2.0: 4}  # a copy's label is its original's


def test_a_prelabel_is_there_when_the_task_is_opened(connected: LabelStudio, page: Page, tmp_path: Path) -> None:
    write_json(tmp_path / "d.json", rows(1))
    write_lines(
        tmp_path / "s.jsonl", [{"prompt": "p0", "answer": f"{word} 0", "score": len(word)} for word in ("one", "two")]
    )
    made = run_cli(["lsplugin", "create", "Shown", "--tasks", "d.json", "--predictions", "s.jsonl"])
    assert made.code == 0, made.stderr
    page.goto(f"{connected.url}/projects/{made.stdout.strip()}/data?labeling=1")
    page.locator(".lsf-main-view .ant-radio-checked").wait_for()
    assert page.get_by_test_id("bottombar-submit-button").is_enabled()
