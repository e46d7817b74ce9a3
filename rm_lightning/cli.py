"""`python -m rm_lightning fit|validate|test`: a LightningCLI that exports a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lsplugin import console
from lsplugin.files import atomic_folder, check_replaceable, write_json
from lsplugin.preferences import write_pairs
from rm_lightning.data import PreferenceData
from rm_lightning.defaults import default_backbone, default_pairs
from rm_lightning.module import LEARNING_RATE, RewardModel
from rm_lightning.quiet import quiet
from rm_lightning.statistics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARKER = "metrics.json"
"""The file that says a folder is an earlier export, which may be replaced."""


DEMO_LEARNING_RATE = 5e-4
"""What the demo world's tiny model takes; used when no backbone and no other rate is named."""


class RewardCLI(LightningCLI):
    """Adds `--output`, a precision that fits the device, and the export after `fit`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our own options beside Lightning's."""
        parser.add_argument("--output", type=Path, default=Path("runs/rm"), help="Folder of the finished reward model.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.max_epochs": 3,
                "trainer.gradient_clip_val": 1.0,
                "trainer.num_sanity_val_steps": 0,
                "trainer.enable_model_summary": False,
                "checkpoint.monitor": "val/log_loss",
            }
        )
        parser.link_arguments("model.backbone", "data.backbone")
        parser.link_arguments("model.join", "data.join")
        parser.link_arguments(
            "output", "checkpoint.dirpath", compute_fn=lambda output: str(logs(output) / "checkpoints")
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Keep those of the Trainer's commands that this module serves."""
        kept = ("fit", "validate", "test")
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in kept}

    def before_instantiate_classes(self) -> None:
        """Say which default is used; choose a precision that fits the device and a place for the logs."""
        config = self.config[self.subcommand]
        if self.subcommand == "fit":
            check_replaceable(config.output, marker=MARKER)
        if config.model.backbone is None:
            console.say(
                "no --model.backbone given: the demo world's base model is used, with a learning rate that fits it"
            )
            if config.model.learning_rate == LEARNING_RATE:
                config.model.learning_rate = DEMO_LEARNING_RATE
            with console.progress("making the demo world's base model (about a minute, once)"):
                default_backbone()
        if config.data.pairs is None:
            console.say("no --data.pairs given: the demo world's pairs, labelled by simulated annotators, are used")
            with console.progress("making the demo world's pairs (once)"):
                default_pairs(config.data.seed)
        if config.trainer.precision is None:  # bf16 autocast is slower than float32 on CPUs
            config.trainer.precision = "bf16-mixed" if _on_gpu(config.trainer.accelerator) else "32-true"
        if config.trainer.logger is None:
            config.trainer.logger = _namespace(
                class_path="lightning.pytorch.loggers.CSVLogger",
                init_args=_namespace(save_dir=str(logs(config.output)), name="", version=""),
            )

    def after_fit(self) -> None:
        """Load the best checkpoint, test it on prompts that chose nothing, and export it."""
        trainer, data = self.trainer, self.datamodule
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)
        (result,) = trainer.test(
            self.model, datamodule=data, ckpt_path=checkpoint.best_model_path, verbose=False, weights_only=True
        )
        if not trainer.is_global_zero:
            return
        output: Path = self.config[self.subcommand].output
        metrics = summary(result, data)
        with atomic_folder(output, marker=MARKER) as folder:
            self.model.export(folder)
            write_json(folder / MARKER, metrics)
            write_pairs(folder / "test_pairs.jsonl", data.test_pairs)
        low, high = metrics["accuracy_interval"]
        console.say(
            f"held-out accuracy {metrics['accuracy']:.3f} (95% interval {low:.3f} to {high:.3f}, {data.counts['test']} pairs of "
            f"unseen prompts; always the longer answer: {metrics['length_floor']:.3f})"
        )
        console.say(f"wrote {output}")


def summary(result: Mapping[str, float], data: PreferenceData) -> dict[str, Any]:
    """Collect what is known about a finished model: test metrics with an interval, and where every pair went."""
    metrics = {name.removeprefix("test/"): value for name, value in result.items()}
    count = data.counts["test"]
    interval = wilson_interval(metrics["accuracy"] * count, count)
    return {**metrics, "accuracy_interval": list(interval), "counts": dict(data.counts), "seed": data.seed}


def logs(output: Path) -> Path:
    """Where logs and checkpoints of an output lie: beside it, so that the output holds the finished model alone."""
    return output.with_name(output.name + "-logs")


def _on_gpu(accelerator: str) -> bool:
    return accelerator in {"gpu", "cuda"} or (accelerator == "auto" and torch.cuda.is_available())


def _namespace(**values: object) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    quiet()
    RewardCLI(
        RewardModel,
        PreferenceData,
        args=list(args) if args is not None else None,
        seed_everything_default=0,
        save_config_callback=None,
        parser_kwargs={"description": __doc__},
    )
