"""What happens beside the training: checkpoints, whole or not there; the history for the report; predictions to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint

from lsplugin.files import atomic_file
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MOST_POINTS = 2000
"""Points of a curve; when there are more, each two become one."""


class WholeCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose file is replaced at once, so that whatever happens, the one before or the one after is there."""

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        part = Path(f"{filepath}.part")
        try:
            super()._save_checkpoint(trainer, str(part))
        except (OSError, RuntimeError) as error:
            if part.is_file():
                part.unlink()
            if isinstance(error, OSError) or "PytorchStreamWriter" in str(error) or "No space" in str(error):
                raise RewardModelError(
                    f"{filepath}: this checkpoint cannot be written ({str(error).splitlines()[0]}); the one before is kept. "
                    "Make room and give the same command again"
                ) from None
            raise
        if trainer.is_global_zero and part.is_file():
            part.replace(filepath)
        self._last_checkpoint_saved = filepath
        trainer.strategy.barrier("checkpoint")


class Best(WholeCheckpoint):
    """Keeps the weights with the least loss on the validation prompts."""


class Latest(WholeCheckpoint):
    """Keeps everything that is needed to go on after a crash: every so often, and after each validation.

    Not between the last batch before a validation and that validation, as Lightning would go on without it.
    """

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

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save after each validation of a fit."""
        super().on_validation_end(trainer, module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


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
        """Add a point of the validation's curve."""
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


class PredictionFile(BasePredictionWriter):
    """Writes the scores of every comparison as JSONL, as they come; the file is there when all of them are.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(write_interval="batch")
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

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        _module: L.LightningModule,
        prediction: tuple[Tensor, Tensor, Tensor],
        _indices: Sequence[int] | None,
        _batch: object,
        _batch_idx: int,
        _dataloader_idx: int,
    ) -> None:
        """Write a batch."""
        for row, better, worse in zip(*(part.tolist() for part in prediction), strict=True):
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
