"""`python -m rm_lightning` as its users meet it: what it makes and leaves behind, how it is interrupted, what it refuses."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import statistics
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

import rm_lightning.finish
from lsplugin.preferences import read_pairs, write_pairs
from rm_lightning.__main__ import main
from rm_lightning.backbone import load_tokenizer
from rm_lightning.callbacks import History
from rm_lightning.report import write_report
from rm_lightning.scorer import RewardScorer
from tests import fits
from tests.fits import arguments

if TYPE_CHECKING:
    from collections.abc import Callable

EACH_STEP = ("--latest.every_n_train_steps=1", "--latest.train_time_interval=null")


@pytest.fixture(autouse=True)
def _without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rm_lightning.finish, "write_report", lambda *_: None)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_pairs(path, fits.days(40))
    return path


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


# --- killed, interrupted, out of room: the same command goes on ---

LONG = ("--trainer.max_epochs=2", "--model.dropout=true", "--data.batch_size=4", *EACH_STEP)
"""Two epochs of eight steps; dropout, so that random numbers count."""
UNHELD = ("--data.validation=0.0", "--data.test=0.0", "--data.batch_size=5")
"""The same without any validation."""


@pytest.fixture(scope="module")
def whole(tiny_causal: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Runs that nobody interrupts, with or without a validation."""
    made: dict[bool, Path] = {}

    def give(held: bool) -> Path:
        if held not in made:
            made[held] = tmp_path_factory.mktemp("whole") / "rm"
            args = arguments(pairs_file, tiny_causal, made[held], *LONG, *(() if held else UNHELD))
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
    steps: int, held: bool, whole: Callable[[bool], Path], tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """Killed in the first epoch, before and after its validation or its end, in the second."""
    expected, broken = whole(held), tmp_path / "rm"
    args = arguments(pairs_file, tiny_causal, broken, *LONG, *(() if held else UNHELD))
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
    whole: Callable[[bool], Path], tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """Without a checkpoint at each step: the one that is gone on from was written because somebody asked."""
    output = tmp_path / "rm"
    args = [arg for arg in arguments(pairs_file, tiny_causal, output, *LONG) if arg not in EACH_STEP]
    stopped = fits.run(args, tmp_path / "stopped", before=partial(at_step, 3, partial(send, signal.SIGINT)))
    assert stopped.code == 1
    latest = output.with_name("rm-logs") / "checkpoints" / "latest.ckpt"
    assert stopped.said.splitlines()[-1] == f"interrupted; the same command goes on from {latest}"
    assert "Traceback" not in stopped.said
    assert torch.load(latest, weights_only=True)["global_step"] == 3
    assert fits.run(args, tmp_path / "log").code == 0
    same(output, whole(True))


