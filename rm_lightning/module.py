"""The reward model as a LightningModule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torchmetrics import MeanMetric

from rm_lightning.backbone import can_share, load_scorer, load_tokenizer, score
from rm_lightning.defaults import default_backbone
from rm_lightning.loss import bradley_terry_loss
from rm_lightning.text import JOIN_KEY, default_join

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rm_lightning.data import Batch
    from rm_lightning.packing import Packed


LEARNING_RATE = 2e-5
"""Fits backbones of a hundred million parameters and more; smaller ones take more."""


class RewardModel(L.LightningModule):
    """Scores answers so that chosen ones score higher.

    Args:
        backbone: folder or hub name of any causal or encoder model; None takes the demo world's base model.
        join: what stands between a plain prompt and its answer; found out from the tokenizer when None.
        learning_rate: peak of AdamW.
        weight_decay: of AdamW.
        warmup: share of all steps in which the learning rate rises; it falls linearly to 0 in the others.
        dropout: train with the backbone's dropout.
        head_std: standard deviation of the new head's weights; small, so that all scores start near 0.
        share_prompts: run each prompt once for both answers, where the backbone can; scores and gradients are the same.
    """

    def __init__(
        self,
        backbone: str | None = None,
        join: str | None = None,
        learning_rate: float = LEARNING_RATE,  # noqa: ARG002 - save_hyperparameters keeps it
        weight_decay: float = 0.0,  # noqa: ARG002
        warmup: float = 0.05,  # noqa: ARG002
        dropout: bool = False,  # noqa: FBT001, FBT002 - a config key of LightningCLI
        head_std: float = 0.01,
        share_prompts: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        name = backbone if backbone is not None else default_backbone()
        self.tokenizer = load_tokenizer(name)
        self.scorer = load_scorer(name, self.tokenizer, new=True, dropout=dropout)
        if isinstance(head := getattr(self.scorer, "score", None), torch.nn.Linear):
            torch.nn.init.normal_(head.weight, std=head_std)
        self.shared = share_prompts and can_share(self.scorer)
        self.scorer.train()
        self.join = default_join(self.tokenizer) if join is None else join
        self.metrics = torch.nn.ModuleDict(
            {stage: torch.nn.ModuleDict({name: MeanMetric() for name in METRICS}) for stage in ("validate", "check")}
        )

    def forward(self, texts: Packed) -> Tensor:
        """Score N answers behind their prompts: (N,), float32."""
        return score(self.scorer, texts, shared=self.shared)[:, 0]

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """One step: the Bradley-Terry loss of a batch of pairs."""
        chosen, rejected = self(batch.texts).view(-1, 2).unbind(1)  # (B,), (B,)
        loss = bradley_terry_loss(
            chosen, rejected, margin=batch.margin, probability=batch.probability, weight=batch.weight
        )
        accuracy = (chosen > rejected).float().mean()
        self.log_dict({"train/loss": loss, "train/accuracy": accuracy}, prog_bar=True, batch_size=len(chosen))
        return loss

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Measure a batch of the prompts that choose the checkpoint."""
        self._measure("validate", batch)

    def test_step(self, batch: Batch, _index: int) -> None:  # noqa: PT019 - a step, not a test
        """Measure a batch of the prompts that choose nothing."""
        self._measure("check", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._report("validate", "val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report("check", "test")

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of shapes
        """AdamW with warm-up and linear decay over the steps there really are."""
        fused = self.trainer.precision != "16-mixed"  # there the scaler and the clipping want to see the gradients
        rate, decay = self.hparams["learning_rate"], self.hparams["weight_decay"]
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1.0, self.hparams["warmup"] * steps)

        def factor(step: int) -> float:
            rising, falling = (step + 1) / warmup, (steps - step) / max(1.0, steps - warmup)
            return float(max(0.0, min(1.0, rising, falling)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path) -> None:
        """Save a plain Hugging Face folder: model (safetensors), tokenizer, and the join in its config."""
        setattr(self.scorer.config, JOIN_KEY, self.join)
        self.scorer.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _measure(self, stage: str, batch: Batch) -> None:
        chosen, rejected = self(batch.texts).view(-1, 2).unbind(1)
        values = {
            "accuracy": (chosen > rejected).float() + 0.5 * (chosen == rejected).float(),
            "log_loss": torch.nn.functional.softplus(rejected - chosen),
            "margin": chosen - rejected,
            "length_floor": batch.chosen_longer,
        }
        for name, value in values.items():
            self._metric(stage, name).update(value)

    def _report(self, stage: str, prefix: str) -> None:
        for name in METRICS:
            metric = self._metric(stage, name)
            self.log(f"{prefix}/{name}", metric.compute(), prog_bar=name == "accuracy")
            metric.reset()

    def _metric(self, stage: str, name: str) -> MeanMetric:
        metric = self.metrics[stage][name]  # type: ignore[index]
        assert isinstance(metric, MeanMetric)
        return metric


METRICS = ("accuracy", "log_loss", "margin", "length_floor")
"""Accuracy: share of pairs whose chosen answer scores higher (a tie counts half). Log-loss in nats. Margin: mean chosen minus
rejected. Length floor: the accuracy of always preferring the longer answer."""
