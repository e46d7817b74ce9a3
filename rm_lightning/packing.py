"""Answers that share their prompt, read in one run of it, in rows without padding to speak of.

A tree is a prompt and its answers. Its tokens stand in a row one after the other, prompt first; each answer sees the prompt and
itself, and counts its positions from the prompt's end:

    tokens      p0 p1 p2 | a0 a1 | b0 b1 b2      of one tree; other trees follow in the same row and see nothing of it
    positions    0  1  2 |  3  4 |  3  4  5
    branch       0  0  0 |  1  1 |  2  2  2

So every token has the hidden state that it would have alone, and the prompt is computed once. Rows have the length of the longest
tree; shorter trees share a row, longest first, each where it leaves the least room (best-fit decreasing; Johnson 1973).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rm_lightning.masks import masks_for
from rm_lightning.parts import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

NOBODY = -1
"""The tree of a padding token."""


class Tree(NamedTuple):
    """A prompt and its answers as token ids; an answer has one token at least."""

    prompt: list[int]
    answers: list[list[int]]

    def __len__(self) -> int:  # tokens, not fields
        return len(self.prompt) + sum(map(len, self.answers))


class Packed(NamedTuple):
    """R rows of L tokens that hold some trees, with N answers in all.

    | field | shape | |
    |---|---|---|
    | input_ids | (R, L) | |
    | position_ids | (R, L) | as if each answer stood alone behind its prompt |
    | tree | (R, L) | number of the token's tree, `NOBODY` for padding |
    | branch | (R, L) | 0 in a prompt, k in its k-th answer |
    | ends | (N,) | where in the flattened rows each answer ends, in the order of the trees and of their answers |
    """

    input_ids: Tensor
    position_ids: Tensor
    tree: Tensor
    branch: Tensor
    ends: Tensor

    @property
    def real(self) -> Tensor:
        """Share of the tokens that are no padding, ()."""
        return (self.tree != NOBODY).float().mean()


def pack(trees: Sequence[Tree], *, pad: int) -> Packed:
    """Lay trees out in rows.

    Args:
        trees: at least one.
        pad: the token id of what is left over.
    """
    rows, places = _fit([len(tree) for tree in trees])
    length = max(len(tree) for tree in trees)
    input_ids = torch.full((rows, length), pad)
    position_ids, branch = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
    owner = torch.full_like(input_ids, NOBODY)
    ends: list[int] = []
    for number, (tree, (row, start)) in enumerate(zip(trees, places, strict=True)):
        stop = start + len(tree)
        input_ids[row, start:stop] = torch.tensor(
            [*tree.prompt, *(token for answer in tree.answers for token in answer)]
        )
        owner[row, start:stop] = number
        position_ids[row, start : start + len(tree.prompt)] = torch.arange(len(tree.prompt))
        at = start + len(tree.prompt)
        for place, answer in enumerate(tree.answers, start=1):
            position_ids[row, at : at + len(answer)] = torch.arange(len(answer)) + len(tree.prompt)
            branch[row, at : at + len(answer)] = place
            at += len(answer)
            ends.append(row * length + at - 1)
    return Packed(input_ids, position_ids, owner, branch, torch.tensor(ends))


def hidden_states(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Give the hidden state of each answer's last token, (N, H), from a causal backbone without its head.

    `packed.ends` may name any tokens, also one several times.
    """
    with _last_block_at(model, packed.ends.unique()):  # type: ignore[no-untyped-call]
        out = model(
            input_ids=packed.input_ids,
            attention_mask=masks_for(model, packed),
            position_ids=packed.position_ids,
            use_cache=False,
        ).last_hidden_state  # (R, L, H)
    return out.flatten(0, 1)[packed.ends]  # type: ignore[no-any-return]


