"""What is used when no model or data is named: the demo world, made on this machine at the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def default_backbone() -> str:
    """Path of the demo world's base model."""
    from demo_world.base import base_model

    return str(base_model())


def default_pairs(seed: int) -> Path:
    """Path of the demo world's pairs, labelled by simulated annotators."""
    from demo_world.pairs import default_pairs as demo_pairs

    return demo_pairs(seed)
