"""After the training: the best checkpoint is tested on prompts that chose nothing, exported, and told about."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors import SafetensorError

from lsplugin import console
from lsplugin.files import atomic_folder, write_json, write_text
from lsplugin.preferences import write_pairs
from rm_lightning.adapters import Lora
from rm_lightning.callbacks import Best, History
from rm_lightning.card import model_card
from rm_lightning.data import PARTS
from rm_lightning.errors import RewardModelError
from rm_lightning.metrics import Observations, summarise
from rm_lightning.module import RewardModel
from rm_lightning.report import Record, floor_warning, leak_warning, read_ceiling, write_report
from rm_lightning.sources import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lightning as L

    from rm_lightning.data import PreferenceData

MARKER = "metrics.json"
"""The file that says a folder is an earlier export, which may be replaced."""

WORST = 20
"""Pairs in the report that the model ranks most wrongly."""

VERSIONS = ("torch", "transformers", "lightning", "peft")


def finish(trainer: L.Trainer, data: PreferenceData, output: Path, *, ceiling: Path | None = None) -> None:
    """Test the best checkpoint and write the folder of the finished model; every process takes part, the first one writes.

    Args:
        trainer: after its fit.
        data: what it was fitted on.
        output: the folder; an earlier export there is replaced when the new one is whole.
        ceiling: report.json of `lsplugin report`.
    """
    module = trainer.lightning_module
    assert isinstance(module, RewardModel)
    best = _best(trainer)
    part = "test" if data.has("test") else "validation" if data.has("validation") else None
    observed = _measured(trainer, module, data, best, part)
    if not trainer.is_global_zero:
        return
    history = next((callback.rows for callback in trainer.callbacks if isinstance(callback, History)), [])  # type: ignore[attr-defined]
    metrics = _metrics(observed, data, part)
    limit = read_ceiling(ceiling) if ceiling is not None else None
    record = Record(
        title=output.name,
        metrics=metrics,
        history=history,
        ceiling=limit,
        data=_accounted(data),
        settings=_settings(module, trainer),
        worst=_worst(observed, data, part) if part is not None else [],
    )
    exported = _alone(module, best) if module.is_spread else module
    with _room_for(output), atomic_folder(output, marker=MARKER) as folder:
        exported.export(folder)
        write_json(
            folder / MARKER,
            {**metrics, "ceiling": limit, "fingerprint": _fingerprint(data), "settings": record.settings},
        )
        write_json(folder / "history.json", history)
        if data.has("test"):
            write_pairs(folder / "test_pairs.jsonl", data.test_rows())
        write_report(folder / "report.html", record)
        name = module.hparams["backbone"] or "the demo world's base model"
        card = model_card(
            record, name=output.name, base=Path(name).name if Path(name).is_dir() else name, join=module.join,
            fingerprint=_fingerprint(data), library_versions={package: version(package) for package in VERSIONS},
        )  # fmt: skip
        write_text(folder / "README.md", card)
    _tell(metrics, part, limit, output)


@contextmanager
def _room_for(output: Path) -> Iterator[None]:
    """Say in a line that a disk is full, which safetensors and torch tell in their own ways."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RewardModelError(
            f"{output}: the model cannot be written ({str(error).splitlines()[0]}); an earlier one there is as it was. "
            "Make room and give the same command again: it goes on with the export"
        ) from None


def _best(trainer: L.Trainer) -> str:
    found: list[object] = [callback for callback in trainer.callbacks if isinstance(callback, Best)]  # type: ignore[attr-defined]
    callback = next(iter(found), trainer.checkpoint_callback)
    if not isinstance(callback, ModelCheckpoint) or not callback.best_model_path:
        raise RewardModelError("no checkpoint was kept, so nothing can be exported: leave --best.save_top_k at 1")
    return callback.best_model_path


