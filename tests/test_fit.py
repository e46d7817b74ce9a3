"""`python -m rm_lightning` as its users meet it: what it makes and leaves behind."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

import rm_lightning.finish
from lsplugin.preferences import read_pairs, write_pairs
from rm_lightning.__main__ import main
from rm_lightning.backbone import load_tokenizer
from rm_lightning.report import write_report
from rm_lightning.scorer import RewardScorer
from tests import fits
from tests.fits import arguments

pytestmark = pytest.mark.usefixtures("without_report")

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


@pytest.mark.parametrize("kind", list(FITS))
def test_a_fit_exports_what_it_measured(kind: str, tiny_causal: Path, days_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "rm"
    main(arguments(days_file, tiny_causal, output, "--trainer.limit_train_batches=2", *FITS[kind]))
    fits.agree(output, tolerance=1e-2 if kind == "bf16-mixed" else 1e-5)
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
    tiny_causal: Path, days_file: Path, tmp_path: Path
) -> None:
    output, scores = tmp_path / "rm", tmp_path / "scores.jsonl"
    main(arguments(days_file, tiny_causal, output, *FITS["ensemble"]))
    with pytest.raises(SystemExit) as ended:
        main(["score", "--model", str(output), str(days_file), "--output", str(scores)])
    assert not ended.value.code
    rows = {(row["prompt"], row["answer"]): row for row in map(json.loads, scores.read_text().splitlines())}
    for pair in list(read_pairs(days_file))[:5]:
        members = RewardScorer(str(output)).all([pair.prompt], [pair.chosen])[0]
        row = rows[pair.prompt, pair.chosen]
        assert row["members"] == pytest.approx(members.tolist(), abs=2e-6)
        assert len(set(row["members"])) == 3
        assert row["spread"] == pytest.approx(statistics.stdev(members.tolist()), abs=2e-6)


def test_an_encoder_is_fitted_by_tokens(tiny_encoder: Path, days_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "rm"
    main(arguments(days_file, tiny_encoder, output, "--data.tokens_per_batch=300"))
    fits.agree(output)
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
    fits.agree(output)
    assert AutoTokenizer.from_pretrained(output).chat_template == tokenizer.chat_template


def test_training_goes_on_from_an_exported_model_with_its_head(
    tiny_causal: Path, days_file: Path, tmp_path: Path
) -> None:
    """With a learning rate of 0, nothing changes: the head is not drawn anew."""
    first, second = tmp_path / "first", tmp_path / "second"
    main(arguments(days_file, tiny_causal, first))
    main(arguments(days_file, first, second, "--model.learning_rate=0.0"))
    assert fits.differences(second) == pytest.approx(fits.differences(first), abs=1e-6)
    assert max(map(abs, fits.differences(first))) > 1e-3


@pytest.mark.parametrize("held", [[], ["--data.validation=0.2"]])
def test_without_a_test_part_it_says_what_the_figures_are_of(
    held: list[str], tiny_causal: Path, days_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(rm_lightning.finish, "write_report", write_report)
    output = tmp_path / "rm"
    main(arguments(days_file, tiny_causal, output, "--data.test=0.0", *(held or ["--data.validation=0.0"])))
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


def test_what_is_left_behind(fitted: Path) -> None:
    assert sorted(path.name for path in fitted.iterdir()) == [
        "README.md", "config.json", "history.json", "metrics.json", "model.safetensors", "report.html", "report.png",
        "test_pairs.jsonl", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    logs = fitted.with_name("rm-logs")
    assert sorted(path.name for path in fitted.parent.iterdir()) == ["rm", "rm-logs"]
    assert not list((logs / "checkpoints").iterdir())
    (events,) = (logs / "tensorboard").glob("*/")
    written = EventAccumulator(str(events)).Reload().Scalars("val/accuracy")
    curve = [row["val_accuracy"] for row in fits.history(fitted) if "val_accuracy" in row]
    assert [point.value for point in written] == pytest.approx(curve)
    assert "train/loss" in next((logs / "csv").glob("*/metrics.csv")).read_text().splitlines()[0]
    assert json.loads((logs / "run.json").read_text())["finished"]


def test_a_model_that_is_better_than_people_agree_is_suspect(
    tiny_causal: Path, days_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is measured on what it was trained on, and people agree hardly better than by chance."""
    report, output = tmp_path / "report.json", tmp_path / "rm"
    ceiling = {"value": 0.6, "low": 0.5, "high": 0.65, "at_least": 0.55, "at_most": 0.65, "from": "votes"}
    report.write_text(json.dumps({"agreement": {"ceiling": ceiling}}))
    more = [
        f"--ceiling={report}",
        f"--data.test_pairs={days_file}",
        "--trainer.max_epochs=8",
        "--model.learning_rate=1e-2",
    ]
    main(arguments(days_file, tiny_causal, output, *more))
    assert fits.metrics(output)["accuracy_interval"][0] > 0.65
    assert "warning: Too good to be true" in capsys.readouterr().err
    assert "Too good to be true" in (output / "README.md").read_text()
    assert fits.metrics(output)["notes"]["examples of test whose prompt is trained on, too"] > 0


def test_predict_writes_the_scores_of_every_comparison(
    fitted: Path, days_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.jsonl"
    args = ["predict", f"--data.pairs={days_file}", f"--model.backbone={fitted}", f"--output={output}",
            f"--data.cache={days_file.parent / 'cache'}", "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false"]  # fmt: skip
    main(args)
    assert f"wrote {output}: 40 comparisons scored" in capsys.readouterr().err
    rows = {row["where"]: row for row in map(json.loads, output.read_text().splitlines())}
    score = RewardScorer(str(fitted))
    for number, pair in enumerate(read_pairs(days_file), start=1):
        row = rows[f"{days_file}, line {number}"]
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
    command: str, fitted: Path, days_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the pairs that it was tested on, with the accuracy that it had."""
    part = {"validate": "validation", "test": "test"}[command]
    main(
        [command, f"--data.{part}_pairs={fitted / 'test_pairs.jsonl'}", f"--model.backbone={fitted}",
         f"--data.cache={tmp_path}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if f"/{'accuracy'} " in line)
    assert float(line.split("│")[2]) == pytest.approx(fits.metrics(fitted)["accuracy"])
    (line,) = (line for line in printed.splitlines() if "/margin " in line)
    assert float(line.split("│")[2]) == pytest.approx(fits.metrics(fitted)["margin"], abs=1e-5)


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_only_a_finished_model_is_measured(
    command: str, tiny_causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backbone without a trained head would be measured at random; no model at all is no reason to take the demo's."""
    pairs = tmp_path / "pairs.jsonl"
    write_pairs(pairs, fits.days(1))
    given = [command, f"--data.pairs={pairs}", f"--data.cache={tmp_path}"]
    line = fits.refused([*given, f"--model.backbone={tiny_causal}"], capsys)
    assert "expected a finished reward model, this has no trained head; `python -m rm_lightning fit` makes one" in line
    monkeypatch.chdir(tmp_path)
    assert "runs/rm holds none; name its folder with --model.backbone" in fits.refused(given, capsys)


def test_a_single_comparison_is_scored(fitted: Path, tmp_path: Path) -> None:
    """Nothing is held out from what is only scored."""
    pairs, output = tmp_path / "pairs.jsonl", tmp_path / "scores.jsonl"
    write_pairs(pairs, fits.days(1))
    main(
        ["predict", f"--data.pairs={pairs}", f"--model.backbone={fitted}", f"--output={output}",
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
