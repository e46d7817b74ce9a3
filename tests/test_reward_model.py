"""The reward model: text to tokens, scores equal to plain transformers', training that learns, an export for plain code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from lsplugin.preferences import Pair, read_pairs, write_pairs
from rm_lightning.__main__ import main
from rm_lightning.backbone import can_share, load_scorer, load_tokenizer, score
from rm_lightning.data import PreferenceData
from rm_lightning.errors import RewardModelError
from rm_lightning.module import RewardModel
from rm_lightning.packing import pack, unfold
from rm_lightning.quiet import quiet
from rm_lightning.scorer import RewardScorer
from rm_lightning.text import JOIN_KEY, TextEncoder, default_join

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD = ["good", "fine", "kind"], ["bad", "poor", "cold"]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty prompts whose better answer holds a good word and whose worse answer holds a bad one, equally long."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        Pair(f"How was day {number}?", f"It was {GOOD[number % 3]} all day.", f"It was {BAD[number // 3 % 3]} all day.")
        for number in range(80)
    ]
    write_pairs(path, rows)
    return path


@pytest.fixture(scope="module")
def trained(tiny_causal: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model fitted by the command line."""
    output = tmp_path_factory.mktemp("trained") / "rm"
    main(
        [
            "fit",
            f"--data.pairs={pairs_file}",
            f"--model.backbone={tiny_causal}",
            f"--output={output}",
            "--data.batch_size=8",
            "--model.learning_rate=1e-2",
            "--trainer.max_epochs=12",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
        ]
    )
    return output


def test_fit_learns_and_tells(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["accuracy"] == 1.0
    assert metrics["margin"] > 1
    tokenizer = load_tokenizer(str(trained))
    lengths = [
        [len(tokenizer(text).input_ids) for text in (pair.chosen, pair.rejected)]
        for pair in read_pairs(trained / "test_pairs.jsonl")
    ]
    longer = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in lengths]
    assert metrics["length_floor"] == pytest.approx(sum(longer) / 8)
    assert metrics["counts"] == {"pairs": 80, "train": 64, "validation": 8, "test": 8}
    assert metrics["measured_on"] == "test"
    assert metrics["accuracy_interval"][0] < 1.0
    assert len((trained / "test_pairs.jsonl").read_text().splitlines()) == 8


