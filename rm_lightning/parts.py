"""The parts of a classifier as transformers builds it: the trunk that reads, its blocks, and the head that scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def trunk(model: PreTrainedModel) -> PreTrainedModel:
    """Give the backbone without its head."""
    found: Any = model.base_model
    return found  # type: ignore[no-any-return]


def heads(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Give what a classifier has beside its trunk, by name: one linear layer, or a pooler and a classifier."""
    return {name: part for name, part in model.named_children() if part is not model.base_model}


def reads_last(model: PreTrainedModel) -> bool:
    """Say whether the head is one linear layer on the last token, as causal classifiers have it; encoders pool."""
    return isinstance(getattr(model, "score", None), nn.Linear)


def blocks(backbone: PreTrainedModel) -> nn.ModuleList | None:
    """Give a backbone's transformer blocks in their order; None where they are not one list of `num_hidden_layers`."""
    count = getattr(backbone.config, "num_hidden_layers", None)
    for part in backbone.modules():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return part
    return None


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Keep the embeddings and the first `layers` blocks as they are: their weights get no gradient.

    Args:
        model: from `load_scorer`.
        layers: 0 keeps the embeddings only.

    Raises:
        RewardModelError: the model has fewer blocks, or none that can be told apart.
    """
    backbone = trunk(model)
    found = blocks(backbone)
    if found is None:
        raise RewardModelError(
            f"{type(backbone).__name__}: expected a list of {getattr(backbone.config, 'num_hidden_layers', '?')} blocks to "
            "freeze some of, found none; train it whole"
        )
    if not 0 <= layers <= len(found):
        raise RewardModelError(f"layers to freeze: expected 0 to {len(found)}, as many as there are, got {layers}")
    inside = set(found.modules())
    tables = [part for part in backbone.modules() if isinstance(part, nn.Embedding) and part not in inside]
    # an encoder's embeddings are a module with a norm of their own: everything beside the tables that holds no block
    around = [part for part in backbone.modules() if any(table in part.children() for table in tables)]
    whole = [part for part in around if not inside & set(part.modules())]
    for part in (*tables, *whole, *found[:layers]):
        part.requires_grad_(requires_grad=False)
