"""Two rounds of the demo world on a real Label Studio, killed on the way; and the notebook that teaches them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo_world.annotators import CREW
from demo_world.base import base_model
from demo_world.labelling import label_project
from rounds.ledger import LEDGER, Ledger
from tests.helpers import run_cli

if TYPE_CHECKING:
    from tests.conftest import LabelStudio

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1800)]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands in processes of their own find this tree, from any folder."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def next_of(folder: Path) -> str:
    """Call `next`, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "rounds", "next", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kill_after(folder: Path, step: str) -> None:
    """Start `next` and kill it, with what it started, in the midst of the step that follows another."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rounds", "next", str(folder)], start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600
    while (1, step) not in Ledger(folder / LEDGER).current:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def label(server: LabelStudio, said: str, seed: int) -> None:
    """Label the project that `next` names."""
    project = int(said.rpartition("/")[2])
    label_project(server.connection.url, server.connection.api_key, project, seed=seed, crew=CREW[:2])


@pytest.mark.usefixtures("quietly")
def test_two_rounds_and_a_kill(connected: LabelStudio, tmp_path: Path) -> None:
    assert run_cli(["demo_world", "prompts", "-o", "prompts.jsonl", "--train", "120"]).code == 0
    folder = tmp_path / "demo"
    result = run_cli([
        "rounds", "start", folder, "--policy", base_model(0), "--prompts", "prompts.jsonl", "--labels", "24", "--rounds", "2",
        "--judge-share", "0.4", "--pool", "2", "--again", "0.1", "--fit", "--data.test 0.2 --trainer.max_epochs 1",
        "--tune", "--episodes 64 --minibatch-size 32 --learning-rate 3e-4", "--uncertain", "0.4", "--diverse", "0.2",
    ])  # fmt: skip
    assert result.code == 0, result.stderr
    said = next_of(folder)
    assert re.fullmatch(r"round 1 waits: 0 of 24 tasks labelled, at http://127.0.0.1:\d+/projects/\d+", said)
    assert next_of(folder) == said
    assert len(Ledger(folder / LEDGER).records) == 4
    label(connected, said, seed=1)
    kill_after(folder, "gather")
    said = next_of(folder)
    assert said.startswith("round 2 waits: 0 of 24 tasks labelled")
    tasks = json.loads((folder / "round-2/tasks.json").read_text())
    assert {task["meta"]["why"] for task in tasks} == {"judge", "again", "uncertain", "diverse", "random"}
    assert {model for task in tasks for model in task["meta"]["models"].values()} == {
        str(base_model(0)),
        "round-1/policy",
    }
    label(connected, said, seed=2)
    assert "all 2 rounds are done" in next_of(folder)
    ledger = (folder / LEDGER).read_bytes()
    assert connected.connection.api_key not in ledger.decode()
    assert "all 2 rounds are done" in next_of(folder)
    assert (folder / LEDGER).read_bytes() == ledger

    traced = json.loads(run_cli(["rounds", "trace", folder / "round-2/policy", "--json"]).stdout)
    judging = {json.loads(line)["prompt"] for line in (folder / "prompts/judging.jsonl").read_text().splitlines()}
    assert {one["round"] for one in traced["annotations"]} == {1, 2}
    assert not {one["prompt"] for one in traced["annotations"]} & judging
    export = {
        a["id"]: a for task in json.loads((folder / "round-1/export.json").read_text()) for a in task["annotations"]
    }
    assert all(
        export[one["annotation"]]["completed_by"] == int(one["annotator"][5:])
        for one in traced["annotations"]
        if one["round"] == 1
    )
    assert run_cli(["rounds", "report", folder, "--hourly-rate", "30"]).code == 0
    links = re.findall(r'href="([^"]+)"', (folder / "report.html").read_text())
    assert len(links) > 15
    assert all((folder / link).is_file() for link in links)


@pytest.mark.usefixtures("quietly")
def test_the_notebook(connected: LabelStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = REPOSITORY / "examples/rounds.ipynb"
    assert '"outputs": []' in path.read_text()
    assert str(REPOSITORY) not in path.read_text()
    base_model(0)  # made before the notebook's clock runs
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "all 2 rounds are done" in printed
    assert "every file is as the ledger says" in printed
    assert (tmp_path / "runs/tutorial/report.html").is_file()