def test_export_loads_with_plain_transformers_and_gives_our_numbers(trained: Path) -> None:
    plain = AutoModelForSequenceClassification.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert (trained / "model.safetensors").is_file()
    prompts = ["How was day 3?", "How was the long, long day that I had?", ""]
    answers = ["It was good all day.", "bad", "It was fine and then it was cold and then it was kind again."]
    ours = RewardScorer(str(trained))(prompts, answers)
    join = getattr(plain.config, JOIN_KEY)
    texts = [prompt + join + answer + tokenizer.eos_token for prompt, answer in zip(prompts, answers, strict=True)]
    with torch.no_grad():
        together = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
        alone = torch.cat([plain(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts])
    assert torch.allclose(ours, together, atol=1e-5)
    assert torch.allclose(ours, alone, atol=1e-5)


def test_scorer_keeps_the_order_and_ignores_the_batch_size(trained: Path) -> None:
    prompts = [f"How was day {number}?" for number in range(20)]
    answers = [f"It was {'good ' * (number % 7)}day." for number in range(20)]
    whole = RewardScorer(str(trained), tokens_per_batch=100_000)(prompts, answers)
    single = RewardScorer(str(trained), tokens_per_batch=1)(prompts, answers)
    assert torch.allclose(whole, single, atol=1e-5)
    assert len(whole.unique()) > 10


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_scores_are_those_of_plain_transformers_for_every_shape(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    """Padded on the right, in one batch and one by one; the tokenizer had no pad token, or EOS for one."""
    tokenizer = load_tokenizer(str(tiny_causal))
    torch.manual_seed(0)
    size = len(tokenizer)
    if kind == "gpt2":
        model = load_scorer(str(tiny_causal), tokenizer, new=True)
        assert isinstance(model, GPT2ForSequenceClassification)
    elif kind == "llama":
        model = LlamaForSequenceClassification(
            LlamaConfig(vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, num_labels=1, pad_token_id=tokenizer.pad_token_id)
        )  # fmt: skip
    else:
        model = BertForSequenceClassification(
            BertConfig(vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                       num_labels=1, pad_token_id=tokenizer.pad_token_id)
        )  # fmt: skip
    model.eval()  # type: ignore[no-untyped-call]
    encoder = TextEncoder(tokenizer)
    trees = [
        encoder.tree("How was it?", ["good", "not good at all"]),
        encoder.tree("And the other day, how was that one?", ["It was not good, not at all.", "It was fine."]),
    ]
    packed = pack(trees, pad=int(tokenizer.pad_token_id))
    input_ids, mask = unfold(packed, pad=int(tokenizer.pad_token_id))
    texts = [tree.prompt + answer for tree in trees for answer in tree.answers]
    assert [row[: int(size)].tolist() for row, size in zip(input_ids, mask.sum(1), strict=True)] == texts
    assert can_share(model) == (kind != "bert")
    for shared in {False, can_share(model)}:
        with torch.no_grad():
            ours = score(model, packed, shared=shared)[:, 0]
            assert ours.dtype == torch.float32
            assert torch.allclose(ours, model(input_ids=input_ids, attention_mask=mask).logits[:, 0], atol=1e-5)
            for row, text in enumerate(texts):
                assert torch.allclose(ours[row], model(input_ids=torch.tensor([text])).logits[0, 0], atol=1e-5)


def test_pad_is_never_eos(tiny_causal: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_causal))
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    model = load_scorer(str(tiny_causal), tokenizer, new=True)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)  # type: ignore[union-attr]
    assert model.config.pad_token_id == tokenizer.pad_token_id


def test_two_parts_give_the_tokens_of_the_whole_text(tiny_causal: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_causal))
    encoder = TextEncoder(tokenizer)
    assert encoder.join == " "
    whole = [*tokenizer("How was it? It was good.").input_ids, tokenizer.eos_token_id]
    assert encoder.prompt("How was it?") + encoder.answer("It was good.") == whole


@pytest.mark.data
def test_a_tokenizer_that_puts_a_blank_before_every_text_needs_no_join(real_data: Path) -> None:
    tokenizer = load_tokenizer(str(real_data / "models" / "stories260k-hf"))
    assert default_join(tokenizer) == ""
    encoder = TextEncoder(tokenizer)
    whole = tokenizer("Once upon a time there was a dog.").input_ids
    assert encoder("Once upon a time", "there was a dog.") == [*whole, tokenizer.eos_token_id]


def test_prompts_are_cut_from_the_left_and_answers_never(tiny_causal: Path) -> None:
    encoder = TextEncoder(load_tokenizer(str(tiny_causal)), max_length=12)
    answer = encoder.answer("It was good.")
    ids = encoder("How was the long, long day that I had?", "It was good.")
    assert len(ids) == 12
    assert ids[-len(answer) :] == answer
    assert ids[: 12 - len(answer)] == encoder.prompt("How was the long, long day that I had?")[-(12 - len(answer)) :]
    with pytest.raises(RewardModelError, match="does not fit into 12"):
        encoder("How?", "It was good and kind and fine and good and kind and fine, all of it, the whole long day.")


def test_a_conversation_needs_a_chat_template(tiny_causal: Path) -> None:
    encoder = TextEncoder(load_tokenizer(str(tiny_causal)))
    with pytest.raises(RewardModelError, match="has no chat template"):
        encoder.prompt([{"role": "user", "content": "How was it?"}])
    encoder.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    ids = encoder.prompt([{"role": "user", "content": "How was it?"}])
    assert encoder.tokenizer.decode(ids) == "<user>How was it?<assistant>"
    assert (
        encoder.answer("good", [{"role": "user", "content": "How was it?"}])[0]
        == encoder.tokenizer("good").input_ids[0]
    )


