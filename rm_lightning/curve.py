"""The learning curve of a reward model: what its accuracy would be with more labels, and how sure that is.

    accuracy(n) = 1/2 + (ceiling - 1/2) n^b / (n^b + h^b)

A coin at no labels, half way up at h of them, and for many labels ceiling - a n^-b, the power law of learning curves (Hestness et
al. 2017, arXiv 1712.00409; Mukherjee et al. 2003, Figueroa et al. 2012). This form is the Morgan-Mercer-Flodin curve with its
start at chance, among the forms that extrapolate best (Mohr et al. 2022, LCDB 1.0; Viering and Loog 2022, arXiv 2103.10948).

What is not known is told by a posterior over a grid of (ceiling, h, b), with the noise of the test set, that of single fits, and
a random walk in log n by which real curves leave any formula (after Kennedy and O'Hagan 2001).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = npt.NDArray[np.float64]

DRAWS = 4000
WANDER = 0.01
"""Standard deviation by which a curve leaves its formula while labels double."""
SCATTER = 0.015
"""Standard deviation of one fit's accuracy around the mean of such fits, before anything is measured."""
SCATTER_WEIGHT = 4.0
"""For how many measured deviations `SCATTER` counts."""
FARTHEST = 64
"""The most that forecasts go beyond the labels there are, in times."""


class Fit(NamedTuple):
    """One fit on a part of what is labelled, tested on held-out prompts.

    Attributes:
        fold: which prompts were held out.
        step: which of the sizes it is, from the smallest.
        labels: comparisons it was trained on.
        prompt: the prompt of each tested comparison, (m,).
        right: whether the better answer had the higher score, (m,); one half where both were equal.
    """

    fold: int
    step: int
    labels: int
    prompt: Sequence[int]
    right: Sequence[float]


class Measured(NamedTuple):
    """Accuracies at K sizes.

    Attributes:
        labels: comparisons trained on, the mean over folds, ascending, (K,).
        accuracy: over all held-out comparisons, (K,).
        covariance: of these accuracies, (K, K).
        scatter: standard deviation of a single fit's accuracy, beyond the noise of its test.
    """

    labels: Floats
    accuracy: Floats
    covariance: Floats
    scatter: float


def measure(fits: Sequence[Fit]) -> Measured:
    """Put fits together: every fold at every step. Prompts are held out in one fold each.

    The covariance is that of the test prompts, which all sizes share (cluster-robust, Liang and Zeger 1986), and of the fits.
    """
    steps = 1 + max(fit.step for fit in fits)
    prompts = {key: place for place, key in enumerate(dict.fromkeys(key for fit in fits for key in fit.prompt))}
    right, tested = np.zeros((len(prompts), steps)), np.zeros((len(prompts), steps))  # (G, K)
    fold = np.zeros(len(prompts), dtype=np.int64)
    labels: list[list[int]] = [[] for _ in range(steps)]
    for fit in fits:
        places = np.array([prompts[key] for key in fit.prompt], dtype=np.int64)
        np.add.at(right[:, fit.step], places, fit.right)
        np.add.at(tested[:, fit.step], places, 1.0)
        fold[places] = fit.fold
        labels[fit.step].append(fit.labels)
    accuracy = right.sum(0) / tested.sum(0)  # (K,)
    error = (right - tested * accuracy) / tested.sum(0)  # each prompt's share in the deviation, (G, K)
    count = len(error)
    # with few prompts the spread itself is uncertain: the variance of Student's t, (G - 1) / (G - 3), for the normal's
    by_prompt = error.T @ error * count / max(1, count - 3)
    folds = int(fold.max()) + 1
    sums = np.stack([error[fold == number].sum(0) for number in range(folds)])  # (R, K)
    # What the folds differ by beyond their prompts is the fits': its variance in the mean of R fits, pooled over sizes
    beyond = (sums**2).sum(0) * folds / max(1, folds - 1) - np.diag(by_prompt)
    seen, times = max(0.0, float(beyond.mean())) * folds, (folds - 1) * steps
    scatter = float(np.sqrt((seen * times + SCATTER**2 * SCATTER_WEIGHT) / (times + SCATTER_WEIGHT)))
    covariance = by_prompt + np.eye(steps) * scatter**2 / folds
    return Measured(np.array([np.mean(each) for each in labels]), accuracy, covariance, scatter)


