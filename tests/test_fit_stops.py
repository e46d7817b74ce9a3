"""A fit that is killed, interrupted, out of room or diverging: the same command goes on."""

from __future__ import annotations

import math
import os
import resource
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rm_lightning.__main__ import main
from rm_lightning.callbacks import History
from rm_lightning.scorer import RewardScorer
from tests import fits
from tests.fits import arguments

if TYPE_CHECKING:
    from collections.abc import Callable

EACH_STEP = ("--latest.every_n_train_steps=1", "--latest.train_time_interval=null")

pytestmark = pytest.mark.usefixtures("without_report")

LONG = ("--trainer.max_epochs=2", "--model.dropout=true", "--data.batch_size=4", *EACH_STEP)
"""Two epochs of eight steps; dropout, so that random numbers count."""
UNHELD = ("--data.validation=0.0", "--data.test=0.0", "--data.batch_size=5")
"""The same without any validation."""


@pytest.fixture(scope="module")
def whole(tiny_causal: Path, days_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Runs that nobody interrupts, with or without a validation."""
    made: dict[bool, Path] = {}

    def give(held: bool) -> Path:
        if held not in made:
            made[held] = tmp_path_factory.mktemp("whole") / "rm"
            args = arguments(days_file, tiny_causal, made[held], *LONG, *(() if held else UNHELD))
            ended = fits.run(args, made[held].parent / "log")
            assert ended.code == 0, ended.said
        return made[held]

    return give


def at_step(step: int, what: Callable[[Any], object], *, after: bool = False) -> None:
    """Let something happen when a batch ends, before its checkpoint is written, or `after` one."""

    def ended(self: History, trainer: Any, *rest: Any, real: Any = History.on_train_batch_end) -> None:
        real(self, trainer, *rest)
        if trainer.global_step == step + after:
            what(trainer)

    fits.without_report()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background would ignore it
    pytest.MonkeyPatch().setattr(History, "on_train_batch_end", ended)


def send(number: int, _trainer: object) -> None:
    os.kill(os.getpid(), number)


def same(one: Path, other: Path) -> None:
    assert fits.history(one) == fits.history(other)
    prompts, answers = ["How was day 3?"] * 2, ["It was good all day.", "cold"]
    assert torch.equal(RewardScorer(str(one))(prompts, answers), RewardScorer(str(other))(prompts, answers))


@pytest.mark.parametrize(
    ("steps", "held"),
    [
        (3, True),
        *(
            pytest.param(steps, held, marks=pytest.mark.slow)
            for steps, held in ((7, True), (8, True), (13, True), (8, False))
        ),
    ],
)
def test_killed_and_started_again_it_gives_the_same_losses_and_the_same_model(
    steps: int, held: bool, whole: Callable[[bool], Path], tiny_causal: Path, days_file: Path, tmp_path: Path
) -> None:
    """Killed in the first epoch, before and after its validation or its end, in the second."""
    expected, broken = whole(held), tmp_path / "rm"
    args = arguments(days_file, tiny_causal, broken, *LONG, *(() if held else UNHELD))
    killed = fits.run(
        args, tmp_path / "killed", before=partial(at_step, steps, partial(send, signal.SIGKILL), after=True)
    )
    assert killed.code == -signal.SIGKILL, killed.said
    assert not broken.exists()
    ended = fits.run(args, tmp_path / "log")
    assert ended.code == 0, ended.said
    assert "going on from" in ended.said
    assert len(fits.history(broken)) == 2 * 8 + (2 if held else 0)
    same(broken, expected)
    assert not list((tmp_path / "rm-logs" / "checkpoints").iterdir())


def test_ctrl_c_keeps_the_step_and_the_same_command_goes_on(
    whole: Callable[[bool], Path], tiny_causal: Path, days_file: Path, tmp_path: Path
) -> None:
    """Without a checkpoint at each step: the one that is gone on from was written because somebody asked."""
    output = tmp_path / "rm"
    args = [arg for arg in arguments(days_file, tiny_causal, output, *LONG) if arg not in EACH_STEP]
    stopped = fits.run(args, tmp_path / "stopped", before=partial(at_step, 3, partial(send, signal.SIGINT)))
    assert stopped.code == 1
    latest = output.with_name("rm-logs") / "checkpoints" / "latest.ckpt"
    assert stopped.said.splitlines()[-1] == f"interrupted; the same command goes on from {latest}"
    assert "Traceback" not in stopped.said
    assert torch.load(latest, weights_only=True)["global_step"] == 3
    assert fits.run(args, tmp_path / "log").code == 0
    same(output, whole(True))


def test_a_fit_that_ends_before_its_first_validation_exports_its_last_weights(
    tiny_causal: Path, days_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rm"
    main(arguments(days_file, tiny_causal, output, "--trainer.max_steps=1"))
    assert "the fit ended before its first validation: its last weights are kept" in capsys.readouterr().err
    assert fits.metrics(output)["settings"]["steps"] == 1
    fits.agree(output)


def test_ctrl_c_twice_ends_at_once(tiny_causal: Path, days_file: Path, tmp_path: Path) -> None:
    args = arguments(days_file, tiny_causal, tmp_path / "rm")
    stopped = fits.run(args, tmp_path / "stopped", before=partial(at_step, 1, twice))
    assert stopped.code == 1
    assert stopped.said.splitlines()[-1] == "interrupted before the first checkpoint; the same command begins anew"
    assert not (tmp_path / "rm").exists()


def twice(_trainer: object) -> None:
    for _ in range(2):
        signal.raise_signal(signal.SIGINT)


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(
    whole: Callable[[bool], Path], tiny_causal: Path, days_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rm"
    args = arguments(days_file, tiny_causal, output, *LONG)
    full = fits.run(args, tmp_path / "full", before=partial(at_step, 3, fill))
    latest = tmp_path / "rm-logs" / "checkpoints" / "latest.ckpt"
    assert full.code == 1
    assert full.said.splitlines()[-1].startswith(f"error: {latest}: this checkpoint cannot be written (")
    assert "Traceback" not in full.said
    assert [path.name for path in latest.parent.iterdir()] == ["latest.ckpt"]
    assert torch.load(latest, weights_only=True)["global_step"] == 2
    assert fits.run(args, tmp_path / "log").code == 0
    same(output, whole(True))


def fill(_trainer: object) -> None:
    """Let no file grow beyond 50 kB from here on: the smallest checkpoint of the tiny model has 150."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_at_the_export_keeps_the_model_before(
    whole: Callable[[bool], Path], tiny_causal: Path, days_file: Path, tmp_path: Path
) -> None:
    """The same command then trains no more, but tests and exports."""
    output = tmp_path / "rm"
    main(arguments(days_file, tiny_causal, output, "--trainer.max_steps=1"))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    args = arguments(days_file, tiny_causal, output, *LONG)
    full = fits.run(args, tmp_path / "full", before=full_at_the_end)
    assert full.code == 1
    assert f"error: {output}: the model cannot be written (" in full.said.splitlines()[-1]
    assert "Traceback" not in full.said
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "rm", "rm-logs"]
    ended = fits.run(args, tmp_path / "log", before=partial(at_step, 16, fail))
    assert ended.code == 0, ended.said
    same(output, whole(True))