@contextmanager
def _last_block_at(model: PreTrainedModel, ends: Tensor) -> Iterator[None]:
    """Run the last block's feed-forward layer only where something is read: it looks at one token at a time.

    Args:
        model: a backbone without its head.
        ends: (N,) in the flattened rows, each once; elsewhere the layer gives zeros.
    """
    last: Any = (blocks(model) or [None])[-1]
    mlp: Any = getattr(last, "mlp", None)
    # a checkpointed block runs a second time in the backward pass, when this is over; a compiled one is not to be changed
    again = getattr(last, "gradient_checkpointing", False) or model._compiled_call_impl is not None  # noqa: SLF001
    if mlp is None or again:
        yield
        return
    before = vars(mlp).get("forward")
    whole = mlp.forward

    def forward(hidden: Tensor) -> Tensor:  # (R, L, H)
        some: Tensor = whole(hidden.flatten(0, 1)[None, ends])[0]  # (N, H)
        full = some.new_zeros(hidden.shape[0] * hidden.shape[1], some.shape[1])
        return full.index_copy(0, ends, some).view(*hidden.shape[:2], -1)

    mlp.forward = forward
    try:
        yield
    finally:
        if before is None:
            del mlp.forward
        else:
            mlp.forward = before


def unfold(packed: Packed, *, pad: int) -> tuple[Tensor, Tensor]:
    """Give each answer behind a prompt of its own again, as encoders need it: (input_ids, attention_mask), both (N, T)."""
    tree, branch, tokens = (part.flatten() for part in (packed.tree, packed.branch, packed.input_ids))
    texts = []
    for end in packed.ends.tolist():
        own = (tree == tree[end]) & ((branch == 0) | (branch == branch[end]))
        texts.append(tokens[own])
    input_ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(text) for text in texts], device=input_ids.device)
    mask = torch.arange(input_ids.shape[1], device=input_ids.device) < lengths[:, None]
    return input_ids, mask.long()


@torch.no_grad()
def can_branch(model: PreTrainedModel, *, tolerance: float = 1e-3) -> bool:
    """Find out whether a backbone reads trees as it reads texts: encoders and recurrent layers do not.

    It must be causal: another last token changes nothing before it. And three made trees, read both ways, must come out alike:
    with what a backbone ignores or refuses, the two differ by far more than rounding. A sliding window is tried out at three
    tokens, as its own length may be thousands.

    Args:
        model: without its head.
        tolerance: largest difference, as a share of the largest hidden state.
    """
    trees = [Tree([1, 2, 3, 2], [[1, 3], [2, 2, 1]]), Tree([2], [[3, 1, 1]]), Tree([], [[1, 2], [3]])]
    if any(isinstance(getattr(model.config, name, None), int) for name in LOCAL):
        return False
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    try:
        with _narrow(model.config):
            one, other = (_states(model, [1, 2, last]) for last in (1, 2))
            if (one[0] - other[0]).abs().max() > 1e-6 * one.abs().max():
                return False
            packed = hidden_states(model, Packed(*(part.to(model.device) for part in pack(trees, pad=0))))
            alone = [_states(model, tree.prompt + answer)[-1] for tree in trees for answer in tree.answers]
    except (
        AttributeError,
        TypeError,
        ValueError,
        RuntimeError,
        IndexError,
    ):  # a mask or positions that this architecture does not take
        return False
    finally:
        model.train(training)
    expected = torch.stack(alone).float()
    return bool((packed.float() - expected).abs().max() <= tolerance * expected.abs().max())


LOCAL = ("window_size", "attention_window", "attention_chunk_size")
"""Config keys of attention that looks at places in the row, not at positions; too long to be tried out."""


def _states(model: PreTrainedModel, text: list[int]) -> Tensor:
    """Read one text alone: (T, H)."""
    states: Tensor = model(input_ids=torch.tensor([text], device=model.device)).last_hidden_state[0]
    return states


@contextmanager
def _narrow(config: PreTrainedConfig) -> Iterator[None]:
    """Make a sliding window so narrow that few tokens show what it does."""
    window = getattr(config, "sliding_window", None)
    if window is None:
        yield
        return
    config.sliding_window = min(window, 3)
    try:
        yield
    finally:
        config.sliding_window = window


def _fit(sizes: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """Give each size a (row, start) in rows as long as the largest; also how many rows there are."""
    capacity = max(sizes)
    used: list[int] = []
    places = [(0, 0)] * len(sizes)
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        fitting = [row for row, filled in enumerate(used) if filled + sizes[number] <= capacity]
        if not fitting:
            used.append(0)
        row = max(fitting, key=lambda row: used[row]) if fitting else len(used) - 1
        places[number] = (row, used[row])
        used[row] += sizes[number]
    return len(used), places
