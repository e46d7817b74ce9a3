"""Every kind of backbone: scores and gradients of plain transformers, adapters, frozen layers, 4 bits, ensembles of heads."""

from __future__ import annotations

import importlib.util
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import rm_lightning.masks
from rm_lightning.adapters import Lora, add_lora, checkpointing, compiled, export_model
from rm_lightning.backbone import MEMBERS_KEY, can_share, load_scorer, load_tokenizer, score, window
from rm_lightning.errors import RewardModelError
from rm_lightning.masks import masks_for, visible
from rm_lightning.packing import Packed, Tree, hidden_states, pack, unfold
from rm_lightning.parts import blocks, freeze, trunk

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 140,
}  # fmt: skip
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 2}
SPECIAL: dict[str, Any] = {"cls_token_id": 1, "sep_token_id": 0, **TOKENS}
SMALL_GPT2: dict[str, Any] = {"n_positions": 140, "n_embd": 32, "n_layer": 3, "n_head": 4}

CAUSAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (hf.GPT2Config, SMALL_GPT2),
    "gptj": (hf.GPTJConfig, {**SMALL_GPT2, "rotary_dim": 4}),
    "llama": (hf.LlamaConfig, GROUPED),
    "qwen2": (hf.Qwen2Config, SIZES | {"num_key_value_heads": 2}),
    "qwen3": (hf.Qwen3Config, GROUPED),
    "pythia": (hf.GPTNeoXConfig, SIZES),
    "mistral": (hf.MistralConfig, {**GROUPED, "sliding_window": 4096}),
    "mistral with a narrow window": (hf.MistralConfig, {**GROUPED, "sliding_window": 5}),
    "mixtral": (hf.MixtralConfig, {**GROUPED, "num_local_experts": 4}),
    "phi3": (hf.Phi3Config, {**SIZES, "num_key_value_heads": 2}),
    "gemma": (hf.GemmaConfig, GROUPED),
    "gemma2": (hf.Gemma2Config, {**GROUPED, "sliding_window": 5}),
    "gemma3": (hf.Gemma3TextConfig, {**GROUPED, "sliding_window": 5, "sliding_window_pattern": 2}),
    "falcon": (hf.FalconConfig, {key: SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}),
    "opt": (hf.OPTConfig, {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                           "max_position_embeddings": 140, "word_embed_proj_dim": 32}),
}  # fmt: skip
"""Backbones that run each prompt once."""

OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bloom": (hf.BloomConfig, {"hidden_size": 32, "n_layer": 3, "n_head": 4}),  # positions are distances in the row
    "gpt neo": (hf.GPTNeoConfig, {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8,
                                  "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 140}),
    "bert": (hf.BertConfig, SIZES),
    "roberta": (hf.RobertaConfig, SIZES),
    "deberta": (hf.DebertaV2Config, {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "modernbert": (hf.ModernBertConfig, {**SIZES, **SPECIAL, "local_attention": 8}),
    "electra": (hf.ElectraConfig, {**SIZES, "embedding_size": 16}),
    "distilbert": (hf.DistilBertConfig, {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}),
}  # fmt: skip
"""Backbones in which each answer has a prompt of its own."""


@pytest.fixture(autouse=True)
def _tree_by_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attend within each tree, however short; tests/test_packing.py and tests/test_actor.py attend in whole rows."""
    monkeypatch.setattr(rm_lightning.masks, "WORTH", -1)


def make(kind: str, tiny_causal: Path, folder: Path, **more: Any) -> Path:
    """Save a random backbone of a kind with a tokenizer that pads left; encoders have a pad token, decoders have none."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal, padding_side="left")
    made, sizes = {**CAUSAL, **OTHERS}[kind]
    if kind == "roberta":  # counts its positions from its pad token on
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(2)
    config = made(**{"vocab_size": len(tokenizer), **TOKENS, **sizes, **more})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModel.from_config(config).float()
        for weight in model.parameters():  # as large as a trained model's, so that attention is not flat
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loaded(folder: Path, **more: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = load_tokenizer(str(folder))
    torch.manual_seed(1)
    model = load_scorer(str(folder), tokenizer, **{"new": True, **more})
    if more.get("new", True):
        for part in model.modules():
            if isinstance(part, torch.nn.Linear) and part.out_features == model.config.num_labels:
                torch.nn.init.normal_(part.weight)
    return model.eval(), tokenizer  # type: ignore[no-untyped-call]


def forest(size: int, seed: int = 0, count: int = 5) -> list[Tree]:
    rng = random.Random(seed)

    def tokens(low: int, high: int) -> list[int]:
        return [rng.randrange(3, size) for _ in range(rng.randint(low, high))]

    return [Tree(tokens(0, 30), [tokens(1, 15), tokens(1, 15)]) for _ in range(count)]


def alone(model: Any, trees: list[Tree]) -> torch.Tensor:
    """Plain transformers' own logits, one text at a time: (N, K)."""
    texts = [tree.prompt + answer for tree in trees for answer in tree.answers]
    return torch.cat([model(input_ids=torch.tensor([text])).logits for text in texts])


def gradients(model: Any, scores: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (scores * torch.linspace(0.2, 1, scores.numel()).view_as(scores)).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def same(found: torch.Tensor, expected: torch.Tensor, *, share: float = 1e-5) -> bool:
    return bool((found - expected).abs().max() <= share * expected.abs().max() + 1e-7)


@pytest.mark.parametrize("kind", [*CAUSAL, *OTHERS])
def test_scores_and_gradients_are_those_of_plain_transformers(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(make(kind, tiny_causal, tmp_path / "backbone"))
    export_model(model, tmp_path / "rm", adapter=False)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    trees = forest(tokenizer.vocab_size)
    packed = pack(trees, pad=int(tokenizer.pad_token_id))
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert can_share(model) == (kind in CAUSAL)
    expected = alone(plain, trees)
    slopes = gradients(plain, expected)
    for shared in {False, kind in CAUSAL}:
        found = score(model, packed, shared=shared)
        assert found.shape == (10, 1)
        assert same(found, expected), shared
        ours = gradients(model, found)
        scale = max(float(slope.abs().max()) for slope in slopes.values())
        assert ours.keys() == slopes.keys()
        for name, slope in slopes.items():
            assert (ours[name] - slope).abs().max() <= 1e-5 * max(float(slope.abs().max()), 1e-2 * scale), name


@pytest.mark.parametrize("kind", [kind for kind in CAUSAL if kind != "gpt2"])
def test_plain_heads_find_the_last_token_behind_padding_on_either_side(
    kind: str, tiny_causal: Path, tmp_path: Path
) -> None:
    model, tokenizer = loaded(make(kind, tiny_causal, tmp_path / "backbone"))
    packed = pack(forest(tokenizer.vocab_size), pad=int(tokenizer.pad_token_id))
    with torch.no_grad():
        ours = score(model, packed, shared=True)
        input_ids, mask = unfold(packed, pad=int(tokenizer.pad_token_id))
        assert same(model(input_ids=input_ids, attention_mask=mask).logits, ours)
        rolled = [
            torch.stack([row.roll(-int(n)) for row, n in zip(part, mask.sum(1), strict=True)])
            for part in (input_ids, mask)
        ]
        left, seen = rolled
        assert bool(seen[:, -1].all())
        assert same(model(input_ids=left, attention_mask=seen).logits, ours)


def test_gpt2_needs_its_positions_behind_padding_on_the_left(tiny_causal: Path) -> None:
    """Its positions are places in the row, unless they are named; ours never depend on padding."""
    model, tokenizer = loaded(tiny_causal)
    packed = pack(forest(tokenizer.vocab_size), pad=int(tokenizer.pad_token_id))
    input_ids, mask = unfold(packed, pad=int(tokenizer.pad_token_id))
    left, seen = (
        torch.stack([row.roll(-int(n)) for row, n in zip(part, mask.sum(1), strict=True)]) for part in (input_ids, mask)
    )
    with torch.no_grad():
        ours = score(model, packed, shared=True)
        assert not same(model(input_ids=left, attention_mask=seen).logits, ours)
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        assert same(model(input_ids=left, attention_mask=seen, position_ids=positions).logits, ours)


@pytest.mark.parametrize("way", ["none", "eos", "own"])
def test_any_way_a_tokenizer_pads(way: str, tiny_causal: Path, tmp_path: Path) -> None:
    folder = make("llama", tiny_causal, tmp_path / "backbone")
    given = AutoTokenizer.from_pretrained(folder, padding_side="left")
    size = len(given)
    given.pad_token = {"none": None, "eos": given.eos_token, "own": given.convert_ids_to_tokens(5)}[way]
    given.save_pretrained(folder)
    model, tokenizer = loaded(folder)
    assert tokenizer.padding_side == "right"
    assert tokenizer.pad_token_id == model.config.pad_token_id == (5 if way == "own" else size)
    assert model.get_input_embeddings().num_embeddings == (size if way == "own" else size + 1)
    export_model(model, tmp_path / "rm", adapter=False)
    tokenizer.save_pretrained(tmp_path / "rm")
    again, _ = loaded(tmp_path / "rm", new=False)
    trees = forest(size)
    packed = pack(trees, pad=int(tokenizer.pad_token_id))
    with torch.no_grad():
        assert same(score(again, packed, shared=True), alone(model, trees))


def test_a_tokenizer_of_another_model_is_refused_with_both_sizes(tiny_causal: Path, tmp_path: Path) -> None:
    folder = make("llama", tiny_causal, tmp_path / "backbone", vocab_size=200)
    with pytest.raises(RewardModelError, match=r"tokenizer has \d+ tokens, the model embeddings for 200"):
        loaded(folder)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_members_are_outputs_of_one_head_and_no_classes(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    folder = make(kind, tiny_causal, tmp_path / "backbone")
    model, tokenizer = loaded(folder, members=3)
    trees = forest(tokenizer.vocab_size)
    packed = pack(trees, pad=int(tokenizer.pad_token_id))
    export_model(model, tmp_path / "rm", adapter=False)
    tokenizer.save_pretrained(tmp_path / "rm")
    again, _ = loaded(tmp_path / "rm", new=False)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    assert getattr(plain.config, MEMBERS_KEY) == plain.config.num_labels == 3
    with torch.no_grad():
        found = score(again, packed, shared=can_share(again))
        assert found.shape == (10, 3)
        assert same(found, alone(plain, trees))
    with pytest.raises(RewardModelError, match="exactly 1 label, this is 3 labels"):
        loaded(tmp_path / "rm", new=True)
    delattr(plain.config, MEMBERS_KEY)
    plain.save_pretrained(tmp_path / "classes")
    tokenizer.save_pretrained(tmp_path / "classes")
    with pytest.raises(RewardModelError, match="exactly 1 label, this is 3 labels"):
        loaded(tmp_path / "classes", new=False)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "deberta"])
def test_scores_are_float32_in_any_precision(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    """Rounded to bfloat16 at the end, scores a thousand apart would step by four; the head's own rounding is none."""
    model, tokenizer = loaded(make(kind, tiny_causal, tmp_path / "backbone"))
    packed = pack(forest(tokenizer.vocab_size), pad=int(tokenizer.pad_token_id))
    shared = can_share(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = score(model, packed, shared=shared)
    with torch.no_grad():
        low = score(model.bfloat16(), packed, shared=shared)
    for found in (mixed, low):
        assert found.dtype == torch.float32
        assert (found != found.bfloat16().float()).any()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks by that name
@pytest.mark.parametrize("kind", ["gpt2", "llama", "pythia", "bert", "deberta", "roberta"])
def test_adapters_export_both_ways_to_the_same_scores(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    folder = make(kind, tiny_causal, tmp_path / "backbone")
    model, tokenizer = loaded(folder)
    trees = forest(tokenizer.vocab_size)
    packed = pack(trees, pad=int(tokenizer.pad_token_id))
    shared = can_share(model)
    before = score(model, packed, shared=shared).detach()
    add_lora(model, Lora(r=4, alpha=8))
    assert can_share(model) == shared == (kind in CAUSAL)
    assert torch.equal(score(model, packed, shared=shared), before)
    base = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-2)
    for _ in range(3):
        gradients(model, score(model, packed, shared=shared))
        torch.nn.utils.clip_grad_norm_(trained, 10.0)
        optimizer.step()
    assert all(torch.equal(weight, base[name]) for name, weight in model.named_parameters() if name in base)
    after = score(model, packed, shared=shared).detach()
    assert (after - before).abs().max() > 1e-2 * before.abs().max()
    for adapter in (False, True):
        to = tmp_path / f"rm {adapter}"
        export_model(model, to, adapter=adapter)
        tokenizer.save_pretrained(to)
        again, _ = loaded(to, new=False)
        with torch.no_grad():
            assert same(score(again, packed, shared=shared), after)
            assert torch.equal(score(model, packed, shared=shared), after)  # the export changed nothing
    with torch.no_grad():
        merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm False").eval()
        assert same(alone(merged, trees), after)
        adapted = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "rm True", num_labels=1).eval()
        assert same(alone(adapted, trees), after)
    assert (tmp_path / "rm True" / "adapter_model.safetensors").stat().st_size < (
        tmp_path / "rm False" / "model.safetensors"
    ).stat().st_size / 2


def test_what_adapters_refuse(tiny_causal: Path, tmp_path: Path) -> None:
    for wrong, named in (
        ({"r": 0}, "lora r"),
        ({"alpha": 0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"targets": []}, "targets"),
    ):
        with pytest.raises(RewardModelError, match=named):
            Lora(**wrong)
    model, tokenizer = loaded(tiny_causal)
    with pytest.raises(RewardModelError, match="adapter=False"):
        export_model(model, tmp_path / "rm", adapter=True)
    with pytest.raises(RewardModelError, match=r"q_proj.*c_attn, c_fc, c_proj"):
        add_lora(model, Lora(targets=["q_proj"]))
    add_lora(model, Lora(targets=["c_attn"]))
    with pytest.raises(RewardModelError, match="has them already"):
        add_lora(model, Lora())
    export_model(model, tmp_path / "rm", adapter=True)
    tokenizer.save_pretrained(tmp_path / "rm")
    config = tmp_path / "rm" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(tiny_causal), "no/such-base"))
    with pytest.raises(RewardModelError, match="no/such-base: no such model"):
        loaded(tmp_path / "rm", new=False)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "bert", "deberta", "distilbert"])
def test_frozen_layers_get_no_gradient(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(make(kind, tiny_causal, tmp_path / "backbone"))
    packed = pack(forest(tokenizer.vocab_size), pad=int(tokenizer.pad_token_id))
    found = blocks(trunk(model))
    assert found is not None
    prefix = next(name for name, part in model.named_modules() if part is found)
    freeze(model, 1)
    got = gradients(model, score(model, packed, shared=can_share(model)))
    assert not any(name.startswith(f"{prefix}.0.") for name in got)
    assert any(name.startswith(f"{prefix}.1.") for name in got)
    assert not any("embed" in name and "rel_embeddings" not in name for name in got)
    assert any(name.startswith(("score", "classifier")) for name in got)
    for wrong in (-1, len(found) + 1):
        with pytest.raises(RewardModelError, match=f"0 to {len(found)}, as many as there are, got {wrong}"):
            freeze(model, wrong)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_checkpointing_changes_no_gradient(kind: str, lora: bool, tiny_causal: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(make(kind, tiny_causal, tmp_path / "backbone", **({} if kind != "gpt2" else QUIET)))
    packed = pack(forest(tokenizer.vocab_size), pad=int(tokenizer.pad_token_id))
    shared = can_share(model)
    if lora:
        add_lora(model, Lora(r=2))
    model.train()
    expected = gradients(model, score(model, packed, shared=shared))
    calls = count_calls(model)
    checkpointing(model)
    found = gradients(model, score(model, packed, shared=shared))
    assert calls[0] == 2  # the block ran again
    assert found.keys() == expected.keys()
    assert any("lora_B" in name for name in found) == lora
    assert all(same(found[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2"])
def test_a_compiled_trunk_changes_no_gradient_and_no_export(kind: str, tiny_causal: Path, tmp_path: Path) -> None:
    """Traced with dynamic shapes, one graph for all batches; run by a backend that does not wait for a C++ compiler."""
    from torch._dynamo.utils import counters

    model, tokenizer = loaded(make(kind, tiny_causal, tmp_path / "backbone", **({} if kind != "gpt2" else QUIET)))
    batches = [pack(forest(tokenizer.vocab_size, seed, 4 + seed), pad=int(tokenizer.pad_token_id)) for seed in range(3)]
    expected = [gradients(model, score(model, batch, shared=True)) for batch in batches]
    compiled(model, backend="aot_eager")
    counters.clear()
    for batch, slopes in zip(batches, expected, strict=True):
        found = gradients(model, score(model, batch, shared=True))
        scale = max(float(slope.abs().max()) for slope in slopes.values())
        assert all((found[name] - slopes[name]).abs().max() <= 1e-5 * scale for name in slopes)
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
    export_model(model, tmp_path / "rm", adapter=False)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    assert plain.state_dict().keys() == model.state_dict().keys()


QUIET = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def count_calls(model: PreTrainedModel) -> list[int]:
    """Count how often the first linear layer of the first block runs."""
    found = blocks(trunk(model))
    assert found is not None
    layer = next(part for part in found[0].modules() if type(part).__name__ in {"Linear", "Conv1D"})
    calls = [0]

    def count(*_: object) -> None:
        calls[0] += 1

    layer.register_forward_hook(count)
    return calls


needs_bits = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


def test_four_bits_need_a_package(tiny_causal: Path) -> None:
    if importlib.util.find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(RewardModelError, match=r"bitsandbytes is not installed.*\[qlora\]"):
        loaded(tiny_causal, quantize=True)


@needs_bits
@pytest.mark.filterwarnings("ignore")
def test_adapters_on_four_bits_train_and_come_back(tiny_causal: Path, tmp_path: Path) -> None:
    folder = make("llama", tiny_causal, tmp_path / "backbone", hidden_size=64, head_dim=16, intermediate_size=128)
    model, tokenizer = loaded(folder, quantize=True)
    assert "Linear4bit" in {type(part).__name__ for part in trunk(model).modules()}
    assert type(model.score) is torch.nn.Linear
    assert can_share(model)
    packed = pack(forest(tokenizer.vocab_size), pad=int(tokenizer.pad_token_id))
    add_lora(model, Lora(r=2))
    checkpointing(model)
    model.train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    for _ in range(2):
        assert any("lora_B" in name for name in gradients(model, score(model, packed, shared=True)))
        optimizer.step()
    with pytest.raises(RewardModelError, match="adapter=True"):
        export_model(model, tmp_path / "rm", adapter=False)
    export_model(model, tmp_path / "rm", adapter=True)
    tokenizer.save_pretrained(tmp_path / "rm")
    again, _ = loaded(tmp_path / "rm", new=False)
    with torch.no_grad():
        assert same(score(again, packed, shared=True), score(model.eval(), packed, shared=True))


def test_an_attention_that_a_model_lacks_is_one_line(tiny_causal: Path) -> None:
    with pytest.raises(RewardModelError, match="attention 'no_such_attention'"):
        loaded(tiny_causal, attention="no_such_attention")


@pytest.mark.parametrize("window", [None, 5])
def test_flex_attention_sees_what_the_dense_mask_shows(window: int | None, tiny_causal: Path, tmp_path: Path) -> None:
    from torch.nn.attention.flex_attention import create_mask

    kind = "llama" if window is None else "mistral with a narrow window"
    model, _ = loaded(make(kind, tiny_causal, tmp_path / "backbone"), attention="flex_attention")
    packed = pack(forest(100), pad=0)
    found: Any = masks_for(trunk(model), packed)
    rows, length = packed.tree.shape
    dense = create_mask(found.mask_mod, rows, 1, length, length, device="cpu")
    assert torch.equal(dense, visible(packed, window=window))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU takes a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_flex_attention_gives_the_states_of_one_text_at_a_time(tiny_causal: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "head_dim": 16, "num_hidden_layers": 1}
    model, tokenizer = loaded(make("llama", tiny_causal, tmp_path / "backbone", **sizes), attention="flex_attention")
    plain, _ = loaded(tmp_path / "backbone")
    trees = forest(tokenizer.vocab_size)
    with torch.no_grad():
        assert same(score(model, pack(trees, pad=0), shared=True), alone(plain, trees))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_flex_attention_has_the_gradients_of_one_text_at_a_time(tiny_causal: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "head_dim": 16}
    model, tokenizer = loaded(make("llama", tiny_causal, tmp_path / "backbone", **sizes), attention="flex_attention")
    plain, _ = loaded(tmp_path / "backbone")
    model.cuda()
    trees = forest(tokenizer.vocab_size)
    packed = Packed(*(part.cuda() for part in pack(trees, pad=0)))
    found = gradients(model, hidden_states(trunk(model), packed).cpu())
    expected = gradients(plain, hidden_states(trunk(plain), pack(trees, pad=0)))
    assert all(same(found[name].cpu(), expected[name], share=1e-3) for name in found)


def test_the_longest_text_that_a_roberta_reads_is_shorter_than_its_table() -> None:
    from transformers import RobertaConfig, RobertaModel

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(vocab_size=20, max_position_embeddings=18, pad_token_id=1, **sizes)
    longest = window(config)
    assert longest == 16
    model = RobertaModel(config)
    assert model(input_ids=torch.full((1, longest), 5)).last_hidden_state.shape == (1, 16, 8)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))
