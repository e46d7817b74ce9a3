"""The same fit by one process and by several, on one machine or two; the configurations that come with the package."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import rm_lightning.finish
from lsplugin.preferences import Pair, write_pairs
from rm_lightning.__main__ import main
from rm_lightning.arguments import ready_configs
from rm_lightning.scorer import RewardScorer
from tests import fits

REPOSITORY = Path(__file__).resolve().parent.parent
FULLY_SHARD = "--trainer.strategy={class_path: rm_lightning.strategy.FullyShard}"
EPOCHS = "--trainer.max_epochs=2"


@pytest.fixture(autouse=True)
def _without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rm_lightning.finish, "write_report", lambda *_: None)


@pytest.fixture(scope="module")
def rankings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """29 prompts of 2 to 4 answers each: batches that neither two processes nor the last step can share evenly."""
    path = tmp_path_factory.mktemp("rankings") / "pairs.jsonl"
    rows = []
    for n in range(29):
        answers = [f"It was {word} {'all day ' * (n % 4)}and so." for word in ("good", "fine", "poor", "cold")]
        kept = answers[: 2 + n % 3]
        rows += [
            Pair(f"How was day {n}?", a, b, weight=1 + n % 3, probability=0.9 if n % 2 else None)
            for i, a in enumerate(kept)
            for b in kept[i + 1 :]
        ]
    write_pairs(path, rows)
    return path


@pytest.fixture(scope="module")
def alone(tiny_causal: Path, rankings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of batches of eight."""
    output = tmp_path_factory.mktemp("alone") / "rm"
    ended = fits.run(fits.arguments(rankings, tiny_causal, output, EPOCHS), output.parent / "log")
    assert ended.code == 0, ended.said
    return output


def same(output: Path, alone: Path) -> None:
    ours, theirs = fits.history(output), fits.history(alone)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert fits.differences(output) == pytest.approx(fits.differences(alone), abs=1e-5)
    for name in ("accuracy", "margin", "log_loss", "decided", "calibration_error"):
        assert fits.metrics(output)[name] == pytest.approx(fits.metrics(alone)[name], abs=1e-5)
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    ids = tokenizer("How was day 3? It was good." + tokenizer.eos_token, return_tensors="pt").input_ids
    with torch.no_grad():
        score = plain(ids).logits[0]
    assert torch.allclose(score, RewardScorer(str(output))(["How was day 3?"], ["It was good."]), atol=1e-5)


@pytest.mark.parametrize("strategy", ["--trainer.strategy=ddp", FULLY_SHARD])
def test_two_processes_do_what_one_does(
    strategy: str, alone: Path, tiny_causal: Path, rankings: Path, tmp_path: Path
) -> None:
    """Batches of four each: the same steps, losses and validation, and the same model, to float tolerance."""
    output = tmp_path / "rm"
    more = [EPOCHS, strategy, "--trainer.devices=2", "--data.batch_size=4"]
    for ended in fits.together(fits.arguments(rankings, tiny_causal, output, *more), tmp_path / "log"):
        assert ended.code == 0, ended.said
    same(output, alone)
    assert fits.metrics(output)["settings"]["processes"] == 2
    assert not list((tmp_path / "rm-logs" / "checkpoints").iterdir())


