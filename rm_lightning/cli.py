"""`python -m rm_lightning fit|validate|test|predict`: a LightningCLI that exports a plain Hugging Face folder."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lsplugin import console
from lsplugin.files import check_replaceable
from rm_lightning.arguments import COMMANDS, PROGRAM, Help, Parser, of_union, ready_configs, with_ready_configs
from rm_lightning.backbone import is_scorer
from rm_lightning.callbacks import Best, History, Latest, PredictionFile
from rm_lightning.data import PreferenceData
from rm_lightning.defaults import default_backbone, default_pairs
from rm_lightning.errors import RewardModelError
from rm_lightning.finish import MARKER, finish
from rm_lightning.module import LEARNING_RATE, RewardModel
from rm_lightning.quiet import quiet
from rm_lightning.report import read_ceiling
from rm_lightning.resume import begin, end, logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FINISHED = Path("runs/rm")
"""Where fit writes by default, and where the other commands look."""

DEMO_LEARNING_RATE = 5e-4
"""What the demo world's tiny model takes; used when no backbone and no other rate is named."""


class RewardCLI(LightningCLI):
    """Adds `--output`, a precision that fits the device, going on after a crash, and the export after `fit`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our own options beside Lightning's."""
        parser.add_argument(
            "--output",
            type=Path,
            default=FINISHED,
            help="Folder of the finished reward model; logs and checkpoints lie beside it. For predict, a .jsonl file.",
        )
        parser.add_argument(
            "--ceiling", type=Path | None, help="report.json of `lsplugin report`: what people's agreement allows."
        )
        parser.add_argument("--wandb", type=str | None, help="Weights & Biases project to log to, too.")
        parser.add_argument(
            "--fresh", type=bool, default=False, help="Begin anew, even if an interrupted run could go on."
        )
        parser.add_lightning_class_args(Best, "best")
        parser.add_lightning_class_args(Latest, "latest")
        parser.set_defaults(
            {
                "trainer.max_epochs": 3,
                "trainer.gradient_clip_val": 1.0,
                "trainer.num_sanity_val_steps": 0,
                "trainer.enable_model_summary": False,
                "trainer.log_every_n_steps": 10,
                "best.monitor": "val/log_loss",
                "best.filename": "best",
                "best.enable_version_counter": False,
                "best.save_weights_only": True,
                "latest.filename": "latest",
                "latest.enable_version_counter": False,
                "latest.train_time_interval": "00:10:00",
            }
        )
        parser.link_arguments("model.backbone", "data.backbone")
        parser.link_arguments("model.join", "data.join")
        for name in ("best", "latest"):
            parser.link_arguments(
                "output", f"{name}.dirpath", compute_fn=lambda output: str(logs(output) / "checkpoints")
            )

    def setup_parser(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - Lightning's own arguments
        """Tell each command in our words."""
        super().setup_parser(*args, **options)
        listed: Any = self.parser._subcommands_action  # noqa: SLF001 - there is no other way
        for command in listed._choices_actions:  # noqa: SLF001
            command.help = COMMANDS[command.dest].splitlines()[0]

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Keep those of the Trainer's commands that this module serves."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in COMMANDS}

    def before_instantiate_classes(self) -> None:
        """Say which default is used; choose a precision and a place for the logs; go on where a run broke off."""
        config = self.config[self.subcommand]
        _check_strategy(config.trainer.strategy)
        if self.subcommand != "fit":
            _finished_model(config)
        fill_in(config)
        if self.subcommand == "fit":
            check_replaceable(config.output, marker=MARKER)
            if config.ceiling is not None:
                read_ceiling(config.ceiling)
            if config.data.validation_pairs is None and not config.data.validation:
                config.trainer.limit_val_batches = 0
            if config.trainer.limit_val_batches == 0:
                config.best.monitor = None  # the last checkpoint is kept
            _loggers(config)
            begin(config)
        elif config.trainer.logger is None:
            config.trainer.logger = False
        if self.subcommand == "predict":
            config.return_predictions = False  # they go to the file, however many there are

    def instantiate_classes(self) -> None:
        """Make model, data and trainer; what a setting's own check says is all that is said."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if "Union subtypes" not in str(error):
                raise
            raise RewardModelError(of_union(str(error))) from None

    def instantiate_trainer(self, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's own signature
        """Add the history, or the file of predictions; say in a line what Lightning cannot make a trainer of."""
        config = self.config[self.subcommand]
        extra = [History()] if self.subcommand == "fit" else []
        more = [PredictionFile(_predictions(config.output))] if self.subcommand == "predict" else []
        kwargs["callbacks"] = [*(self._get(self.config_init, "trainer.callbacks") or []), *extra, *more]
        with trainer_refused():
            return super().instantiate_trainer(**kwargs)

    def after_fit(self) -> None:
        """Test the best checkpoint on prompts that chose nothing, and export it."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        config = self.config[self.subcommand]
        finish(self.trainer, self.datamodule, config.output, ceiling=config.ceiling)
        if self.trainer.is_global_zero:  # the others come here while it still exports
            end(config)

    def after_predict(self) -> None:
        """Say where the predictions are."""
        (writer,) = (callback for callback in self.trainer.callbacks if isinstance(callback, PredictionFile))  # type: ignore[attr-defined]
        console.say(f"wrote {writer.path}: {writer.written} comparisons scored")


@contextmanager
def trainer_refused() -> Iterator[None]:
    """Say in a line what Lightning cannot make a trainer of."""
    try:
        yield
    except (MisconfigurationException, ModuleNotFoundError, TypeError, ValueError) as error:
        raise RewardModelError(f"this machine cannot run these --trainer options: {_first_line(error)}") from None


def fill_in(config: Namespace) -> None:
    """Take the demo world's model and pairs where none are named, saying so, and a precision that fits the device."""
    if config.model.backbone is None:
        console.say("no --model.backbone given: the demo world's base model is used, with a learning rate that fits it")
        if config.model.learning_rate == LEARNING_RATE:
            config.model.learning_rate = DEMO_LEARNING_RATE
        with console.progress("making the demo world's base model (about a minute, once)"):
            default_backbone()
    if not any(config.data.get(name) for name in ("pairs", "validation_pairs", "test_pairs")):
        console.say("no --data.pairs given: the demo world's pairs, labelled by simulated annotators, are used")
        with console.progress("making the demo world's pairs (once)"):
            default_pairs(config.data.get("seed") or 0)
    if config.trainer.precision is None:  # bf16 autocast is slower than float32 on CPUs
        config.trainer.precision = "bf16-mixed" if _on_gpu(config.trainer.accelerator) else "32-true"


def _finished_model(config: Namespace) -> None:
    """Take the model that fit wrote where none is named, and refuse one whose head nobody trained."""
    if config.ckpt_path is not None:
        return
    if config.model.backbone is None:
        if not (FINISHED / MARKER).exists():
            raise RewardModelError(
                f"expected a finished reward model: {FINISHED} holds none; name its folder with --model.backbone"
            )
        console.say(f"no --model.backbone given: {FINISHED} is used")
        config.model.backbone = config.data.backbone = str(FINISHED)
    elif not is_scorer(config.model.backbone):
        raise RewardModelError(
            f"{config.model.backbone}: expected a finished reward model, this has no trained head; `{PROGRAM} fit` makes one"
        )


def _check_strategy(strategy: object) -> None:
    name = strategy.class_path if isinstance(strategy, Namespace) else strategy
    if "deepspeed" in str(name).lower() and find_spec("deepspeed") is None:
        raise RewardModelError(
            f"--trainer.strategy {name} needs the package deepspeed: pip install 'label-studio-rlhf[deepspeed]'"
        )


def _loggers(config: Namespace) -> None:
    """TensorBoard and CSV where nothing else is asked for; Weights & Biases beside them."""
    if config.trainer.logger is None:
        config.trainer.logger = [
            _logger(name, save_dir=str(logs(config.output)), name=kind)
            for name, kind in (("CSVLogger", "csv"), ("TensorBoardLogger", "tensorboard"))
        ]
    if config.wandb is not None:
        if find_spec("wandb") is None:
            raise RewardModelError("--wandb needs the package wandb: pip install 'label-studio-rlhf[wandb]'")
        chosen = config.trainer.logger
        given = chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, Namespace) else []
        config.trainer.logger = [
            *given,
            _logger("WandbLogger", project=config.wandb, save_dir=str(logs(config.output))),
        ]