class Curves(NamedTuple):
    """Curves drawn from the posterior.

    Attributes:
        ceiling: accuracy with endless labels, (D,).
        half: labels at which half of the way is done, (D,).
        steepness: the exponent b, (D,).
        anchor: labels of the largest size measured: from there on the curves wander.
    """

    ceiling: Floats
    half: Floats
    steepness: Floats
    anchor: float

    def at(self, labels: Sequence[float] | Floats, *, seed: int = 0) -> Floats:
        """Give the accuracies of all curves at M numbers of labels, ascending: (D, M)."""
        n = np.asarray(labels, dtype=np.float64)
        found = formula(n[None, :], self.ceiling[:, None], self.half[:, None], self.steepness[:, None])
        doublings = np.log2(np.maximum(n, self.anchor) / self.anchor)
        steps = np.sqrt(np.diff(doublings, prepend=0.0)) * WANDER
        wander = np.random.default_rng(seed).normal(size=found.shape) * steps
        return np.asarray((found + wander.cumsum(axis=1)).clip(0, 1))


def formula(labels: Floats, ceiling: Floats, half: Floats, steepness: Floats) -> Floats:
    """Compute accuracy(n) = 1/2 + (ceiling - 1/2) / (1 + (h / n)^b)."""
    return np.asarray(0.5 + (ceiling - 0.5) / (1 + (half / labels) ** steepness))


def learn(measured: Measured, *, draws: int = DRAWS, seed: int = 0) -> Curves:
    """Draw curves from the posterior over a grid, with the same chance for each ceiling, log h and log b beforehand."""
    n, most = measured.labels, float(measured.labels[-1])
    ceiling = np.linspace(0.5, 1.0, 81)
    half = np.geomspace(1.0, 30 * most, 60)
    steepness = np.geomspace(0.25, 2.5, 16)
    grid = [part.ravel() for part in np.meshgrid(ceiling, half, steepness, indexing="ij")]
    away = np.log2(most / n)  # doublings below the anchor, (K,)
    covariance = measured.covariance + WANDER**2 * np.minimum(away[:, None], away[None, :])
    error = measured.accuracy - formula(n, *(part[:, None] for part in grid))  # (G, K)
    scaled = np.linalg.solve(np.linalg.cholesky(covariance), error.T)  # (K, G)
    log = -0.5 * (scaled**2).sum(0)
    weight = np.exp(log - log.max())
    rng = np.random.default_rng(seed)
    places = rng.choice(len(weight), size=draws, p=weight / weight.sum())
    return Curves(grid[0][places], grid[1][places], grid[2][places], most)


class Interval(NamedTuple):
    """A mean and 95% of the draws around it."""

    value: float
    low: float
    high: float


def interval(draws: Floats) -> Interval:
    """Sum up draws, (D,)."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(draws.mean()), float(low), float(high))


class Forecast(NamedTuple):
    """What more labels bring.

    Attributes:
        now: accuracy of a model trained on all the labels there are.
        then: accuracy of one trained on so many more; the interval holds the scatter of single fits, too.
        gain: then - now, on average over fits.
    """

    now: Interval
    then: Interval
    gain: Interval


def forecast(curves: Curves, scatter: float, labels: int, more: int, *, seed: int = 0) -> Forecast:
    """Say what `more` labels bring beyond `labels`."""
    now, then = curves.at([labels, labels + more], seed=seed).T  # (D,)
    noise = np.random.default_rng([seed, 1]).normal(size=(2, len(now))) * scatter
    return Forecast(interval(now + noise[0]), interval(then + noise[1]), interval(then - now))


def stops_paying(curves: Curves, labels: int, more: int, worth: float, *, sure: float = 0.9) -> int | None:
    """Say from how many labels on `more` of them bring less than `worth`, with a chance of `sure` at each number from there on.

    Returns:
        a number of labels, `labels` where it is so already; None where it is not so within `FARTHEST` times as many.
    """
    found: int | None = None
    for start in np.geomspace(labels, FARTHEST * labels, 61)[::-1]:
        now, then = curves.at([start, start + more]).T
        if float((then - now < worth).mean()) < sure:
            break
        found = round(start)
    return found
