"""The ML backend beside a real Label Studio: pre-labels in a real browser, refits from the labels of a real project."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lsplugin.preferences import read_pairs, write_pairs
from lsplugin.render import render
from lsplugin.template import Spec, template_names
from rm_lightning.data import split_places
from rm_lightning.store import prompt_key
from tests.backends import TOKEN, Serving, random_model, serving
from tests.fits import arguments, days
from tests.helpers import Person, complaint, pairwise_result, run_cli, unused_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from lsplugin.preferences import Pair
    from tests.conftest import LabelStudio

pytestmark = [pytest.mark.server, pytest.mark.slow]

SHOWN = '[style*="order: 0"], .ant-radio-checked, .ant-rate-star-full, .htx-ranker-column:not(:first-child) .htx-ranker-item'
"""An answer that is clicked, a choice that is ticked, a star that is given, a card in a tier."""


def new_project(admin: Person, config: str, tasks: list[dict[str, Any]]) -> tuple[int, list[int]]:
    project = admin.post("/api/projects", {"title": "Live", "label_config": config})["id"]
    admin.post(f"/api/projects/{project}/import", tasks)
    found = admin.get(f"/api/tasks?project={project}&fields=task_only&page_size=500")["tasks"]
    return project, sorted(task["id"] for task in found)


def labelled(pair: Pair, number: int, *, right: bool) -> dict[str, Any]:
    """A task with its annotation; the better answer stands left and right in turn."""
    first, second = (pair.chosen, pair.rejected) if number % 2 else (pair.rejected, pair.chosen)
    side = "left" if bool(number % 2) == right else "right"
    data = {"prompt": pair.prompt, "answer1": first, "answer2": second}
    return {"data": data, "annotations": [{"result": pairwise_result(side)}]}


def train(admin: Person, project: int) -> None:
    """Press Start Training."""
    (backend,) = admin.get(f"/api/ml?project={project}")
    assert admin.http.post(f"/api/ml/{backend['id']}/train", json={}).status_code == 200


def said_by(backend: Serving, state: str) -> str:
    ended = backend.ended()
    assert ended["state"] == state, ended
    return str(ended["said"])


@pytest.fixture(scope="module")
def backend(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = random_model(tiny_causal, tmp_path_factory.mktemp("served") / "rm")
    with serving(folder, token=TOKEN) as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize("template", template_names())
def test_an_opened_task_shows_its_pre_label(
    template: str, backend: Serving, connected: LabelStudio, admin: Person, page: Page
) -> None:
    count = 3 if template == "ranking" else 2
    data: dict[str, Any] = {f"answer{n}": f"The answer number {n}." for n in range(1, count + 1)}
    if template == "ranking":
        data["items"] = [{"id": f"answer{n}", "title": f"Answer {n}"} for n in range(1, count + 1)]
    project, (task,) = new_project(
        admin, render(Spec(template=template, answers=count)), [{"data": {"prompt": "p"} | data}]
    )
    assert run_cli(["lsplugin", "backend", "add", str(project), backend.url, "--token", TOKEN]).code == 0
    page.goto(f"{connected.url}/projects/{project}/data?task={task}")
    root = page.locator(".lsf-main-view .lsplugin")
    root.locator(SHOWN).first.wait_for()
    (prediction,) = admin.get(f"/api/tasks/{task}")["predictions"]
    assert prediction["model_version"] == backend.worker.model.version
    assert 0.5 <= prediction["score"] <= 1
    page.wait_for_timeout(400)
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as sent:
        page.keyboard.press("Control+Enter")
    assert sent.value.status == 201
    (annotation,) = admin.get(f"/api/tasks/{task}/annotations/")
    stored = {found["from_name"]: found["value"] for found in annotation["result"]}
    assert stored == {found["from_name"]: found["value"] for found in prediction["result"]}
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"backend-{template}.png")


def test_a_backend_is_added_once(backend: Serving, connected: LabelStudio, admin: Person) -> None:
    project, _ = new_project(admin, render(Spec()), [{"data": {"prompt": "p", "answer1": "a", "answer2": "b"}}])
    add = ["lsplugin", "backend", "add", str(project), backend.url]
    assert "does not accept this token" in complaint(add)
    assert "does not accept this token" in complaint([*add, "--token", "x" * 20])
    assert "no backend answers" in complaint([*add[:-1], f"http://127.0.0.1:{unused_port()}"])
    assert "answers /health with 404 and not as" in complaint([*add[:-1], f"{backend.url}/no", "--token", TOKEN])
    for address in ("nonsense", "ftp://127.0.0.1"):
        assert "expected the address of a backend" in complaint([*add[:-1], address])
    assert admin.get(f"/api/ml?project={project}") == []
    first = run_cli([*add, "--token", TOKEN])
    second = run_cli([*add, "--token", TOKEN, "--title", "Judge"])
    assert (first.code, second.code) == (0, 0)
    assert TOKEN not in first.stderr + second.stderr
    assert "brought up to date" in second.stderr
    (found,) = admin.get(f"/api/ml?project={project}")
    assert (found["title"], found["readable_state"], found["basic_auth_pass_is_set"]) == ("Judge", "Connected", True)
    assert admin.get(f"/api/projects/{project}")["model_version"] == "Judge"
    assert admin.get(f"/api/webhooks/?project={project}") == []
    assert backend.worker.model.version in run_cli(["lsplugin", "backend", "list", str(project)]).stdout
    assert run_cli(["lsplugin", "backend", "remove", str(project), backend.url]).stderr == "removed\n"
    assert "has no backend" in run_cli(["lsplugin", "backend", "remove", str(project), backend.url]).stderr
    empty, _ = new_project(admin, '<View><Text name="a" value="$a"/></View>', [{"data": {"a": "b"}}])
    assert "cannot fill in this project's config" in complaint([*add[:3], str(empty), backend.url, "--token", TOKEN])


def test_a_refit_swaps_when_as_good_and_not_when_killed_or_worse(
    tiny_causal: Path, connected: LabelStudio, admin: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parent.parent))  # the refit's commands are ours
    monkeypatch.setattr("rm_lightning.finish.write_report", lambda *_: None)
    pairs = days(150)
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    unlearned = arguments(tmp_path / "pairs.jsonl", tiny_causal, tmp_path / "runs/rm", "--model.learning_rate=1e-7")
    assert run_cli(["rm_lightning", *unlearned]).code == 0
    good, _ = new_project(admin, render(Spec()), [labelled(pair, n, right=True) for n, pair in enumerate(pairs)])
    # Labels that are wrong but for the prompts that are held out teach the opposite of what they then ask.
    places = split_places(np.array([prompt_key(pair.prompt) for pair in pairs]), 0)
    lowest = set(np.argsort(places)[:15].tolist())
    bad, _ = new_project(admin, render(Spec()), [labelled(pair, n, right=n in lowest) for n, pair in enumerate(pairs)])
    options = [
        "--model.learning_rate=3e-3",
        "--data.batch_size=8",
        "--trainer.max_epochs=3",
        "--trainer.accelerator=cpu",
    ]
    with serving(tmp_path / "runs/rm", options=[*options, "--trainer.enable_progress_bar=false"]) as backend:
        first = backend.worker.model.version
        for project in (good, bad):
            assert run_cli(["lsplugin", "backend", "add", str(project), backend.url]).code == 0

        train(admin, good)
        while "fitting" not in (health := backend.http.get("/health").json())["refit"]["said"]:
            assert health["refit"]["state"] == "running", health
            time.sleep(0.05)
        assert backend.refit._process is not None
        os.kill(backend.refit._process.pid, signal.SIGKILL)
        assert said_by(backend, "failed").startswith("fitting was killed by signal 9")
        assert backend.http.get("/health").json()["model_version"] == first

        train(admin, good)
        assert "on 15 pairs of 15 held-out prompts" in said_by(backend, "swapped")
        second = backend.http.get("/health").json()["model_version"]
        assert second != first
        assert backend.http.get("/versions").json() == {"versions": [second, first]}
        assert (tmp_path / "runs" / first / "model.safetensors").is_file()
        held_out = {str(pair.prompt) for pair in read_pairs(tmp_path / "runs/rm/test_pairs.jsonl")}
        assert held_out == {str(pairs[number].prompt) for number in lowest}

        train(admin, bad)
        assert said_by(backend, "kept").startswith("the new model is not as good: accuracy ")
        assert backend.http.get("/health").json()["model_version"] == second
        notes = (tmp_path / "runs/rm-refits.jsonl").read_text().splitlines()
        assert [note.split('"')[3] for note in notes] == ["failed", "swapped", "kept"]
