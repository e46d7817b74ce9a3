"""Intervals for what is counted, also where values of the same group go alike; the error of probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

DRAWS = 500
"""Simulated labellings that say how large the error of calibrated probabilities is."""


class Distinct(NamedTuple):
    """The values that occur, ascending, (G,); which of them each is, (n,) int64; how often each occurs, (G,)."""

    values: Tensor
    place: Tensor
    counts: Tensor


def distinct(values: Tensor) -> Distinct:
    """Find the different values of a tensor, (n,)."""
    return Distinct(*torch.unique(values, return_inverse=True, return_counts=True))


def wilson_interval(successes: float, trials: float, *, z: float = 1.959964) -> tuple[float, float]:
    """Give the Wilson score interval of a share (Wilson 1927, equation 4 of Brown, Cai and DasGupta 2001).

    Args:
        successes: how often it happened; halves are allowed (ties).
        trials: out of how many; parts of one are allowed (an effective number).
        z: normal quantile; 1.96 gives 95%.

    Returns:
        (low, high), within 0..1; (0, 1) without trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(max(0.0, share * (1 - share)) / trials + z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def design_effect(values: Tensor, groups: Tensor) -> float:
    """Say how many times larger the variance of a mean is than that of independent values, as values of a group go alike.

    It is the cluster-robust variance of the mean over the plain one (Kish 1965, section 8.2; Liang and Zeger 1986). With e the
    values less their mean, n values in G groups:

        deff = [G / (G - 1)  sum_g (sum_{i in g} e_i)^2]  /  [n / (n - 1)  sum_i e_i^2]

    It is 1 where each group has one value, and never taken to be less. Values that are all alike, or all of one group, do not
    show how far groups go together: then it is the most that it can be, sum_g n_g^2 / n.

    Args:
        values: (n,).
        groups: equal for values of the same group, (n,).
    """
    count = len(values)
    _, group, sizes = distinct(groups)
    if len(sizes) == count:
        return 1.0
    values = values.double()
    error = values - values.mean()
    plain = float((error**2).sum()) * count / (count - 1)
    if len(sizes) == 1 or plain <= 1e-12 * count:
        return float((sizes**2).sum()) / count
    sums = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, group, error)
    clustered = float((sums**2).sum()) * len(sizes) / (len(sizes) - 1)
    return max(1.0, clustered / plain)


def clustered_interval(values: Tensor, groups: Tensor) -> tuple[float, float]:
    """Give the Wilson interval of a mean of values in 0..1 with the effective number of values, n / deff (Rao and Scott 1992).

    Args:
        values: (n,).
        groups: equal for values of the same group, (n,); where all differ, this is the plain Wilson interval.

    Returns:
        (low, high); (0, 1) without values.
    """
    if not len(values):
        return 0.0, 1.0
    trials = len(values) / design_effect(values, groups)
    return wilson_interval(float(values.double().mean()) * trials, trials)


def calibration_error(predicted: Tensor, observed: Tensor, place: Tensor) -> float:
    """Give the expected calibration error.

    Args:
        predicted: probabilities, (n,) float64.
        observed: what happened, 0..1, (n,) float64.
        place: the bin of each, (n,) int64.
    """
    # sum_b n_b / n |mean_b(predicted) - mean_b(observed)| = sum_b |sum_b(predicted - observed)| / n
    gaps = torch.zeros(int(place.max()) + 1, dtype=torch.float64).index_add_(0, place, predicted - observed)
    return float(gaps.abs().sum()) / len(predicted)


def equal_mass(values: Tensor, bins: int) -> Tensor:
    """Deal values out to bins of about equally many, in order; equal ones share a bin, so that some may be empty; (n,) int64."""
    smaller = torch.searchsorted(values.sort().values, values)  # how many are smaller than each
    return smaller * bins // max(1, len(values))


def calibrated_errors(predicted: Tensor, place: Tensor, *, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Give the errors that calibrated probabilities have by chance: labels are drawn from them, and the error measured; (draws,).

    Args:
        predicted: probabilities, (n,) float64.
        place: the bin of each, (n,) int64.
        draws: how often.
        seed: of the drawing.
    """
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for _ in range(draws):
        labels = torch.rand(len(predicted), generator=generator, dtype=torch.float64) < predicted
        errors.append(calibration_error(predicted, labels.double(), place))
    return torch.tensor(errors, dtype=torch.float64)
