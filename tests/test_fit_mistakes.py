"""A fit's mistakes: one line, exit 1, nothing half-written, an earlier export untouched."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lsplugin.preferences import write_pairs
from rm_lightning.__main__ import main
from tests import fits
from tests.fits import arguments

pytestmark = pytest.mark.usefixtures("without_report")

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
    kind: str, fitted: Path, tiny_causal: Path, days_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in fitted.iterdir()}
    more, said = MISTAKES[kind]
    if kind == "wandb" and find_spec("wandb") is not None:
        pytest.skip("wandb is here")
    assert said in fits.refused(arguments(days_file, tiny_causal, fitted, *more), capsys)
    assert {path.name: path.stat().st_mtime_ns for path in fitted.iterdir()} == before
    assert sorted(path.name for path in fitted.parent.iterdir()) == ["rm", "rm-logs"]


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
    line = fits.refused(arguments(file, tiny_causal, tmp_path / "rm"), capsys)
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
    tiny_causal: Path, days_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    AutoModelForSequenceClassification.from_pretrained(tiny_causal, num_labels=1).base_model.save_pretrained(mixed)
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.add_tokens(["<new>", "<newer>"])
    tokenizer.save_pretrained(mixed)
    assert "they are not of one model" in fits.refused(arguments(days_file, mixed, tmp_path / "rm"), capsys)
    assert not (tmp_path / "rm").exists()