def test_a_classifier_with_other_labels_is_no_reward_model(tiny_causal: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_causal, num_labels=3)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_causal).save_pretrained(tmp_path)
    with pytest.raises(RewardModelError, match="exactly 1 label, this is 3 labels"):
        RewardScorer(str(tmp_path))
    with pytest.raises(RewardModelError, match="exactly 1 label, this is a GPT2LMHeadModel"):
        RewardScorer(str(tiny_causal))


@pytest.mark.parametrize(("ties", "share"), [("davidson", 0.25), ("davidson", 0.0), ("half", 0.25)])
def test_the_tie_parameter_begins_at_the_data_and_learns(
    ties: Any, share: float, tiny_causal: Path, tmp_path: Path
) -> None:
    quiet()
    level = int(40 * share)
    write_pairs(
        tmp_path / "p.jsonl",
        [Pair(f"day {n}", "good", "bad", probability=0.5 if n < level else 1.0) for n in range(40)],
    )
    data = PreferenceData(str(tmp_path / "p.jsonl"), backbone=str(tiny_causal), cache=tmp_path)
    model = RewardModel(str(tiny_causal), learning_rate=1e-2, ties=ties)
    trainer = L.Trainer(max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1)  # fmt: skip
    began: list[float] = []
    trainer.callbacks.append(  # type: ignore[attr-defined]
        LambdaCallback(
            on_train_start=lambda *_: began.append(model.log_tie.exp().item() if model.log_tie is not None else 0)
        )
    )
    trainer.fit(model, data)
    # between equals, a quarter: v / (2 + v) = 1/4
    assert began == [pytest.approx(2 / 3 if ties == "davidson" and share else 0.0)]
    if model.log_tie is not None:
        assert model.log_tie.exp().item() != pytest.approx(began[0], rel=1e-4)


def test_bad_input_is_one_line(tiny_causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": 3}\n'
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not lose me")
    cases = [
        (["--model.backbone=no-such-model"], "no-such-model: no such model"),
        (
            [f"--model.backbone={tiny_causal}", f"--data.pairs={tmp_path}/pairs.jsonl"],
            "line 2: expected `chosen` to be text",
        ),
        ([f"--model.backbone={tiny_causal}", f"--data.pairs={tmp_path}/none.jsonl"], "none.jsonl: no such file"),
        ([f"--model.backbone={tiny_causal}", f"--output={tmp_path}/full"], "not an earlier result"),
    ]
    for arguments, said in cases:
        if not any("--data.pairs" in argument for argument in arguments):
            arguments.append(f"--data.pairs={tmp_path}/pairs.jsonl")
        if not any("--output" in argument for argument in arguments):
            arguments.append(f"--output={tmp_path}/out")
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--trainer.accelerator=cpu", *arguments])
        assert stopped.value.code == 1
        printed = capsys.readouterr().err.strip().splitlines()[-1]
        assert printed.startswith("error: ")
        assert said in printed
    assert (tmp_path / "full" / "thesis.txt").read_text() == "do not lose me"
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fit_learns_in_mixed_precision_on_a_gpu(tiny_causal: Path, pairs_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "rm"
    main(
        [
            "fit",
            f"--data.pairs={pairs_file}",
            f"--model.backbone={tiny_causal}",
            f"--output={output}",
            "--data.batch_size=8",
            "--model.learning_rate=1e-2",
            "--trainer.max_epochs=12",
            "--trainer.accelerator=gpu",
            "--trainer.devices=1",
        ]
    )
    assert json.loads((output / "metrics.json").read_text())["accuracy"] == 1.0
    on_gpu, on_cpu = (RewardScorer(str(output), device=device)(["How was it?"], ["good"]) for device in ("cuda", "cpu"))
    assert torch.allclose(on_gpu, on_cpu, atol=1e-3)
