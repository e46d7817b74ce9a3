"""Agreement between annotators: chance-corrected, with intervals, and what it says of any model trained on the labels.

Every measure takes `counts`, (items, categories): how many annotators put an item into each category. Items that nobody or only
one person judged say nothing and are left out; annotators may differ from item to item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Measure = Callable[[Floats, Floats], float]

RESAMPLES = 1000
"""Bootstrap samples of the items."""


class Estimate(NamedTuple):
    """A figure with its 95% interval, and from how many items or trials it comes; not a number where there are none."""

    value: float
    low: float
    high: float
    trials: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Give it as JSON, where what is not a number is null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(x) if np.isfinite(x) else None for name, x in numbers.items()} | {
            "trials": int(self.trials)
        }


def raw_agreement(counts: Floats, weights: Floats) -> float:
    """Give the share of twos of annotators of the same item who agree.

    Args:
        counts: (items, categories).
        weights: how often each item counts, (items,).
    """
    size = counts.sum(axis=1)
    return _ratio(weights @ (counts * (counts - 1)).sum(axis=1), weights @ (size * (size - 1)))


def fleiss_kappa(counts: Floats, weights: Floats) -> float:
    """Give Fleiss' kappa (1971): agreement beyond that of annotators who draw from the same shares of categories.

    Items may have different numbers of annotators, two at least: each item's agreement counts the same.
    """
    size = counts.sum(axis=1)
    observed = _ratio(weights @ ((counts * (counts - 1)).sum(axis=1) / (size * (size - 1))), weights.sum())
    shares = weights @ counts / (weights @ size)
    expected = float(shares @ shares)
    return _ratio(observed - expected, 1 - expected)


def krippendorff_alpha(counts: Floats, weights: Floats) -> float:
    """Give Krippendorff's alpha for nominal categories (Krippendorff 2004, chapter 11): 1 - observed / expected disagreement."""
    size = counts.sum(axis=1)
    total = float(weights @ size)
    observed = float(weights @ ((size**2 - (counts**2).sum(axis=1)) / (size - 1))) / total
    pooled = weights @ counts
    expected = (total**2 - float(pooled @ pooled)) / (total * (total - 1))
    return 1 - _ratio(observed, expected)


def cohen_kappa(table: Floats) -> float:
    """Give Cohen's kappa (1960) of two annotators.

    Args:
        table: (categories, categories), how often one said the row and the other the column.
    """
    total = table.sum()
    expected = float(table.sum(axis=1) @ table.sum(axis=0)) / total**2
    return _ratio(float(np.trace(table)) / total - expected, 1 - expected)


def estimate(measure: Measure, counts: Floats, *, seed: int = 0) -> Estimate:
    """Measure, with the interval of a bootstrap over items (Efron 1979; percentiles 2.5 and 97.5).

    Args:
        measure: one of the above.
        counts: (items, categories); items with fewer than two annotators are left out here.
        seed: of the resampling.
    """
    shared = counts[counts.sum(axis=1) >= 2].astype(float)
    items = len(shared)
    if not items:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = measure(shared, np.ones(items))
    patterns, times = np.unique(shared, axis=0, return_counts=True)  # items that were judged alike count together
    draws = np.random.default_rng(seed).multinomial(items, times / items, size=RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [measure(patterns, weights.astype(float)) for weights in draws]
    return Estimate(value, *_percentiles(found), items)


def share(successes: float, trials: float) -> Estimate:
    """Give a share with Wilson's interval (1927)."""
    if not trials:
        return Estimate(np.nan, np.nan, np.nan, 0)
    z2 = 1.959963984540054**2
    rate = successes / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (rate * (1 - rate) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return Estimate(float(rate), float(max(0.0, centre - half)), float(min(1.0, centre + half)), int(trials))


def ceiling(agreement: float) -> float:
    """Give the accuracy, against single votes, of a model that always knows which answer most people prefer.

    Two people agree on an item with probability p^2 + (1 - p)^2, where p is the share of people who prefer its first answer;
    the model is right with probability max(p, 1 - p). Over items, p is taken to be Beta(a, a). Then the mean agreement is
    (a + 1) / (2 a + 1), which gives a, and the ceiling is 1/2 + E|p - 1/2|. Whatever the distribution, the ceiling lies
    between the agreement A itself (opinion split sharply) and 1/2 + sqrt((A - 1/2) / 2) (split alike on every item).
    """
    from scipy.special import betaln

    if not agreement > 0.5:
        return 0.5 if agreement <= 0.5 else float("nan")
    if agreement >= 1:
        return 1.0
    a = (1 - agreement) / (2 * agreement - 1)
    # E|p - 1/2| of Beta(a, a) = 1 / (4^a a B(a, a))
    return float(0.5 + np.exp(-a * np.log(4) - np.log(a) - betaln(a, a)))


def _percentiles(found: list[float]) -> tuple[float, float]:
    known = np.array(found)[np.isfinite(found)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _ratio(part: float, whole: float) -> float:
    """Divide; where there is nothing to divide by, nothing is known."""
    return float(part) / float(whole) if whole else float("nan")
