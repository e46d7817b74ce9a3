"""Adapters on a policy: what is trained is small, and the start is the same model with its adapters off."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rm_lightning.adapters import Lora, add_lora

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel


def add_adapters(model: PreTrainedModel, rank: int) -> None:
    """Give a causal model low-rank adapters, in place, on every linear layer of its trunk; nothing else is trained.

    They change nothing as long as they are new (Hu et al. 2021, arXiv 2106.09685, section 4.1; alpha = 2 rank).
    """
    add_lora(model, Lora(r=rank, alpha=2.0 * rank))
    for name, weight in model.named_parameters():
        weight.requires_grad_(".lora_" in name)


@contextmanager
def without_adapters(model: PreTrainedModel) -> Iterator[None]:
    """Run a model as if it had no adapters; one that has none is left alone."""
    layers: list[Any] = [part for part in model.modules() if hasattr(part, "lora_A") and hasattr(part, "base_layer")]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)