def test_a_fit_that_ends_before_its_first_validation_exports_its_last_weights(
    tiny_causal: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rm"
    main(arguments(pairs_file, tiny_causal, output, "--trainer.max_steps=1"))
    assert "the fit ended before its first validation: its last weights are kept" in capsys.readouterr().err
    assert fits.metrics(output)["settings"]["steps"] == 1
    agree(output)


def test_ctrl_c_twice_ends_at_once(tiny_causal: Path, pairs_file: Path, tmp_path: Path) -> None:
    args = arguments(pairs_file, tiny_causal, tmp_path / "rm")
    stopped = fits.run(args, tmp_path / "stopped", before=partial(at_step, 1, twice))
    assert stopped.code == 1
    assert stopped.said.splitlines()[-1] == "interrupted before the first checkpoint; the same command begins anew"
    assert not (tmp_path / "rm").exists()


def twice(_trainer: object) -> None:
    for _ in range(2):
        signal.raise_signal(signal.SIGINT)


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(
    whole: Callable[[bool], Path], tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rm"
    args = arguments(pairs_file, tiny_causal, output, *LONG)
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
    whole: Callable[[bool], Path], tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """The same command then trains no more, but tests and exports."""
    output = tmp_path / "rm"
    main(arguments(pairs_file, tiny_causal, output, "--trainer.max_steps=1"))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    args = arguments(pairs_file, tiny_causal, output, *LONG)
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
    when: str, tiny_causal: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
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
    said = refused(arguments(pairs_file, tiny_causal, tmp_path / "rm", "--data.batch_size=4", *EACH_STEP), capsys)
    latest = tmp_path / "rm-logs" / "checkpoints" / "latest.ckpt"
    if when == "before a step":
        assert f"epoch 0, batch 2: the loss is not a finite number any more (first at {pairs_file}, line " in said
    else:
        assert "step 3: the weights are not finite numbers any more" in said
    assert said.endswith(f"The last good checkpoint is kept: {latest}")
    kept = torch.load(latest, weights_only=True)
    assert kept["global_step"] == 2
    assert all(weight.isfinite().all() for weight in kept["state_dict"].values())
    assert not (tmp_path / "rm").exists()


def test_a_learning_rate_that_is_far_too_large_is_named(
    tiny_causal: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(arguments(pairs_file, tiny_causal, tmp_path / "rm", "--model.learning_rate=1e30"), capsys)
    assert "a smaller --model.learning_rate" in said
    assert said.endswith("No checkpoint was written yet")


# --- what can be fitted: the exported folder scores as the model did that was measured ---

FITS: dict[str, list[str]] = {
    "lora": ["--model.lora.r=2", "--model.lora.alpha=8"],
    "adapter": ["--model.lora.r=2", "--model.adapter=true"],
    "ensemble": ["--model.members=3"],
    "ties": ["--model.ties=davidson", "--model.centre=0.01", "--model.smoothing=0.1", "--model.margin=0.5"],
    "less": [
        "--model.freeze=1",
        "--model.checkpointing=true",
        "--data.tokens_per_batch=200",
        "--model.share_prompts=false",
    ],
    "bf16-mixed": ["--trainer.precision=bf16-mixed"],
    "a callback": [
        "--trainer.max_epochs=3",
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/log_loss",
        "--trainer.callbacks.stopping_threshold=100.0",
    ],
}


@pytest.fixture(scope="module")
def tiny_encoder(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "bert"
    tokenizer = load_tokenizer(str(tiny_causal))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(
            BertConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                       num_attention_heads=4, max_position_embeddings=128)
        )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def agree(output: Path, tolerance: float = 1e-5) -> None:
    """What was measured in the training is what the exported folder gives."""
    found = torch.tensor(fits.differences(output), dtype=torch.float64)
    told = fits.metrics(output)
    assert found.mean().item() == pytest.approx(told["margin"], abs=tolerance)
    assert told["decided"] == len(found)
    assert told["accuracy"] == pytest.approx((0.5 + 0.5 * found.sign()).mean().item())


@pytest.mark.parametrize("kind", list(FITS))
def test_a_fit_exports_what_it_measured(kind: str, tiny_causal: Path, pairs_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "rm"
    main(arguments(pairs_file, tiny_causal, output, "--trainer.limit_train_batches=2", *FITS[kind]))
    agree(output, tolerance=1e-2 if kind == "bf16-mixed" else 1e-5)
    settings = fits.metrics(output)["settings"]
    assert settings["steps"] == 2
    if kind == "adapter":
        assert (output / "adapter_model.safetensors").is_file()
        assert not (output / "model.safetensors").exists()
        return
    plain = AutoModelForSequenceClassification.from_pretrained(output)
    assert not any("lora" in name for name, _ in plain.named_parameters())
    tokenizer = AutoTokenizer.from_pretrained(output)
    ids = tokenizer("How was day 3? It was good." + tokenizer.eos_token, return_tensors="pt").input_ids
    with torch.no_grad():
        members = RewardScorer(str(output)).all(["How was day 3?"], ["It was good."])
        assert torch.allclose(plain(ids).logits, members, atol=1e-5)
    assert members.shape == (1, 3 if kind == "ensemble" else 1)


def test_an_ensembles_members_differ_and_the_score_command_tells_by_how_much(
    tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    output, scores = tmp_path / "rm", tmp_path / "scores.jsonl"
    main(arguments(pairs_file, tiny_causal, output, *FITS["ensemble"]))
    with pytest.raises(SystemExit) as ended:
        main(["score", "--model", str(output), str(pairs_file), "--output", str(scores)])
    assert not ended.value.code
    rows = {(row["prompt"], row["answer"]): row for row in map(json.loads, scores.read_text().splitlines())}
    for pair in list(read_pairs(pairs_file))[:5]:
        members = RewardScorer(str(output)).all([pair.prompt], [pair.chosen])[0]
        row = rows[pair.prompt, pair.chosen]
        assert row["members"] == pytest.approx(members.tolist(), abs=2e-6)
        assert len(set(row["members"])) == 3
        assert row["spread"] == pytest.approx(statistics.stdev(members.tolist()), abs=2e-6)


def test_an_encoder_is_fitted_by_tokens(tiny_encoder: Path, pairs_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "rm"
    main(arguments(pairs_file, tiny_encoder, output, "--data.tokens_per_batch=300"))
    agree(output)
    assert fits.metrics(output)["settings"]["steps"] > 2


def test_conversations_go_through_the_chat_template(tiny_causal: Path, tmp_path: Path) -> None:
    chat, output = tmp_path / "chat", tmp_path / "rm"
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    AutoModelForSequenceClassification.from_pretrained(tiny_causal, num_labels=1).base_model.save_pretrained(chat)
    tokenizer.save_pretrained(chat)
    rows = [{**pair.to_dict(), "prompt": [{"role": "user", "content": pair.prompt}]} for pair in fits.days(30)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(arguments(file, chat, output, "--trainer.limit_train_batches=1"))
    agree(output)
    assert AutoTokenizer.from_pretrained(output).chat_template == tokenizer.chat_template


def test_training_goes_on_from_an_exported_model_with_its_head(
    tiny_causal: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """With a learning rate of 0, nothing changes: the head is not drawn anew."""
    first, second = tmp_path / "first", tmp_path / "second"
    main(arguments(pairs_file, tiny_causal, first))
    main(arguments(pairs_file, first, second, "--model.learning_rate=0.0"))
    assert fits.differences(second) == pytest.approx(fits.differences(first), abs=1e-6)
    assert max(map(abs, fits.differences(first))) > 1e-3


@pytest.mark.parametrize("held", [[], ["--data.validation=0.2"]])
def test_without_a_test_part_it_says_what_the_figures_are_of(
    held: list[str], tiny_causal: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(rm_lightning.finish, "write_report", write_report)
    output = tmp_path / "rm"
    main(arguments(pairs_file, tiny_causal, output, "--data.test=0.0", *(held or ["--data.validation=0.0"])))
    said, told = capsys.readouterr().err, fits.metrics(output)
    validated = [row for row in fits.history(output) if "val_log_loss" in row]
    assert (output / "report.html").is_file()
    if held:
        assert "validation (it chose the checkpoint) accuracy" in said
        assert told["measured_on"] == "validation"
        assert len(validated) == 1  # measuring the best checkpoint is no point of the curve
        assert validated[0]["val_log_loss"] == pytest.approx(told["log_loss"])
    else:
        assert "no prompts were held out" in said
        assert (told["measured_on"], told["accuracy"], told["log_loss"], told["comparisons"]) == (None, None, None, 0)
        assert told["counts"] == {"pairs": 40, "train": 40}
        assert not validated
    assert RewardScorer(str(output))(["How was it?"], ["good"]).isfinite()


# --- what is left behind, and what else can be asked for ---


@pytest.fixture(scope="module")
def trained(tiny_causal: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "rm"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rm_lightning.finish, "write_report", write_report)
        main(arguments(pairs_file, tiny_causal, output, "--trainer.max_epochs=3", "--model.learning_rate=1e-2"))
    return output


def test_what_is_left_behind(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md", "config.json", "history.json", "metrics.json", "model.safetensors", "report.html", "report.png",
        "test_pairs.jsonl", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    logs = trained.with_name("rm-logs")
    assert sorted(path.name for path in trained.parent.iterdir()) == ["rm", "rm-logs"]
    assert not list((logs / "checkpoints").iterdir())
    (events,) = (logs / "tensorboard").glob("*/")
    written = EventAccumulator(str(events)).Reload().Scalars("val/accuracy")
    curve = [row["val_accuracy"] for row in fits.history(trained) if "val_accuracy" in row]
    assert [point.value for point in written] == pytest.approx(curve)
    assert "train/loss" in next((logs / "csv").glob("*/metrics.csv")).read_text().splitlines()[0]
    assert json.loads((logs / "run.json").read_text())["finished"]


def test_a_model_that_is_better_than_people_agree_is_suspect(
    tiny_causal: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is measured on what it was trained on, and people agree hardly better than by chance."""
    report, output = tmp_path / "report.json", tmp_path / "rm"
    ceiling = {"value": 0.6, "low": 0.5, "high": 0.65, "at_least": 0.55, "at_most": 0.65, "from": "votes"}
    report.write_text(json.dumps({"agreement": {"ceiling": ceiling}}))
    more = [
        f"--ceiling={report}",
        f"--data.test_pairs={pairs_file}",
        "--trainer.max_epochs=8",
        "--model.learning_rate=1e-2",
    ]
    main(arguments(pairs_file, tiny_causal, output, *more))
    assert fits.metrics(output)["accuracy_interval"][0] > 0.65
    assert "warning: Too good to be true" in capsys.readouterr().err
    assert "Too good to be true" in (output / "README.md").read_text()
    assert fits.metrics(output)["notes"]["examples of test whose prompt is trained on, too"] > 0


def test_predict_writes_the_scores_of_every_comparison(
    trained: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.jsonl"
    args = ["predict", f"--data.pairs={pairs_file}", f"--model.backbone={trained}", f"--output={output}",
            f"--data.cache={pairs_file.parent / 'cache'}", "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false"]  # fmt: skip
    main(args)
    assert f"wrote {output}: 40 comparisons scored" in capsys.readouterr().err
    rows = {row["where"]: row for row in map(json.loads, output.read_text().splitlines())}
    score = RewardScorer(str(trained))
    for number, pair in enumerate(read_pairs(pairs_file), start=1):
        row = rows[f"{pairs_file}, line {number}"]
        better, worse = score([pair.prompt] * 2, [pair.chosen, pair.rejected]).tolist()
        assert (row["chosen_score"], row["rejected_score"]) == pytest.approx((better, worse), abs=1e-5)
        assert row["difference"] == pytest.approx(better - worse, abs=1e-5)
    before = output.read_bytes()
    ended = fits.run(args, tmp_path / "log", before=breaks_while_it_writes)
    assert ended.code == 1
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "scores.jsonl"]


def breaks_while_it_writes() -> None:
    from rm_lightning.callbacks import PredictionFile

    def full(*_: object, real: Any = PredictionFile.on_predict_batch_end) -> None:
        real(*_)
        raise OSError(28, "No space left on device", "scores.jsonl")

    pytest.MonkeyPatch().setattr(PredictionFile, "on_predict_batch_end", full)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_exported_model_is_measured_again(
    command: str, trained: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the pairs that it was tested on, with the accuracy that it had."""
    part = {"validate": "validation", "test": "test"}[command]
    main(
        [command, f"--data.{part}_pairs={trained / 'test_pairs.jsonl'}", f"--model.backbone={trained}",
         f"--data.cache={tmp_path}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if f"/{'accuracy'} " in line)
    assert float(line.split("│")[2]) == pytest.approx(fits.metrics(trained)["accuracy"])
    (line,) = (line for line in printed.splitlines() if "/margin " in line)
    assert float(line.split("│")[2]) == pytest.approx(fits.metrics(trained)["margin"], abs=1e-5)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_only_a_finished_model_is_measured(
    command: str, tiny_causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backbone without a trained head would be measured at random; no model at all is no reason to take the demo's."""
    pairs = tmp_path / "pairs.jsonl"
    write_pairs(pairs, fits.days(1))
    given = [command, f"--data.pairs={pairs}", f"--data.cache={tmp_path}"]
    line = refused([*given, f"--model.backbone={tiny_causal}"], capsys)
    assert "expected a finished reward model, this has no trained head; `python -m rm_lightning fit` makes one" in line
    monkeypatch.chdir(tmp_path)
    assert "runs/rm holds none; name its folder with --model.backbone" in refused(given, capsys)


def test_a_single_comparison_is_scored(trained: Path, tmp_path: Path) -> None:
    """Nothing is held out from what is only scored."""
    pairs, output = tmp_path / "pairs.jsonl", tmp_path / "scores.jsonl"
    write_pairs(pairs, fits.days(1))
    main(
        ["predict", f"--data.pairs={pairs}", f"--model.backbone={trained}", f"--output={output}",
         f"--data.cache={tmp_path}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    )  # fmt: skip
    row = json.loads(output.read_text())
    assert row["difference"] == pytest.approx(row["chosen_score"] - row["rejected_score"])


def test_help_begins_with_an_example_and_tells_our_options(capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for command in ("fit", "validate", "test", "predict"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said[command] = capsys.readouterr().out
        assert f"example:\n  python -m rm_lightning {command} " in "\n".join(said[command].splitlines()[:8])
    for option in ("--output", "--ceiling", "--wandb", "--fresh", "--model.members", "--data.tokens_per_batch"):
        assert f"\n  {option} " in said["fit"]
    assert "(cpu, ddp, deepspeed, fsdp, gpu, lora, two_nodes)" in " ".join(said["fit"].split())
    with pytest.raises(SystemExit):
        main(["--help"])
    whole = capsys.readouterr().out
    assert "predict             Score both answers of every comparison" in whole


# --- mistakes: one line, exit 1, nothing half-written, an earlier export untouched ---

MISTAKES: dict[str, tuple[list[str], str]] = {
    "no options of this name": (["--model.nothing=3"], "unrecognized arguments: --model.nothing=3"),
    "no number": (["--model.smoothing=much"], "Parser key \"model.smoothing\": Expected a <class 'float'>. Got value: much"),
    "smoothing": (["--model.smoothing=0.7"], "--model.smoothing 0.7: expected 0 or more, below 0.5"),
    "lora's rank": (["--model.lora.r=0"], "lora r: expected a rank of 1 or more, got 0"),
    "lora's options": (["--model.lora.rank=4"], "Option 'rank' is not accepted"),
    "members": (["--model.members=0"], "--model.members 0: expected 1 or more"),
    "shares": (["--data.validation=0.5", "--data.test=0.5"], "expected shares of 0 or more, together below 1"),
    "config": (["--config=gp"], "--config gp: no such file, and not one of the ready ones: cpu, ddp, deepspeed, fsdp, gpu"),
    "wandb": (["--wandb=project"], "--wandb needs the package wandb: pip install 'label-studio-rlhf[wandb]'"),
    "adapter": (["--model.adapter=true"], "--model.adapter true needs --model.lora"),
    "freeze": (["--model.freeze=3"], "layers to freeze: expected 0 to 2, as many as there are, got 3"),
    "trainer": (["--trainer.precision=16-true", "--trainer.strategy=nothing"], "this machine cannot run these --trainer options"),
    "ceiling": (["--ceiling=/no/such/report.json"], "/no/such/report.json: no such file"),
    "few": (["--data.max_length=4"], "dropped: an answer is longer than 4 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(MISTAKES))
def test_a_wrong_setting_is_one_line(
    kind: str, trained: Path, tiny_causal: Path, pairs_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    more, said = MISTAKES[kind]
    if kind == "wandb" and find_spec("wandb") is not None:
        pytest.skip("wandb is here")
    assert said in refused(arguments(pairs_file, tiny_causal, trained, *more), capsys)
    assert {path.name: path.stat().st_mtime_ns for path in trained.iterdir()} == before
    assert sorted(path.name for path in trained.parent.iterdir()) == ["rm", "rm-logs"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "no preferences in it; expected rows with prompt, chosen and rejected"),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": "b"}\n',
            "line 2: expected `rejected`",
        ),
        ('{"prompt": "a"\n', "line 1: expected one JSON object a line"),
    ],
)
def test_a_file_that_holds_no_preferences_is_one_line(
    rows: str, said: str, tiny_causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(rows)
    line = refused(arguments(file, tiny_causal, tmp_path / "rm"), capsys)
    assert line.startswith(f"error: {file}")
    assert said in line
    assert not (tmp_path / "rm").exists()


def test_answers_longer_than_the_models_positions_are_counted(tiny_causal: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "pairs.jsonl", tmp_path / "rm"
    long = [replace(pair, chosen="good " * 200) if n < 5 else pair for n, pair in enumerate(fits.days(40))]
    write_pairs(file, long)
    main(arguments(file, tiny_causal, output, "--trainer.limit_train_batches=1"))
    counts = fits.metrics(output)["counts"]
    assert counts["dropped: an answer is longer than 128 tokens"] == 5
    assert counts["train"] + counts["validation"] + counts["test"] == 35


def test_a_tokenizer_of_another_model_is_one_line(
    tiny_causal: Path, pairs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    AutoModelForSequenceClassification.from_pretrained(tiny_causal, num_labels=1).base_model.save_pretrained(mixed)
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.add_tokens(["<new>", "<newer>"])
    tokenizer.save_pretrained(mixed)
    assert "they are not of one model" in refused(arguments(pairs_file, mixed, tmp_path / "rm"), capsys)
    assert not (tmp_path / "rm").exists()