def _logger(kind: str, **values: object) -> Namespace:
    return _namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=_namespace(**values))


def _predictions(output: Path) -> Path:
    return output if output.suffix == ".jsonl" else output / "predictions.jsonl"


def _on_gpu(accelerator: str) -> bool:
    return accelerator in {"gpu", "cuda"} or (accelerator == "auto" and torch.cuda.is_available())


def _namespace(**values: object) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    quiet()
    ready = ", ".join(ready_configs())
    described = {
        name: {
            "description": text.format(ready=ready),
            "usage": f"{PROGRAM} {name} [--config NAME] [options]",
        }
        for name, text in COMMANDS.items()
    }
    given = with_ready_configs(sys.argv[1:] if args is None else args)
    try:
        RewardCLI(
            RewardModel,
            PreferenceData,
            args=given,
            seed_everything_default=0,
            save_config_callback=None,
            parser_class=Parser,
            parser_kwargs={
                "prog": PROGRAM,
                "description": "Reward models from human comparisons.",
                "formatter_class": Help,
                **described,
            },
        )
    except MisconfigurationException as error:
        raise RewardModelError(_first_line(error)) from None
    except KeyboardInterrupt:  # before or after Lightning's part, which ends by itself
        console.say("interrupted; the same command does it again")
        sys.exit(130)
