"""Trees of answers, packed into rows: the very scores and gradients of one text at a time."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertModel,
    BloomConfig,
    BloomModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
)

from rm_lightning.backbone import can_share, load_scorer, load_tokenizer, score
from rm_lightning.masks import visible
from rm_lightning.packing import Tree, can_branch, hidden_states, pack

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

VOCABULARY = 50


def gpt2(**more: Any) -> GPT2Model:
    torch.manual_seed(0)
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=32, n_layer=3, n_head=4, **quiet, **more)
    return GPT2Model(config)


def llama(**more: Any) -> LlamaModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, max_position_embeddings=128, **sizes, **more)
    return LlamaModel(config)


def trees(seed: int, count: int = 7) -> list[Tree]:
    rng = random.Random(seed)

    def tokens(low: int, high: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(low, high))]

    return [Tree(tokens(0, 20), [tokens(1, 15) for _ in range(rng.choice([1, 2, 2, 4]))]) for _ in range(count)]


def alone(model: PreTrainedModel, forest: list[Tree]) -> torch.Tensor:
    """One text at a time, as plain transformers reads it; (N, H)."""
    texts = [tree.prompt + answer for tree in forest for answer in tree.answers]
    return torch.stack([model(input_ids=torch.tensor([text])).last_hidden_state[0, -1] for text in texts])


def test_rows_worked_by_hand() -> None:
    packed = pack([Tree([1, 2], [[3], [4, 5]]), Tree([6], [[7, 8], [9]]), Tree([10], [[11]])], pad=0)
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 0], [10, 11, 0, 0, 0]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 1, 0], [0, 1, 0, 0, 0]]
    assert packed.branch.tolist() == [[0, 0, 1, 2, 2], [0, 1, 1, 2, 0], [0, 1, 0, 0, 0]]
    assert packed.ends.tolist() == [2, 4, 7, 8, 11]
    assert packed.real.item() == pytest.approx(11 / 15)
    assert visible(packed)[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_every_token_has_a_place_of_its_own(sizes: list[int]) -> None:
    forest = [Tree(list(range(size // 2)), [list(range(size - size // 2))]) for size in sizes]
    packed = pack(forest, pad=99)
    assert packed.input_ids.shape[1] == max(sizes)
    assert int((packed.tree >= 0).sum()) == sum(sizes)
    assert [int((packed.tree == number).sum()) for number in range(len(sizes))] == sizes
    assert packed.input_ids.shape[0] <= 1 + 2 * sum(sizes) / max(sizes)  # no two rows could have been one


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("seed", range(3))
def test_hidden_states_and_gradients_are_those_of_one_text_at_a_time(make: Any, attention: str, seed: int) -> None:
    forest = trees(seed)
    model = make(attn_implementation=attention)
    found, expected = hidden_states(model, pack(forest, pad=0)), alone(model, forest)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    gradients = []
    for states in (found, expected):
        model.zero_grad()
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() <= 1e-5 * gradients[1][name].abs().max() + 1e-7, name


@pytest.mark.data
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_real_texts_of_a_real_model_packed_and_one_at_a_time(real_data: Path, precision: torch.dtype) -> None:
    """A Llama that was trained, real dialogues cut at random, against plain transformers padded on either side.

    Errors of scores and of each weight's gradient, as norms; in float64 Llama's own norms still compute in float32.
    """
    name = str(real_data / "models" / "stories260k-hf")
    tokenizer = load_tokenizer(name)
    torch.manual_seed(0)
    model = load_scorer(name, tokenizer, new=True).to(precision).eval()
    torch.nn.init.normal_(model.score.weight)
    pad = int(tokenizer.pad_token_id)
    rng = random.Random(0)
    with gzip.open(real_data / "prefs" / "hh-rlhf" / "harmless-base.test.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = [json.loads(line)["chosen"] for line in itertools.islice(stream, 40)]

    def tokens() -> list[int]:
        ids: list[int] = tokenizer(rng.choice(lines), add_special_tokens=False).input_ids
        start = rng.randrange(len(ids))
        return ids[start : start + rng.randint(1, 60)]

    forest = [Tree(tokens(), [tokens(), tokens()]) for _ in range(8)]
    assert can_share(model)
    found = slopes(model, score(model, pack(forest, pad=pad), shared=True))
    texts = [torch.tensor(tree.prompt + answer) for tree in forest for answer in tree.answers]
    others = [slopes(model, torch.cat([model(input_ids=text[None]).logits for text in texts]))]
    for side in ("right", "left"):
        rows, mask = (
            torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=fill, padding_side=side)
            for part, fill in ((texts, pad), ([torch.ones_like(text) for text in texts], 0))
        )
        others.append(slopes(model, model(input_ids=rows, attention_mask=mask).logits))
    for other in others:
        assert found.keys() == other.keys()
        errors = {part: (found[part] - value).norm() / value.norm() for part, value in other.items()}
        assert max(errors.values()) <= 1e-5


def slopes(model: PreTrainedModel, scores: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores and the gradients of their sum."""
    model.zero_grad()
    scores.sum().backward()
    made = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return made | {"scores": scores.detach()}


def test_which_backbones_can_branch() -> None:
    assert can_branch(gpt2())
    assert can_branch(llama())
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    assert not can_branch(BertModel(BertConfig(vocab_size=VOCABULARY, **sizes)))
    narrow = MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=3, **sizes)
    assert can_branch(MistralModel(narrow))  # by positions
    assert narrow.sliding_window == 3
    bloom = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    assert not can_branch(BloomModel(bloom))  # its distances are those of the row


def test_a_window_longer_than_any_trial_still_counts() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = MistralModel(MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=20, **sizes)).eval()
    forest = [Tree(list(range(30)), [[1, 2, 3], [4, 5]]), Tree([7], [[8], [9, 10]])]
    found, expected = hidden_states(model, pack(forest, pad=0)), alone(model, forest)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    model.config.sliding_window = 1000
    assert (alone(model, forest) - expected).abs().max() > 1e-3 * expected.abs().max()


def test_the_last_block_is_left_as_it_was() -> None:
    model = gpt2()
    hidden_states(model, pack(trees(0), pad=0))
    assert "forward" not in vars(model.h[-1].mlp)
