"""temporary"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lora:
    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"


def add_lora(model, lora):
    raise NotImplementedError


def freeze(model, layers):
    raise NotImplementedError


def checkpointing(model):
    raise NotImplementedError


def compiled(model):
    raise NotImplementedError


def export_model(model, folder, *, adapter):
    model.save_pretrained(folder)