def _measured(
    trainer: L.Trainer, module: RewardModel, data: PreferenceData, best: str, part: str | None
) -> Observations:
    """Measure the best checkpoint on the part that is most independent; its weights are in the module then.

    Where nothing was held out, nothing is observed.
    """
    if part is None or module.is_spread:
        restore(module, weights_of(best))
    if part is None:
        return Observations(*(torch.empty(0, dtype=torch.float64) for _ in range(4)), *torch.empty(2, 0).long())
    measure = trainer.test if part == "test" else trainer.validate
    path = None if module.is_spread else best
    measure(module, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
    return module.observed["testing" if part == "test" else "validation"]


def restore(module: RewardModel, weights: dict[str, Any]) -> None:
    """Load whole weights into a module, also where it is spread over processes; each of them calls it."""
    if not module.is_spread:
        module.load_state_dict(weights)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(module, weights, options=StateDictOptions(full_state_dict=True))


def weights_of(checkpoint: str) -> dict[str, Any]:
    """Read the weights of a checkpoint, on the CPU; one that was written in parts is put together."""
    if Path(checkpoint).is_dir():
        from lightning.fabric.utilities.load import _load_distributed_checkpoint

        return dict(_load_distributed_checkpoint(Path(checkpoint))["state_dict"])
    return dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])


def _alone(module: RewardModel, best: str) -> RewardModel:
    """Make the module anew in this process alone, with the best checkpoint's weights: what was spread out is whole."""
    lora = module.hparams["lora"]
    whole = RewardModel(**{**module.hparams, "lora": Lora(**lora) if lora else None})
    whole.load_state_dict(weights_of(best))
    return whole


def _metrics(observed: Observations, data: PreferenceData, part: str | None) -> dict[str, Any]:
    return {
        **summarise(observed),
        "measured_on": part,
        "counts": {**data.counts},
        "notes": {**data.notes},
        "seed": data.seed,
        "test_up_to": data.test_up_to,
    }


def _accounted(data: PreferenceData) -> dict[str, Any]:
    """Say where every preference went: in = used + dropped."""
    used = {name: data.counts[name] for name in PARTS if data.has(name)}
    dropped = {name.removeprefix("dropped: "): n for name, n in data.counts.items() if name.startswith("dropped: ")}
    return {"in": data.counts["pairs"], "used": used, "dropped": dropped}


def _worst(observed: Observations, data: PreferenceData, part: str) -> list[dict[str, Any]]:
    """Give the comparisons that the model gets most wrong, for a person to read."""
    wrong = (observed.difference * (observed.probability - 0.5).sign()).argsort()[:WORST].tolist()
    return [
        {
            **data.describe(part, int(observed.row[place])),
            "difference": float(observed.difference[place]),
            "probability": float(observed.probability[place]),
        }
        for place in wrong
        if observed.difference[place] * (observed.probability[place] - 0.5) < 0
    ]


def _settings(module: RewardModel, trainer: L.Trainer) -> dict[str, Any]:
    told = {"precision": trainer.precision, "processes": trainer.world_size, "steps": trainer.global_step}
    return {**{f"model.{name}": value for name, value in module.hparams.items()}, **told}


def _fingerprint(data: PreferenceData) -> str:
    return fingerprint([file for part in sorted(data.files) for file in data.files[part]])


def _tell(metrics: dict[str, Any], part: str | None, limit: dict[str, Any] | None, output: Path) -> None:
    if part is None:
        console.say(
            "no prompts were held out (--data.validation 0 and --data.test 0), so no accuracy can be told; the last "
            "checkpoint is exported"
        )
    elif metrics["accuracy"] is not None:
        low, high = metrics["accuracy_interval"]
        held = "held-out" if part == "test" else "validation (it chose the checkpoint)"
        console.say(
            f"{held} accuracy {metrics['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f}, {metrics['decided']} pairs of "
            f"unseen prompts; always the longer answer: {metrics['length_floor']:.3f})"
        )
        for warning in (leak_warning(metrics, limit), floor_warning(metrics)):
            if warning is not None:
                console.say(f"warning: {warning}")
    console.say(f"wrote {output}")