def full_at_the_end() -> None:
    fits.without_report()
    pytest.MonkeyPatch().setattr(History, "on_fit_end", lambda *_: fill(None))


def fail(trainer: object) -> None:
    raise AssertionError("it trained once more")


@pytest.mark.parametrize("when", ["before a step", "after a step"])
def test_a_loss_that_is_no_number_ends_with_its_place_and_the_last_good_checkpoint(
    when: str, tiny_causal: Path, days_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A weight is poisoned before the third step, or after it, where it would be kept in a checkpoint."""
    name, reached = ("on_train_batch_start", 2) if when == "before a step" else ("on_train_batch_end", 3)
    real = getattr(History, name)

    def poison(self: History, trainer: Any, *rest: Any) -> None:
        real(self, trainer, *rest)
        if trainer.global_step == reached:
            with torch.no_grad():
                trainer.lightning_module.scorer.score.weight.fill_(math.nan)

    monkeypatch.setattr(History, name, poison)
    said = fits.refused(arguments(days_file, tiny_causal, tmp_path / "rm", "--data.batch_size=4", *EACH_STEP), capsys)
    latest = tmp_path / "rm-logs" / "checkpoints" / "latest.ckpt"
    if when == "before a step":
        assert f"epoch 0, batch 2: the loss is not a finite number any more (first at {days_file}, line " in said
    else:
        assert "step 3: the weights are not finite numbers any more" in said
    assert said.endswith(f"The last good checkpoint is kept: {latest}")
    kept = torch.load(latest, weights_only=True)
    assert kept["global_step"] == 2
    assert all(weight.isfinite().all() for weight in kept["state_dict"].values())
    assert not (tmp_path / "rm").exists()


def test_a_learning_rate_that_is_far_too_large_is_named(
    tiny_causal: Path, days_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fits.refused(arguments(days_file, tiny_causal, tmp_path / "rm", "--model.learning_rate=1e30"), capsys)
    assert "a smaller --model.learning_rate" in said
    assert said.endswith("No checkpoint was written yet")
