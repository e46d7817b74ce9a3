"""Trees of answers, packed into rows: the very scores and gradients of one text at a time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
)

from rm_lightning.packing import Tree, can_branch, hidden_states, pack, visible

if TYPE_CHECKING:
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


def test_which_backbones_can_branch() -> None:
    assert can_branch(gpt2())
    assert can_branch(llama())
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    assert not can_branch(BertModel(BertConfig(vocab_size=VOCABULARY, **sizes)))
    narrow = MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=3, **sizes)
    assert not can_branch(MistralModel(narrow))
