"""What happens beside the training: checkpoints, whole or not there; the history for the report; predictions to a file."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from lsplugin import console
from lsplugin.files import atomic_file
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from torch import Tensor

MOST_POINTS = 2000
"""Points of a curve; when there are more, each two become one."""


def kept_checkpoint(trainer: L.Trainer) -> Path | None:
    """Give the newest checkpoint of a run from which it can go on; None where it has none yet."""
    found = [callback.best_model_path for callback in trainer.checkpoint_callbacks if isinstance(callback, Latest)]
    return next((Path(path) for path in found if path and Path(path).exists()), None)


class WholeCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose file is replaced at once, so that whatever happens, the one before or the one after is there.

    Weights that are no numbers any more are not kept.
    """

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        part = Path(f"{filepath}.part")
        # in every process, as each may hold a part of the weights
        if not trainer.strategy.reduce_boolean_decision(_all_finite(trainer.lightning_module), all=True):
            raise RewardModelError(
                f"step {trainer.global_step}: the weights are not finite numbers any more; {advice(trainer)}"
            )
        try:
            super()._save_checkpoint(trainer, str(part))
        except (OSError, RuntimeError) as error:
            _remove(part)
            if isinstance(error, OSError) or "PytorchStreamWriter" in str(error) or "No space" in str(error):
                raise RewardModelError(
                    f"{filepath}: this checkpoint cannot be written ({str(error).splitlines()[0]}); the one before is kept. "
                    "Make room and give the same command again"
                ) from None
            raise
        if trainer.is_global_zero and part.exists():
            if part.is_dir():
                _remove(Path(filepath))  # a folder cannot be put over another
            part.replace(filepath)
        self._last_checkpoint_saved = filepath
        trainer.strategy.barrier("checkpoint")


def advice(trainer: L.Trainer) -> str:
    """Say what helps against a loss that is not finite, and which checkpoint is still good."""
    kept = kept_checkpoint(trainer)
    return "a smaller --model.learning_rate or --trainer.gradient_clip_val helps most often. " + (
        f"The last good checkpoint is kept: {kept}" if kept is not None else "No checkpoint was written yet"
    )


def _all_finite(module: L.LightningModule) -> bool:
    learned = (weight.detach() for weight in module.parameters() if weight.requires_grad)
    own = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in learned)  # of a spread weight
    return all(bool(weight.isfinite().all()) for weight in own)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Best(WholeCheckpoint):
    """Keeps the weights with the least loss on the validation prompts; the last ones of a fit that ends before any validation."""

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the last weights where nothing could be chosen."""
        super().on_train_end(trainer, module)
        if not self.best_model_path and self.save_top_k:
            console.say("the fit ended before its first validation: its last weights are kept")
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_topk_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        if self.monitor is None or self.monitor in monitor_candidates:
            super()._save_topk_checkpoint(trainer, monitor_candidates)


class Latest(WholeCheckpoint):
    """Keeps everything that is needed to go on after a crash: every so often, and after each validation.

    Not between the last batch before a validation and that validation, as Lightning would go on without it. Ctrl-C ends the fit
    of one process after the step that runs, with a checkpoint of it; twice, at once. Several processes end at once, as they
    would have to agree in every step.
    """

    asked = False
    """Somebody pressed Ctrl-C."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Listen for Ctrl-C, unless it is ignored, as in the background of a script."""
        super().on_train_start(trainer, module)
        listens = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if listens and trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
        console.say("stopping after this step (Ctrl-C once more: at once)")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        index: int,
    ) -> None:
        """Save when it is time."""
        every = trainer.val_check_batch
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if not last and (not isinstance(every, int) or (index + 1) % every):
            super().on_train_batch_end(trainer, module, outputs, batch, index)
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save after each validation of a fit."""
        super().on_validation_end(trainer, module)
        self._save(trainer)
        self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save after an epoch that ends without a validation."""
        super().on_train_epoch_end(trainer, module)
        self._save(trainer)
        self._stop_if_asked(trainer)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Say how an interrupted run goes on; Lightning ends it."""
        super().on_exception(trainer, module, exception)
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            kept = kept_checkpoint(trainer)
            console.say(
                f"interrupted; the same command goes on from {kept}"
                if kept is not None
                else "interrupted before the first checkpoint; the same command begins anew"
            )

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Leave Ctrl-C as it was."""
        super().teardown(trainer, module, stage)
        if (before := self.__dict__.pop("_before", None)) is not None:
            signal.signal(signal.SIGINT, before)

    def _save(self, trainer: L.Trainer) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        if self.asked:
            self._save(trainer)
            raise KeyboardInterrupt


class History(L.Callback):
    """Remembers the curves, in the checkpoint too, so that a run that goes on has them whole.

    Attributes:
        rows: points of the training's and the validation's curves.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._every = 1

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Add a point of the training's curve."""
        if trainer.global_step % self._every or (self.rows and self.rows[-1].get("step") == trainer.global_step):
            return
        seen = {name: float(trainer.callback_metrics[f"train/{name}"]) for name in ("loss", "accuracy")}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append(
            {
                "step": trainer.global_step,
                "epoch": trainer.current_epoch,
                "train_loss": seen["loss"],
                "train_accuracy": seen["accuracy"],
                "learning_rate": rate,
            }
        )
        if sum("train_loss" in row for row in self.rows) > MOST_POINTS:
            self._thin()

    def on_validation_end(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Add a point of the validation's curve; measuring the best checkpoint afterwards is no point of it."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        seen = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("log_loss", "accuracy")}
        self.rows.append({"step": trainer.global_step, **{f"val_{name}": value for name, value in seen.items()}})

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint keeps."""
        return {"rows": list(self.rows), "every": self._every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint kept."""
        self.rows, self._every = list(state_dict["rows"]), state_dict["every"]

    def _thin(self) -> None:
        self._every *= 2
        self.rows = [row for row in self.rows if "train_loss" not in row or row["step"] % self._every == 0]


class PredictionFile(L.Callback):
    """Writes the scores of every comparison as JSONL, as they come; the file is there when all of them are.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0

    def on_predict_start(self, trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Open the file."""
        if trainer.world_size > 1:
            raise RewardModelError(
                f"predict runs in one process, not in {trainer.world_size}: use --trainer.devices 1, or split the file"
            )
        self._whole = atomic_file(self.path)
        self._stream = self._whole.__enter__().open("w", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        _module: L.LightningModule,
        outputs: tuple[Tensor, Tensor, Tensor],
        *_: object,
    ) -> None:
        """Write a batch."""
        for row, better, worse in zip(*(part.tolist() for part in outputs), strict=True):
            told = trainer.datamodule.describe("train", row)  # type: ignore[attr-defined]
            line = {**told, "chosen_score": better, "rejected_score": worse, "difference": better - worse}
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.written += 1

    def on_predict_end(self, _trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Put the file in its place."""
        self._stream.close()
        self._whole.__exit__(None, None, None)

    def on_exception(self, _trainer: L.Trainer, _module: L.LightningModule, exception: BaseException) -> None:
        """Leave nothing half-written."""
        if hasattr(self, "_stream"):
            self._stream.close()
            self._whole.__exit__(type(exception), exception, exception.__traceback__)
