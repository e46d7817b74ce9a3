"""How two sets of answers compare: win rates, diversity, and best-of-n as a yardstick. Pure functions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from rm_lightning.statistics import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LIKE_LENGTH = 0.1
"""Two answers are about as long where the shorter one lacks at most this share of the longer one's tokens."""


def interval(values: Tensor) -> dict[str, float]:
    """Mean of N values with its normal 95% interval: mean, low, high."""
    mean = float(values.mean())
    half = 1.959964 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return {"mean": mean, "low": mean - half, "high": mean + half}


def win_rate(new: Tensor, old: Tensor) -> dict[str, float | None]:
    """Share of N prompts on which the new answer's score is higher, ties half: mean, its 95% Wilson interval, N as `prompts`.

    Without prompts the mean is None.
    """
    count = len(new)
    wins = float((new > old).sum()) + 0.5 * float((new == old).sum())
    low, high = wilson_interval(wins, count)
    return {"mean": wins / count if count else None, "low": low, "high": high, "prompts": count}


def about_as_long(new: Tensor, old: Tensor) -> Tensor:
    """Say which answers are about as long, from lengths in tokens: (N,), (N,) -> (N,), bool.

    A win rate on those alone owes nothing to length. Dubois et al. 2024 (arXiv 2404.04475) fit a regression instead, which uses
    every prompt but has to believe in its form; here it is seen how many prompts the figure rests on.
    """
    return (new - old).abs() <= LIKE_LENGTH * torch.maximum(new, old)


def distinct_share(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words over all n-grams, of all texts together: 1 says nothing twice. 0 without n-grams.

    Source: Li et al. 2016 (arXiv 1510.03055), who divide by the number of words. It falls with the amount of text, so compare it
    between about equally long answers only.
    """
    grams = [tuple(words[start : start + n]) for words in map(str.split, texts) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def best_of(scores: Tensor, n: int, ranked_by: Tensor | None = None) -> Tensor:
    """Estimate without bias what the best of n samples scores, from m samples: (N, m) -> (N,).

    It is the mean over all subsets of n. The sample with the i-th lowest of m rewards is the best of C(i - 1, n - 1) of the
    C(m, n) subsets:

        sum_i  C(i - 1, n - 1) / C(m, n)  score_(i)

    Args:
        scores: of m independent samples for each of N prompts.
        n: at most m.
        ranked_by: what the best is chosen by, (N, m); the scores themselves by default.
    """
    count = scores.shape[1]
    order = (scores if ranked_by is None else ranked_by).argsort(dim=1, stable=True)
    weights = [math.comb(place, n - 1) / math.comb(count, n) for place in range(count)]
    return (scores.gather(1, order).double() * torch.tensor(weights, dtype=torch.float64)).sum(1)


def best_of_kl(n: int) -> float:
    """KL of best-of-n to the base at most, in nats: log n - (n - 1) / n. Source: Beirami et al. 2024 (arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n


def at_kl(kl: float, curves: Sequence[Tensor]) -> tuple[float, Tensor]:
    """Find best-of-n at a KL, by a straight line between whole n; beyond the largest n, at that.

    Args:
        kl: nats; 0 or more.
        curves: scores of best-of-1, best-of-2, ..., each (N,).

    Returns:
        the KL at which the scores are, and the scores, (N,).
    """
    kls = [best_of_kl(n) for n in range(1, len(curves) + 1)]
    for (low, high), (under, over) in zip(pairwise(kls), pairwise(curves), strict=True):
        if kl <= high:
            share = (kl - low) / (high - low)
            return kl, (1 - share) * under + share * over
    return kls[-1], curves[-1]
