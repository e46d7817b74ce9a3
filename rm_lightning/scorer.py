"""Rewards for any prompts and answers, from any folder that scores with one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rm_lightning.backbone import can_share, load_scorer, load_tokenizer, score, window
from rm_lightning.packing import Packed, pack
from rm_lightning.text import JOIN_KEY, TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt


class RewardScorer:
    """A trained reward model as a function of prompts and answers.

    Args:
        folder: our rm/ folder, or any `AutoModelForSequenceClassification` with one label.
        device: where it runs.
        batch_size: texts in one pass.

    Raises:
        RewardModelError: the folder is no model, or has another number of labels.
    """

    def __init__(self, folder: str, *, device: str | torch.device = "cpu", batch_size: int = 32) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.model = load_scorer(folder, self.tokenizer).to(device).eval()  # type: ignore[arg-type]
        self.shared = can_share(self.model)
        join = getattr(self.model.config, JOIN_KEY, None)
        self.encoder = TextEncoder(self.tokenizer, join=join, max_length=window(self.model.config) or 1 << 20)
        self.device = torch.device(device)
        self.batch_size = batch_size

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Score each answer to its prompt.

        Args:
            prompts: N prompts.
            answers: N answers.

        Returns:
            scores, (N,), float32, on the CPU, in the order of the input.
        """
        trees = [self.encoder.tree(prompt, [answer]) for prompt, answer in zip(prompts, answers, strict=True)]
        scores = torch.empty(len(trees))
        order = sorted(range(len(trees)), key=lambda index: len(trees[index]))  # rows of a batch are about equally long
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            packed = pack([trees[row] for row in rows], pad=int(self.tokenizer.pad_token_id))
            moved = Packed(*(part.to(self.device) for part in packed))
            scores[rows] = score(self.model, moved, shared=self.shared)[:, 0].cpu()
        return scores
