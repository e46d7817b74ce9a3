"""Who sees whom in packed rows, in the form that a backbone's attention takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

    from rm_lightning.packing import Packed

    Mask = Tensor | BlockMask

PIECES = "rlhf_pieces"
"""Attribute of a mask: the masks of its runs of one tree each, (1, 1, n, n), in the order of the flattened rows."""

WORTH = 128**2
"""Scores that a piece must spare to be worth a call of its own (measured on two cores: short texts are faster in whole rows)."""


def visible(packed: Packed, *, window: int | None = None) -> Tensor:
    """Say who sees whom: token q sees token k when k comes no later, both are of one tree, and k is of the prompt or q's answer.

    A padding token sees the padding before it and itself, so that no row of a softmax is empty.

    Args:
        packed: R rows of L tokens.
        window: of a sliding attention: k is fewer than so many positions before q.

    Returns:
        (R, 1, L, L), True where the row's token sees the column's.
    """
    same = packed.tree[:, :, None] == packed.tree[:, None, :]  # (R, L, L)
    shared = packed.branch[:, None, :] == 0
    own = packed.branch[:, :, None] == packed.branch[:, None, :]
    length = packed.tree.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=packed.tree.device).tril()
    seen = same & (shared | own) & earlier
    if window is not None:
        seen &= packed.position_ids[:, :, None] - packed.position_ids[:, None, :] < window
    return seen[:, None]


def masks_for(model: PreTrainedModel, packed: Packed) -> Mask | dict[str, Mask]:
    """Give the mask that a backbone takes, or one for each kind of its layers.

    Raises:
        ValueError: it has layers that see neither everything nor a sliding window.
    """
    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:
        return _mask(model, packed, window)
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(f"layers of kind {', '.join(sorted(unknown))}")
    made = {kind: _mask(model, packed, window if kind == "sliding_attention" else None) for kind in sorted(kinds)}
    return made if "sliding_attention" in made else made["full_attention"]


def _mask(model: PreTrainedModel, packed: Packed, window: int | None) -> Mask:
    attention = model.config._attn_implementation  # noqa: SLF001 - there is no public name for it
    if attention == "flex_attention":
        return _blocks(packed, window)
    mask = visible(packed, window=window)
    if attention != "sdpa":  # others add the mask to the scores
        return torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    if mask.device.type == "cpu" and model._compiled_call_impl is None:  # noqa: SLF001 - compiled once, not for every batch
        pieces = _pieces(mask, packed)
        spared = mask.numel() - sum(piece.numel() for piece in pieces)
        if spared > len(pieces) * WORTH:
            setattr(mask, PIECES, pieces)
    return mask


def _blocks(packed: Packed, window: int | None) -> BlockMask:
    """Give the mask as FlexAttention takes it: blocks that nobody sees are skipped (Dong et al. 2024, arXiv:2412.05496)."""
    from torch.nn.attention.flex_attention import create_block_mask

    tree, branch, position = packed.tree, packed.branch, packed.position_ids

    def seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = tree[row, query] == tree[row, key]
        along = (branch[row, key] == 0) | (branch[row, query] == branch[row, key])
        allowed = same & along & (key <= query)
        return allowed if window is None else allowed & (position[row, query] - position[row, key] < window)

    rows, length = tree.shape
    return create_block_mask(seen, rows, None, length, length, device=tree.device)


def _pieces(mask: Tensor, packed: Packed) -> list[Tensor]:
    """Cut a mask into the runs of one tree each; what lies outside of them is False."""
    rows, length = packed.tree.shape
    row = torch.arange(rows)[:, None] * (int(packed.tree.max()) + 2)
    _, counts = torch.unique_consecutive((packed.tree + row).flatten(), return_counts=True)
    found, at = [], 0
    for count in counts.tolist():
        line, start = divmod(at, length)
        found.append(mask[line : line + 1, :, start : start + count, start : start + count])
        at += count
    return found


def _by_tree(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **more: Any,  # noqa: ANN401 - passed on
) -> tuple[Tensor, Any]:
    """Attend within each tree where the mask says which they are: half the work of whole rows on a CPU.

    Args:
        module: the attention layer.
        query: (R, heads, L, D), and key and value alike.
        key: see above.
        value: see above.
        attention_mask: from `masks_for`, or any other.
        more: what transformers hands its attention functions.

    Returns:
        (R, L, heads, D) and None.
    """
    pieces: list[Tensor] | None = getattr(attention_mask, PIECES, None)
    if pieces is None or more.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    rows, _, length, _ = query.shape
    sizes = [piece.shape[2] for piece in pieces]
    # split, not slices: the gradients of slices are each as large as the whole
    parts = [
        part.transpose(0, 1).reshape(1, part.shape[1], rows * length, part.shape[3]).split(sizes, dim=2)  # type: ignore[no-untyped-call]
        for part in (query, key, value)
    ]
    attended = [
        sdpa_attention_forward(module, q, k, v, piece, **more)[0]  # (1, n, heads, D)
        for q, k, v, piece in zip(*parts, pieces, strict=True)
    ]
    out = torch.cat(attended, dim=1)
    return out.view(rows, length, *out.shape[2:]), None


AttentionInterface.register("sdpa", _by_tree)  # other masks, and other models, go to transformers' own function
