"""How many answers are sampled, and which are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ppo.errors import PPOError

SELECTIONS = ("first", "random", "max-min", "uncertain", "best")
BY_REWARD = ("max-min", "uncertain", "best")
"""Selections that ask a reward."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How many answers are sampled, and which are kept.

    Raises:
        PPOError: for values that do not fit together.
    """

    answers: Annotated[int, "Distinct answers to each prompt; 1 with --select best."] = 2
    candidates: Annotated[
        int | None, "Answers sampled, of which --answers are kept; as many as --answers by default."
    ] = None
    select: Annotated[
        str,
        "Which are kept: first; random; by --reward: best, max-min (highest, lowest, and evenly between), or uncertain (where "
        "its members disagree most on which is better).",
    ] = "first"

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise PPOError(f"--select {self.select}: expected one of {', '.join(SELECTIONS)}")
        if self.answers < 1 or (self.answers == 1 and self.select != "best"):
            raise PPOError(
                f"--answers {self.answers}: a comparison needs 2 answers or more (1 is for --select best, which keeps the best)"
            )
        if self.sampled < self.answers:
            raise PPOError(f"--candidates {self.candidates} is less than --answers {self.answers}")
        if self.select != "first" and self.sampled == self.answers:
            raise PPOError(
                f"--select {self.select} has nothing to choose from: --candidates {self.sampled} is no more than "
                f"--answers {self.answers}; raise --candidates"
            )

    @property
    def sampled(self) -> int:
        """Answers sampled for each prompt."""
        return self.answers if self.candidates is None else self.candidates