def test_two_processes_killed_and_started_again_do_what_one_does(
    alone: Path, tiny_causal: Path, rankings: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rm"
    more = [EPOCHS, "--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=4",
            "--latest.every_n_train_steps=1", "--latest.train_time_interval=null"]  # fmt: skip
    args = fits.arguments(rankings, tiny_causal, output, *more)
    killed = fits.together(args, tmp_path / "killed", before=partial(killed_after, 3))
    assert {ended.code for ended in killed} == {-signal.SIGKILL}
    assert not output.exists()
    for ended in fits.together(args, tmp_path / "log"):
        assert ended.code == 0, ended.said
        assert "going on from" in ended.said
    same(output, alone)


def killed_after(steps: int) -> None:
    from rm_lightning.callbacks import History

    def kill(self: History, trainer: Any, *rest: Any, real: Any = History.on_train_batch_end) -> None:
        real(self, trainer, *rest)
        if trainer.global_step > steps:
            os.kill(os.getpid(), signal.SIGKILL)

    fits.without_report()
    pytest.MonkeyPatch().setattr(History, "on_train_batch_end", kill)


def test_two_processes_export_adapters_and_ensembles(tiny_causal: Path, rankings: Path, tmp_path: Path) -> None:
    """Spread over processes, a model is made anew to be exported: with its adapters, merged, and all its heads."""
    output = tmp_path / "rm"
    more = [FULLY_SHARD, "--trainer.devices=2", "--trainer.limit_train_batches=2", "--model.lora.r=2",
            "--model.members=2", "--model.checkpointing=true"]  # fmt: skip
    for ended in fits.together(fits.arguments(rankings, tiny_causal, output, *more), tmp_path / "log"):
        assert ended.code == 0, ended.said
    found = fits.differences(output)
    assert sum(found) / len(found) == pytest.approx(fits.metrics(output)["margin"], abs=1e-5)


def test_weights_that_two_processes_share_do_not_go_with_davidsons_ties(
    tiny_causal: Path, rankings: Path, tmp_path: Path
) -> None:
    level = tmp_path / "pairs.jsonl"
    write_pairs(level, [Pair(f"day {n}", "good", "fine", probability=0.5 if n % 2 else 1.0) for n in range(40)])
    more = [FULLY_SHARD, "--trainer.devices=2"]
    for ended in fits.together(fits.arguments(level, tiny_causal, tmp_path / "rm", *more), tmp_path / "log"):
        assert ended.code == 1
        assert "does not go with a model that is spread over processes" in ended.said.splitlines()[-1]


@pytest.mark.parametrize("name", ["cpu", "gpu", "lora"])
def test_a_ready_configuration_of_one_device(name: str, tiny_causal: Path, rankings: Path, tmp_path: Path) -> None:
    """As far as a machine without a GPU goes; the precision stays."""
    output = tmp_path / "rm"
    main(
        ["fit", "--config", name, f"--data.pairs={rankings}", f"--model.backbone={tiny_causal}", f"--output={output}",
         f"--data.cache={rankings.parent / 'cache'}", "--trainer.accelerator=cpu", "--trainer.limit_train_batches=1",
         "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"]
    )  # fmt: skip
    given = yaml.safe_load(ready_configs()[name].read_text())
    settings = fits.metrics(output)["settings"]
    assert settings["precision"] == given["trainer"].get("precision", "32-true")
    assert settings["steps"] == 1
    for key, value in given.get("model", {}).items():
        found = settings[f"model.{key}"]
        assert found == value or (isinstance(value, dict) and value.items() <= found.items())
    found = fits.differences(output)
    tolerance = 1e-5 if settings["precision"] == "32-true" else 1e-2
    assert sum(found) / len(found) == pytest.approx(fits.metrics(output)["margin"], abs=tolerance)


@pytest.mark.parametrize(("name", "precision"), [("fsdp", "bf16-true"), ("two_nodes", "bf16-mixed")])
def test_a_ready_configuration_of_two_processes(
    name: str, precision: str, tiny_causal: Path, rankings: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rm"
    more = [
        "--data.tokens_per_batch=200",
        "--trainer.limit_train_batches=2",
        f"--trainer.devices={1 if name == 'two_nodes' else 2}",
    ]
    args = fits.arguments(rankings, tiny_causal, output, *more)
    for ended in fits.together(["fit", "--config", name, *args[1:]], tmp_path / "log", nodes=name == "two_nodes"):
        assert ended.code == 0, ended.said
    settings = fits.metrics(output)["settings"]
    assert (settings["processes"], settings["steps"], settings["precision"]) == (2, 2, precision)
    found = fits.differences(output)
    assert sum(found) / len(found) == pytest.approx(fits.metrics(output)["margin"], abs=1e-2)


@pytest.mark.slow
def test_one_command_starts_its_own_processes(tiny_causal: Path, rankings: Path, tmp_path: Path) -> None:
    output = tmp_path / "rm"
    more = ["--trainer.limit_train_batches=1", "--trainer.precision=32-true", "--trainer.devices=2"]
    args = fits.arguments(rankings, tiny_causal, output, *more)
    done = subprocess.run(
        [sys.executable, "-m", "rm_lightning", "fit", "--config=ddp", *args[1:]], cwd=tmp_path, capture_output=True,
        text=True, check=False, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert fits.metrics(output)["settings"]["processes"] == 2


def test_deepspeed_is_named_where_it_is_missing(
    tiny_causal: Path, rankings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("deepspeed") is not None:
        pytest.skip("deepspeed is here")
    args = fits.arguments(rankings, tiny_causal, tmp_path / "rm")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "deepspeed", *args[1:]])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: --trainer.strategy deepspeed_stage_2 needs the package deepspeed: pip install 'label-studio-rlhf[deepspeed]'"
    ]
    assert not (tmp_path / "rm-logs").exists()


@pytest.mark.parametrize("name", ["deepspeed", "fsdp", "lora"])
def test_a_printed_configuration_can_be_given_back(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of a ready configuration's settings are in what is printed, and what is printed prints itself."""
    printed = _printed(["--config", name], capsys)
    (tmp_path / "printed.yaml").write_text(printed)
    found, given = yaml.safe_load(printed), yaml.safe_load(ready_configs()[name].read_text())
    assert yaml.safe_load(_printed(["--config", str(tmp_path / "printed.yaml")], capsys)) == found
    assert found["trainer"]["max_epochs"] == given["trainer"]["max_epochs"]
    assert found["data"]["tokens_per_batch"] == given["data"]["tokens_per_batch"]


def _printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *args, "--print_config"])
    assert not stopped.value.code
    return capsys.readouterr().out
