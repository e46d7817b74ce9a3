"""Fits for tests: tiny ones, and in processes of their own, forked from one that has imported everything already."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import socket
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import rm_lightning.finish
from lsplugin.preferences import Pair, read_pairs
from rm_lightning.scorer import RewardScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.context import ForkServerProcess

GOOD, BAD = ["good", "fine", "kind"], ["bad", "poor", "cold"]


def days(count: int) -> list[Pair]:
    """Comparisons that a tiny model learns, one a prompt."""
    return [
        Pair(f"How was day {n}?", f"It was {GOOD[n % 3]} all day.", f"It was {BAD[n // 3 % 3]} all day.")
        for n in range(count)
    ]


def arguments(pairs: Path, backbone: Path | str, output: Path, *more: str, command: str = "fit") -> list[str]:
    """A fit on the CPU, of one epoch unless `more` says otherwise."""
    return [
        command, f"--data.pairs={pairs}", f"--model.backbone={backbone}", f"--output={output}", "--data.batch_size=8",
        f"--data.cache={pairs.parent / 'cache'}", "--model.learning_rate=3e-3", "--trainer.accelerator=cpu",
        "--trainer.devices=1", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1", *more,
    ]  # fmt: skip


def history(output: Path) -> list[dict[str, float]]:
    """The curves of an exported model."""
    found: list[dict[str, float]] = json.loads((output / "history.json").read_text())
    return found


def metrics(output: Path) -> dict[str, Any]:
    """The figures of an exported model."""
    found: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return found


def differences(output: Path) -> list[float]:
    """By how much an exported model prefers the better answers of its test pairs."""
    pairs = list(read_pairs(output / "test_pairs.jsonl"))
    score = RewardScorer(str(output))
    better, worse = (
        score([pair.prompt for pair in pairs], answers)
        for answers in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    )
    return (better - worse).tolist()


def agree(output: Path, tolerance: float = 1e-5) -> None:
    """Check it: what was measured in the training is what the exported folder gives."""
    import torch

    found = torch.tensor(differences(output), dtype=torch.float64)
    told = metrics(output)
    assert found.mean().item() == pytest.approx(told["margin"], abs=tolerance)
    assert told["decided"] == len(found)
    assert told["accuracy"] == pytest.approx((0.5 + 0.5 * found.sign()).mean().item())


def without_report() -> None:
    """Draw no pictures, which take most of the time of a tiny fit."""
    pytest.MonkeyPatch().setattr(rm_lightning.finish, "write_report", lambda *_: None)


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("rm_lightning.__main__").main(args)
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit code, minus the signal that killed it; what it said on stderr."""

    code: int
    said: str


@dataclass(frozen=True)
class Started:
    """A process that runs."""

    process: ForkServerProcess
    log: Path

    def end(self) -> Ended:
        self.process.join(120)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, self.log.read_text())


def start(
    args: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], object] = without_report,
    program: str = "rm_lightning",
) -> Started:
    """Start a command line in a process of its own, in which `before` is called first and warnings are errors."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "rm_lightning.cli",
            "ppo.run",
            "tests.fits",
            "torch.utils.tensorboard",
            "transformers.models.gpt2.modeling_gpt2",
        ]
    )
    process = context.Process(target=_run, args=(list(args), str(log), dict(environment or {}), before, program))
    process.start()
    return Started(process, log)


def run(
    args: Sequence[str], log: Path, before: Callable[[], object] = without_report, program: str = "rm_lightning"
) -> Ended:
    """Run a command line in a process of its own."""
    return start(args, log, before=before, program=program).end()


def together(
    args: Sequence[str],
    log: Path,
    *,
    nodes: bool = False,
    before: Callable[[], object] = without_report,
    program: str = "rm_lightning",
) -> list[Ended]:
    """Run a command line as two processes that find each other, of one machine or of two `nodes`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    places = [{"NODE_RANK": str(n)} if nodes else {"NODE_RANK": "0", "LOCAL_RANK": str(n)} for n in range(2)]
    started = [
        start(args, log.with_suffix(f".{number}"), environment=found | place, before=before, program=program)
        for number, place in enumerate(places)
    ]
    return [one.end() for one in started]


def _run(args: list[str], log: str, environment: dict[str, str], before: Callable[[], object], program: str) -> None:
    import torch

    os.environ.update(environment)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    before()
    importlib.import_module(f"{program}.__main__").main(args)
