"""Which annotators to talk to, and why: five questions, each with the share that is still innocent and the evidence against it.

Somebody is flagged when the evidence against one answer exceeds `1 / (ALPHA / 5)`. So an annotator who is innocent of all five is
ever flagged, however often one looks, with probability `ALPHA` at most. What is innocent is measured on the others, and lies well
on the suspect's side of them: people differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lsplugin.evidence import above, below, outside

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ALPHA = 0.01
"""Chance that an innocent annotator is ever flagged."""

LEAN = 0.1
"""By how much an honest annotator's share of left may differ from the others'."""

FAST_SHARE = 0.1
"""Share of answers that an honest annotator may give faster than they can be read."""

KNOWING = 0.6
"""How far an honest annotator comes at least, on the way from a coin to the others: people are not equally sharp."""

PULLED = 0.25
"""How far an honest annotator comes at most, on the way from the others to always choosing the longer answer."""

READING = 100.0
"""Characters a second that nobody reads: five times as many as good readers do."""

PULL_TO_LENGTH = 0.62
"""Share of the longer answer where the others do not tell: AlpacaFarm's people prefer it in 62% (Dubois et al. 2023)."""


@dataclass(frozen=True)
class Question:
    """One thing that can be wrong with an annotator.

    Attributes:
        flag: what they are called then.
        test: what is tested, for a reader.
        successes: how often it happened.
        trials: out of how many.
        innocent: the share that is still innocent.
        evidence: log of the evidence against that.
    """

    flag: str
    test: str
    successes: int
    trials: int
    innocent: str
    evidence: float

    @property
    def flagged(self) -> bool:
        """Whether the evidence is enough."""
        return self.evidence >= threshold()


def threshold() -> float:
    """Give the log of the evidence that is needed: five questions share ALPHA."""
    return float(np.log(5 / ALPHA))


@dataclass(frozen=True)
class Norms:
    """What the others do, each a share between 0 and 1.

    Attributes:
        left: of the left answer among preferences.
        longer: of the longer answer among preferences.
        agreement: with what most others say of the same answers.
        gold: of known answers found.
    """

    left: float = 0.5
    longer: float = PULL_TO_LENGTH
    agreement: float = 0.75
    gold: float = 0.9


def one_sided(left: npt.ArrayLike, preferences: npt.ArrayLike, norms: Norms) -> Floats:
    """Evidence that somebody chooses one side too often."""
    return outside(left, preferences, _inside(norms.left - LEAN), _inside(norms.left + LEAN))


def longest(longer: npt.ArrayLike, preferences: npt.ArrayLike, norms: Norms) -> Floats:
    """Evidence that somebody chooses the longer answer far more often than the others."""
    return above(longer, preferences, most(norms.longer))


def too_fast(fast: npt.ArrayLike, timed: npt.ArrayLike) -> Floats:
    """Evidence that somebody answers faster than the texts can be read, more often than by a slip."""
    return above(fast, timed, FAST_SHARE)


def random(agreed: npt.ArrayLike, shared: npt.ArrayLike, norms: Norms) -> Floats:
    """Evidence that somebody agrees with the others little more than a coin would."""
    return below(agreed, shared, least(norms.agreement))


def misses_gold(found: npt.ArrayLike, asked: npt.ArrayLike, norms: Norms) -> Floats:
    """Evidence that somebody finds known answers little more often than a coin would."""
    return below(found, asked, least(norms.gold))


def least(norm: npt.ArrayLike) -> Floats:
    """Give the smallest innocent share of agreements, or of known answers found, where the others have `norm`."""
    return _inside(0.5 + KNOWING * (np.asarray(norm) - 0.5))


def most(norm: npt.ArrayLike) -> Floats:
    """Give the largest innocent share of longer answers where the others have `norm`."""
    return _inside(np.asarray(norm) + PULLED * (1 - np.asarray(norm)))


def _inside(share: npt.ArrayLike) -> Floats:
    return np.clip(np.asarray(share, dtype=float), 0.02, 0.98)


@dataclass(frozen=True)
class Counts:
    """What an annotator did, as successes and trials: shares are the first of each by the second."""

    left: tuple[int, int]
    longer: tuple[int, int]
    fast: tuple[int, int]
    agreed: tuple[int, int]
    gold: tuple[int, int]


def questions(counts: Counts, norms: Norms) -> list[Question]:
    """Ask all five questions about one annotator.

    Args:
        counts: what they did.
        norms: what the others do.
    """
    asked = [
        ("one-sided", "chooses one side too often", counts.left, f"{norms.left:.0%} left, give or take {LEAN:.0%}",
         one_sided(*counts.left, norms)),
        ("longest", "chooses the longer answer too often", counts.longer, f"at most {most(norms.longer):.0%}",
         longest(*counts.longer, norms)),
        ("too fast", f"answers faster than {READING:.0f} characters a second can be read", counts.fast,
         f"at most {FAST_SHARE:.0%}", too_fast(*counts.fast)),
        ("random", "agrees with most others hardly more than a coin", counts.agreed, f"at least {least(norms.agreement):.0%}",
         random(*counts.agreed, norms)),
        ("misses gold", "finds known answers hardly more than a coin", counts.gold, f"at least {least(norms.gold):.0%}",
         misses_gold(*counts.gold, norms)),
    ]  # fmt: skip
    return [Question(flag, test, *done, innocent, float(evidence)) for flag, test, done, innocent, evidence in asked]
