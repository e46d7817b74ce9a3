"""What preferences cost: Bradley-Terry with margins, soft labels and ties, each a pure function of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

TIE = 0.5
"""The probability that says: as good as each other."""


def preference_loss(
    difference: Tensor,
    *,
    probability: Tensor | None = None,
    margin: Tensor | None = None,
    smoothing: float = 0.0,
    log_tie: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each comparison, in nats.

    With d = difference - margin and p = probability, smoothed to (1 - s) p + s (1 - p):

        loss = -p log P(win) - (1 - p) log P(loss)

    where P(win) = sigmoid(d) after Bradley and Terry (1952); as a reward model's loss, Ouyang et al. 2022 (arXiv
    2203.02155), equation 1; the margin, Touvron et al. 2023 (arXiv 2307.09288), equation 2; the smoothing, Wang et al. 2024
    (arXiv 2401.06080), section 2.3. With `log_tie`, ties are an outcome of their own (Davidson 1970), with v = exp(log_tie):

        P(win) = e^(d/2) / (e^(d/2) + e^(-d/2) + v),  P(tie) = v / (e^(d/2) + e^(-d/2) + v),  loss = -log P(tie) where p = 1/2

    Args:
        difference: score of the better answer minus the score of the worse, (C, ...).
        probability: that the better answer is the better one, (C,); 1 when None, one half for a tie.
        margin: by how much it should win, (C,); 0 when None.
        smoothing: share of labels taken to be wrong.
        log_tie: logarithm of Davidson's tie parameter, a number; None takes a tie for a win at one half.

    Returns:
        The shape of `difference`.
    """
    shape = (-1,) + (1,) * (difference.ndim - 1)
    p = torch.ones(len(difference), device=difference.device) if probability is None else probability
    tie = (p == TIE).view(shape)
    p = ((1 - smoothing) * p + smoothing * (1 - p)).view(shape)
    d = difference if margin is None else difference - margin.view(shape)
    if log_tie is None:
        return -p * F.logsigmoid(d) - (1 - p) * F.logsigmoid(-d)
    level = log_tie.expand_as(d)
    whole = torch.stack([d / 2, -d / 2, level]).logsumexp(dim=0)
    return torch.where(tie, whole - level, whole - (p - 0.5) * d)


def centring(better: Tensor, worse: Tensor) -> Tensor:
    """Square of the sum of both scores, which keeps scores around 0 (Eisenstein et al. 2023, arXiv 2312.09244, section 3.1)."""
    return (better + worse) ** 2


def bootstrap_weights(prompt: Tensor, members: int) -> Tensor:
    """Weigh prompts differently for every member of an ensemble, always the same way: the Bayesian bootstrap (Rubin 1981).

    Args:
        prompt: hash of each comparison's prompt, (C,), int64; comparisons of one prompt are weighed alike.
        members: K; a single one has equal weights.

    Returns:
        (C, K), exponentially distributed with mean 1.
    """
    if members == 1:
        return torch.ones(len(prompt), 1, device=prompt.device)
    salt = torch.arange(1, members + 1, device=prompt.device) * 0x1E3779B97F4A7C15
    mixed = prompt[:, None] ^ salt  # (C, K); SplitMix64's finalizer, with shifts that do not carry the sign
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    uniform = (_shifted(mixed ^ _shifted(mixed, 31), 11) + 0.5) / 2**53
    return -torch.log(uniform.double()).float()


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over comparisons, (C, ...) -> (...); 0 where nothing weighs."""
    return (weight * values).sum(dim=0) / weight.sum(dim=0).clamp_min(1e-12)


def _shifted(values: Tensor, by: int) -> Tensor:
    return (values >> by) & ((1 << (64 - by)) - 1)
