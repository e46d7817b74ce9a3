"""Evidence against an annotator that may be looked at after every label.

An ordinary test's error rate holds for one look; who looks every day flags honest people in the end. These are betting scores
instead: against "the share is at most p", bet on a share drawn evenly from above p. The stake never grows on average while the
claim is true, so it ever exceeds 1 / alpha with probability alpha at most (Ville 1939; the mixture is Robbins' of 1970).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def above(successes: npt.ArrayLike, trials: npt.ArrayLike, share: npt.ArrayLike) -> Floats:
    """Give the log of the evidence that the share of successes is above `share`.

    Args:
        successes: k, any shape.
        trials: n, the same shape.
        share: p, the largest that is still innocent; strictly between 0 and 1; one for all or the same shape.

    Returns:
        log of 1/(1 - p) times the integral over q from p to 1 of (q/p)^k ((1 - q)/(1 - p))^(n - k): 0 with no trials.
    """
    from scipy.special import betaincc, betaln

    k, n, share = (np.asarray(values, dtype=float) for values in (successes, trials, share))
    with np.errstate(divide="ignore"):
        mass = betaln(k + 1, n - k + 1) + np.log(betaincc(k + 1, n - k + 1, share))
    return np.asarray(mass - k * np.log(share) - (n - k + 1) * np.log1p(-share))


def below(successes: npt.ArrayLike, trials: npt.ArrayLike, share: npt.ArrayLike) -> Floats:
    """Give the log of the evidence that the share of successes is below `share`; see `above`."""
    k, n = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    return above(n - k, n, 1 - np.asarray(share, dtype=float))


def outside(successes: npt.ArrayLike, trials: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Floats:
    """Give the log of the evidence that the share of successes is below `low` or above `high`: half the stake on each."""
    return np.asarray(np.logaddexp(above(successes, trials, high), below(successes, trials, low)) - np.log(2))
