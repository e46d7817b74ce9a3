"""The reward model as a LightningModule."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import torch

from rm_lightning.adapters import Lora, add_lora, checkpointing, compiled, export_model
from rm_lightning.backbone import can_share, is_scorer, load_scorer, load_tokenizer, score
from rm_lightning.callbacks import advice
from rm_lightning.data import PARTS, PreferenceData
from rm_lightning.defaults import default_backbone
from rm_lightning.errors import RewardModelError
from rm_lightning.loss import bootstrap_weights, centring, preference_loss
from rm_lightning.metrics import PreferenceMetrics
from rm_lightning.parts import blocks, freeze, reads_last, trunk
from rm_lightning.text import JOIN_KEY, default_join

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rm_lightning.data import Batch
    from rm_lightning.metrics import Observations
    from rm_lightning.packing import Packed


LEARNING_RATE = 2e-5
"""Fits backbones of a hundred million parameters and more; smaller ones take more."""

IN_BAR = {"accuracy"}


class RewardModel(L.LightningModule):
    """Scores answers so that the better ones score higher.

    Args:
        backbone: folder or hub name of any causal or encoder model; None takes the demo world's base model. A reward model goes
            on where its training ended.
        join: what stands between a plain prompt and its answer; found out from the tokenizer when None.
        learning_rate: peak of AdamW.
        weight_decay: of AdamW, on matrices; biases and norms have none.
        warmup: share of all steps in which the learning rate rises; it falls linearly to 0 in the others.
        dropout: train with the backbone's dropout.
        head_std: standard deviation of the new head's weights; small, so that all scores start near 0.
        share_prompts: run each prompt once for all its answers, where the backbone can; scores and gradients are the same.
        members: heads on the one backbone, each fitted to its own bootstrap of the prompts; their spread says how sure they are.
        ties: what a comparison with probability one half is: `davidson`, an outcome of its own, as likely as the data say where
            both answers are as good; `half`, a win at one half, which shrinks all scores. Without ties there is no difference.
        margin: factor of the margins that people gave (Touvron et al. 2023 take 1); 0 leaves them out, which measured no worse.
        smoothing: share of labels taken to be wrong.
        centre: weight of the squared sum of both scores, which keeps scores around 0; 0.01 is usual.
        lora: low-rank adapters instead of all weights.
        quantize: load the backbone in 4 bits (QLoRA; needs `lora` and the extra qlora).
        freeze: keep the embeddings and so many of the lower blocks as they are; None trains all.
        checkpointing: compute activations again in the backward pass, which saves memory for time.
        compile: compile the backbone with torch.compile.
        attention: transformers' attention implementation; its own choice when None.
        adapter: export the LoRA adapter alone instead of merged weights.
    """

    log_tie: torch.nn.Parameter | None

    def __init__(
        self,
        backbone: str | None = None,
        join: str | None = None,
        learning_rate: float = LEARNING_RATE,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        dropout: bool = False,  # noqa: FBT001, FBT002 - a config key of LightningCLI, as those below
        head_std: float = 0.01,
        share_prompts: bool = True,  # noqa: FBT001, FBT002
        members: int = 1,
        ties: Literal["davidson", "half"] = "davidson",
        margin: float = 0.0,
        smoothing: float = 0.0,
        centre: float = 0.0,
        lora: Lora | None = None,
        quantize: bool = False,  # noqa: FBT001, FBT002
        freeze: int | None = None,
        checkpointing: bool = False,  # noqa: FBT001, FBT002
        compile: bool = False,  # noqa: A002, FBT001, FBT002
        attention: str | None = None,
        adapter: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__()
        kept = {name: value for name, value in locals().items() if name not in {"self", "__class__"}}
        self.save_hyperparameters(kept | {"lora": asdict(lora) if lora else None})
        _check(kept)
        name = backbone if backbone is not None else default_backbone()
        self.tokenizer = load_tokenizer(name)
        self.scorer = load_scorer(
            name, self.tokenizer, new=True, dropout=dropout, members=members, quantize=quantize, attention=attention
        )
        if not is_scorer(name) and reads_last(self.scorer):
            torch.nn.init.normal_(self.scorer.get_parameter("score.weight"), std=head_std)
        self.shared = share_prompts and can_share(self.scorer)
        self._adapt(kept)
        self.scorer.train()
        self.join = default_join(self.tokenizer) if join is None else join
        self.register_parameter("log_tie", None)
        self.is_spread = False
        self.observed: dict[str, Observations] = {}
        self.measured = torch.nn.ModuleDict({stage: PreferenceMetrics() for stage in ("validation", "testing")})

    def _adapt(self, kept: dict[str, Any]) -> None:
        """Change which weights learn, and how the backward pass is made."""
        if kept["freeze"] is not None:
            freeze(self.scorer, kept["freeze"])
        if kept["lora"] is not None:
            add_lora(self.scorer, Lora(**self.hparams["lora"]))
        if kept["checkpointing"]:
            checkpointing(self.scorer)
        if kept["compile"]:
            compiled(self.scorer)

    def setup(self, stage: str) -> None:
        """Begin Davidson's tie parameter at the data's share of ties: between equals, P(tie) = v / (2 + v)."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        davidson = self.hparams["ties"] == "davidson" and isinstance(data, PreferenceData)
        if stage != "fit" or not davidson or self.log_tie is not None:
            return
        if share := min(data.notes["ties"] / max(1, sum(data.counts[part] for part in PARTS)), 0.9):
            # v = 2 P / (1 - P)
            self.log_tie = torch.nn.Parameter(torch.tensor([2 * share / (1 - share)]).log().to(self.device))

    def configure_model(self) -> None:
        """Spread the weights over processes, block by block, under Lightning's ModelParallelStrategy (FSDP2)."""
        if self.device_mesh is None or self.is_spread:
            return
        from torch.distributed.fsdp import fully_shard

        if self.log_tie is not None:
            raise RewardModelError(
                "the data hold ties, and --model.ties davidson does not go with a model that is spread over processes: use half"
            )
        mesh = self.device_mesh["data_parallel"]
        for block in blocks(trunk(self.scorer)) or ():
            fully_shard(block, mesh=mesh)
        fully_shard(self, mesh=mesh)
        self.is_spread = True

    def forward(self, texts: Packed) -> Tensor:
        """Score N answers behind their prompts: (N, K), float32."""
        return score(self.scorer, texts, shared=self.shared)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step: the loss of a batch of comparisons, averaged over all processes' comparisons by their weights."""
        scores = self(batch.texts)  # (N, K)
        better, worse = scores[batch.better], scores[batch.worse]  # (C, K)
        cost = self._cost(better, worse, batch)  # (C, K)
        weight = batch.weight[:, None] * bootstrap_weights(batch.prompt, scores.shape[1])  # (C, K)
        right = ((better > worse) * batch.weight[:, None]).mean(dim=1, keepdim=True)
        sums = torch.stack([(weight * cost).sum(), weight.sum(), right.sum(), batch.weight.sum()]).detach()
        processes = self.trainer.world_size
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum") if processes > 1 else sums
        if not sums.isfinite().all():
            self._stop(index, batch, cost)
        whole = sums.clamp_min(1e-12)
        self.log_dict(
            {"train/loss": sums[0] / whole[1], "train/accuracy": sums[2] / whole[3]},
            prog_bar=True,
            batch_size=len(cost),
        )
        # Gradients are averaged over processes, so each brings its part of the mean times their number.
        return processes * (weight * cost).sum() / whole[1]

    def _cost(self, better: Tensor, worse: Tensor, batch: Batch) -> Tensor:
        cost = preference_loss(
            better - worse,
            probability=batch.probability,
            margin=self.hparams["margin"] * batch.margin.nan_to_num(0.0),
            smoothing=self.hparams["smoothing"],
            log_tie=self.log_tie,
        )
        return cost + self.hparams["centre"] * centring(better, worse) if self.hparams["centre"] else cost

    def _stop(self, index: int, batch: Batch, cost: Tensor) -> None:
        """Say at which batch the loss stopped being a number."""
        bad = batch.row[~cost.isfinite().all(dim=1)]
        place = ""
        if len(bad) and self.trainer.datamodule is not None:  # type: ignore[attr-defined]
            place = f" (first at {self.trainer.datamodule.describe('train', int(bad[0]))['where']})"  # type: ignore[attr-defined]
        raise RewardModelError(
            f"epoch {self.current_epoch}, batch {index}: the loss is not a finite number any more{place}; {advice(self.trainer)}"
        )

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Measure a batch of the prompts that choose the checkpoint."""
        self._measure("validation", batch)

    def test_step(self, batch: Batch, _index: int) -> None:  # noqa: PT019 - a step, not a test
        """Measure a batch of the prompts that choose nothing."""
        self._measure("testing", batch)

    def predict_step(self, batch: Batch, _index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Score a batch: (rows, scores of the better, scores of the worse), each (C,)."""
        scores = self(batch.texts).mean(dim=1)
        real = batch.row >= 0
        return batch.row[real], scores[batch.better][real], scores[batch.worse][real]

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._report("validation", "val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._report("testing", "test")

    def metrics_of(self, stage: Literal["validation", "testing"]) -> PreferenceMetrics:
        """Give what was measured, for whoever wants more than the logged numbers."""
        metrics = self.measured[stage]
        assert isinstance(metrics, PreferenceMetrics)
        return metrics

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union of shapes
        """AdamW with warm-up and linear decay over the steps there really are."""
        fused = self.trainer.precision != "16-mixed"  # there the scaler and the clipping want to see the gradients
        learning = [weight for weight in self.parameters() if weight.requires_grad]
        groups = [
            {
                "params": [weight for weight in learning if weight.ndim >= 2],
                "weight_decay": self.hparams["weight_decay"],
            },
            {"params": [weight for weight in learning if weight.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.hparams["learning_rate"], fused=fused
        )
        if self.trainer.precision == "bf16-mixed":
            # Lightning does not clip gradients of an optimiser that could undo a scaler's work; bfloat16 has no scaler.
            optimizer._step_supports_amp_scaling = False  # noqa: SLF001
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
        export_model(self.scorer, folder, adapter=self.hparams["adapter"])
        self.tokenizer.save_pretrained(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the random numbers, so that dropout goes on as it would have."""
        checkpoint["rng"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            checkpoint["rng"]["cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the random numbers as they were."""
        self._rng = checkpoint.get("rng")

    def on_train_start(self) -> None:
        """Go on with the random numbers of the checkpoint, if there is one."""
        if (state := getattr(self, "_rng", None)) is not None:
            torch.set_rng_state(state["cpu"].cpu())
            if "cuda" in state and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)

    def _measure(self, stage: Literal["validation", "testing"], batch: Batch) -> None:
        scores = self(batch.texts).mean(dim=1)  # (N,)
        self.metrics_of(stage).update(
            difference=scores[batch.better] - scores[batch.worse],
            probability=batch.probability,
            strength=batch.margin,
            longer=batch.longer,
            prompt=batch.prompt,
            row=batch.row,
        )

    def _report(self, stage: Literal["validation", "testing"], prefix: str) -> None:
        metrics = self.metrics_of(stage)
        for name, value in metrics.compute().items():
            self.log(f"{prefix}/{name}", value, prog_bar=name in IN_BAR, sync_dist=True)
        self.observed[stage] = metrics.observations()
        metrics.reset()


def _check(kept: dict[str, Any]) -> None:
    """Refuse settings that cannot go together, naming both."""
    if kept["members"] < 1:
        raise RewardModelError(f"--model.members {kept['members']}: expected 1 or more")
    if kept["quantize"] and kept["lora"] is None:
        raise RewardModelError("--model.quantize true needs --model.lora: weights of 4 bits do not learn, adapters do")
    if kept["adapter"] and kept["lora"] is None:
        raise RewardModelError("--model.adapter true needs --model.lora: without it there is no adapter to export")
    if not 0 <= kept["smoothing"] < 0.5:
        raise RewardModelError(f"--model.smoothing {kept['smoothing']}: expected 0 or more, below 0.5")
