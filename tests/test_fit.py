"""`python -m rm_lightning fit` as its users meet it: curves, killed and continued runs, other processes, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lsplugin.preferences import Pair, write_pairs
from rm_lightning.__main__ import main
from rm_lightning.scorer import RewardScorer

REPOSITORY = Path(__file__).resolve().parent.parent
GOOD, BAD = ["good", "fine", "kind"], ["bad", "poor", "cold"]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        Pair(f"How was day {number}?", f"It was {GOOD[number % 3]} all day.", f"It was {BAD[number // 3 % 3]} all day.")
        for number in range(80)
    ]
    write_pairs(path, rows)
    return path


def arguments(pairs: Path, backbone: Path, output: Path, *more: str) -> list[str]:
    return [
        "fit", f"--data.pairs={pairs}", f"--model.backbone={backbone}", f"--output={output}", "--data.batch_size=8",
        "--data.cache=" + str(output.parent / "cache"), "--model.learning_rate=3e-3", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", *more,
    ]  # fmt: skip


def curve(output: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((output / "history.json").read_text())
    return found


@pytest.mark.parametrize("steps", [3, 7, 8, 13])
def test_killed_and_started_again_it_gives_the_same_losses_and_the_same_model(
    steps: int, tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """Killed in the first epoch, before and after its validation, in the second; dropout on, so that random numbers count."""
    more = [
        "--trainer.max_epochs=3",
        "--model.dropout=true",
        "--latest.every_n_train_steps=1",
        "--latest.train_time_interval=null",
    ]
    whole = tmp_path / "whole" / "rm"
    main(arguments(pairs_file, tiny_causal, whole, *more))
    broken = tmp_path / "broken" / "rm"
    command = [sys.executable, "-c", KILLED, str(steps), *arguments(pairs_file, tiny_causal, broken, *more)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not broken.exists()
    done = subprocess.run(
        [sys.executable, "-m", "rm_lightning", *command[4:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stderr
    assert len(curve(whole)) == 3 * 8 + 3
    assert curve(broken) == curve(whole)
    prompts, answers = ["How was day 3?"] * 2, ["It was good all day.", "cold"]
    assert torch.equal(RewardScorer(str(broken))(prompts, answers), RewardScorer(str(whole))(prompts, answers))
    assert not (tmp_path / "broken" / "rm-logs" / "checkpoints" / "latest.ckpt").exists()


KILLED = """
import os, signal, sys
import lightning as L
from rm_lightning.__main__ import main
from rm_lightning.callbacks import History

def kill(self, trainer, *rest, real=History.on_train_batch_end):
    real(self, trainer, *rest)
    if trainer.global_step > int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

History.on_train_batch_end = kill
main(sys.argv[2:])
"""
