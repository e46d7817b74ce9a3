"""The Bradley-Terry loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def bradley_terry_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    margin: Tensor | None = None,
    probability: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of the preferences, averaged over pairs.

    With d = chosen - rejected - margin and p = probability:

        loss = mean_w( -p log sigmoid(d) - (1 - p) log sigmoid(-d) )

    Source: Bradley and Terry (1952); as a reward-model loss, Ouyang et al. 2022 (arXiv 2203.02155), equation 1; the margin,
    Touvron et al. 2023 (arXiv 2307.09288), equation 2.

    Args:
        chosen: scores of the chosen answers, (B,).
        rejected: scores of the rejected answers, (B,).
        margin: by how much chosen should win, (B,); 0 when None.
        probability: that chosen is the better one, (B,); 1 when None.
        weight: how much each pair counts, (B,); equally when None.

    Returns:
        A scalar.
    """
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    loss = -F.logsigmoid(difference)
    if probability is not None:
        loss = probability * loss - (1 - probability) * F.logsigmoid(-difference)
    if weight is None:
        return loss.mean()
    return (weight * loss).sum() / weight.sum().clamp_min(1e-8)
