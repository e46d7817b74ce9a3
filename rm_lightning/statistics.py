"""Intervals for what is counted."""

from __future__ import annotations

import math


def wilson_interval(successes: float, trials: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Give the Wilson score interval of a share (Wilson 1927, equation 4 of Brown, Cai and DasGupta 2001).

    Args:
        successes: how often it happened; halves are allowed (ties).
        trials: out of how many.
        z: normal quantile; 1.96 gives 95%.

    Returns:
        (low, high), within 0..1; (0, 1) without trials.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)
