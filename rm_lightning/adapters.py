"""Less to train and less to keep: low-rank adapters by peft, recomputed activations, a compiled trunk, and the export of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from lsplugin.files import read_json, write_json
from rm_lightning.errors import RewardModelError
from rm_lightning.parts import heads, trunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import LoraConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
"""What peft writes before the name of every weight in a file."""


@dataclass(frozen=True)
class Lora:
    """A low-rank change of linear layers: W + alpha / r * B A (Hu et al. 2021, arXiv:2106.09685, section 4.1).

    Args:
        r: rank of A and B.
        alpha: how strongly the change counts.
        dropout: share of A's inputs that are left out in training.
        targets: names of the layers, or "all-linear" for every linear layer of the trunk.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        if self.r < 1:
            raise RewardModelError(f"lora r: expected a rank of 1 or more, got {self.r}")
        if not self.alpha > 0:
            raise RewardModelError(f"lora alpha: expected a number above 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise RewardModelError(f"lora dropout: expected a share from 0 to below 1, got {self.dropout}")
        if not self.targets:
            raise RewardModelError('lora targets: expected names of layers or "all-linear", got nothing')


def add_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Give a model's trunk adapters, in place: they and the head are trained, everything else stays as it is.

    Args:
        model: from `load_scorer`.
        lora: the adapters; with them new, every score is what it was.

    Raises:
        RewardModelError: the model has no such layers, or has adapters already.
    """
    peft = _peft()
    if _layers(model):
        raise RewardModelError("add_lora: expected a model without adapters, this one has them already; load its base")
    targets = [lora.targets] if isinstance(lora.targets, str) and lora.targets != "all-linear" else lora.targets
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=rf"({'|'.join(heads(model))})(\..*)?",
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),  # GPT-2 keeps its weights transposed
        base_model_name_or_path=model.name_or_path,
    )
    try:
        _inject(model, config)
    except ValueError as error:
        linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part)})
        raise RewardModelError(
            f"lora targets {lora.targets}: no layer can take an adapter by this name; the linear layers are called "
            f"{', '.join(linear)} ({str(error).splitlines()[0][:120]})"
        ) from None


def checkpointing(model: PreTrainedModel) -> None:
    """Keep only each block's input and compute the rest again in the backward pass: less memory, a third more time.

    Non-reentrant, so that gradients also reach adapters behind a frozen embedding (Chen et al. 2016, arXiv:1604.06174).
    """
    if not model.supports_gradient_checkpointing:
        raise RewardModelError(
            f"{type(model).__name__}: cannot recompute its activations; train it without checkpointing"
        )
    # transformers 5.23 has a new name for it, and warns of the old one
    enable: Any = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def compiled(model: PreTrainedModel, *, backend: str = "inductor") -> None:
    """Compile a model's trunk in place, once for all batch shapes; names of weights and exports stay as they are.

    Args:
        model: from `load_scorer`, after `can_share` and `add_lora`.
        backend: of torch.compile; the default takes a C++ compiler on a CPU, and about a minute.
    """
    trunk(model).compile(dynamic=True, backend=backend)


def export_model(model: PreTrainedModel, folder: Path, *, adapter: bool) -> None:
    """Write a model as plain code loads it; training can go on.

    Args:
        model: from `load_scorer`, with or without adapters.
        folder: where to; the tokenizer is the caller's to save.
        adapter: write adapters and head alone, as peft does, to be put on the base model again. Otherwise the whole model
            with the adapters added to its weights.

    Raises:
        RewardModelError: there are no adapters to write, or they cannot be added to weights of 4 bits.
    """
    if adapter:
        _export_adapter(model, folder)
    elif getattr(model, "is_loaded_in_4bit", False):
        raise RewardModelError(
            "export: the weights are held in 4 bits, so the whole model could be written with a loss only; "
            "export with adapter=True"
        )
    else:
        model.save_pretrained(folder, state_dict=dict(merged_weights(model)))


def base_of(name: str) -> str | None:
    """Name the base model of a folder with an adapter; None for anything else."""
    path = Path(name) / CONFIG_FILE
    return str(read_json(path)["base_model_name_or_path"]) if path.is_file() else None


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put what `export_model` wrote with adapter=True on a base model with a new head."""
    peft = _peft()
    config = peft.LoraConfig.from_pretrained(str(folder))
    config.modules_to_save, config.inference_mode = None, False  # the head is read below
    _inject(model, config)
    weights = {name.removeprefix(_PREFIX): weight for name, weight in load_file(folder / WEIGHTS_FILE).items()}
    found = peft.set_peft_model_state_dict(model, {name: w for name, w in weights.items() if ".lora_" in name})
    rest = {name: weight for name, weight in weights.items() if ".lora_" not in name}
    lost = [*found.unexpected_keys, *model.load_state_dict(rest, strict=False).unexpected_keys]
    if lost:
        raise RewardModelError(
            f"{folder}: the adapter is not one of {model.name_or_path}, which has no {lost[0]}; name the base it was made for"
        )


def _inject(model: PreTrainedModel, config: LoraConfig) -> None:
    _peft().inject_adapter_in_model(config, model)
    trained = {id(weight) for part in heads(model).values() for weight in part.parameters()}
    for name, weight in model.named_parameters():
        weight.requires_grad_(".lora_" in name or id(weight) in trained)


def _export_adapter(model: PreTrainedModel, folder: Path) -> None:
    peft = _peft()
    if not _layers(model):
        raise RewardModelError("export: expected a model with adapters, this one has none; export with adapter=False")
    folder.mkdir(parents=True, exist_ok=True)
    head = {name for name, part in heads(model).items() if any(True for _ in part.parameters())}
    weights = dict(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    weights |= {name: weight for name, weight in model.state_dict().items() if name.partition(".")[0] in head}
    plain = {_PREFIX + name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(plain, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config: Any = model.peft_config["default"]
    written = config.to_dict() | {"modules_to_save": sorted(head), "inference_mode": True}
    write_json(folder / CONFIG_FILE, json.loads(json.dumps(written, default=_as_json)))
    described = model.config.to_dict()
    described.pop("quantization_config", None)  # of the base as it was loaded; its files are not in 4 bits
    described["architectures"] = [type(model).__name__]
    write_json(folder / "config.json", json.loads(json.dumps(described, default=str)))


def _as_json(value: object) -> object:
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", str(value))


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Give the weights as if there had never been adapters: W + alpha / r * B A."""
    layers = _layers(model)
    for name, weight in model.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        owner, _, kind = plain.rpartition(".")
        if owner in layers and kind == "weight":
            layer: Any = layers[owner]
            yield plain, weight + layer.get_delta_weight("default").to(weight)
        else:
            yield plain, weight


def _layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Give the layers that have adapters, by name."""
    return {
        name: part for name, part in model.named_modules() if hasattr(part, "lora_A") and hasattr(part, "base_layer")
    }


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, torch.nn.Linear | Conv1D)


def _peft() -> Any:  # noqa: ANN401 - a module
    """Import peft for those who need it: it takes a second."""
    import peft

    return peft
