"""What ends a run before its time: too far from the start, or a reward that rises while a judge's score falls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ppo.core import Moments, updated_moments

if TYPE_CHECKING:
    from torch import Tensor

    from ppo.settings import PPOConfig

ERRORS = 2.0
"""By how many standard errors of the difference a judge's score must have fallen to count as fallen."""
LENGTHENED = 1.5
"""By what factor answers may grow or shrink before somebody is told."""


class Verdict(NamedTuple):
    """What is to be done after a look at a batch.

    Attributes:
        keep: the policy that wrote it is the one to export, for now.
        ended: why the run ends here; None where it goes on.
        warning: what a person should hear of.
    """

    keep: bool = False
    ended: str | None = None
    warning: str | None = None


@dataclass
class Guard:
    """What a run remembers to see whether it still goes well.

    A judge is a reward that the policy is not tuned on. While a policy gets better both rise; where the reward rises and the
    judge falls, the policy is learning the reward's mistakes (Gao et al. 2022, arXiv 2210.10760).

    Attributes:
        judged: moments of the judge's scores in the window that is open, (total, mean, variance).
        rewarded: moments of the rewards of the same answers.
        batches: judged batches in that window.
        best: the best closed window: the judge's mean, its squared standard error, the reward's mean.
        falls: closed windows in a row in which the judge had fallen while the reward had risen.
        first_length: mean length of the first batch, tokens.
        warned: somebody was told of the length.
    """

    judged: tuple[float, ...] = Moments()
    rewarded: tuple[float, ...] = Moments()
    batches: int = 0
    best: tuple[float, float, float] | None = None
    falls: int = 0
    first_length: float | None = None
    warned: bool = False

    def look(self, config: PPOConfig, metrics: dict[str, float], scores: Tensor, judged: Tensor | None) -> Verdict:
        """Look at a batch before it is learned from.

        Args:
            config: settings.
            metrics: of the batch; `kl` and `length` are read.
            scores: of the reward, (B,).
            judged: of the judge, (B,); None where it was not asked.
        """
        warning = self._length(metrics["length"])
        limit = config.kl_limit
        if limit is not None and metrics["kl"] > limit:
            return Verdict(ended=f"KL {metrics['kl']:.2f} nats passed --kl-limit {limit:g}", warning=warning)
        if judged is not None:
            keep, ended = self._judge(config, scores, judged)
            if keep or ended:
                return Verdict(keep, ended, warning)
        return Verdict(keep=limit is not None and self.best is None, warning=warning)

    def _judge(self, config: PPOConfig, scores: Tensor, judged: Tensor) -> tuple[bool, str | None]:
        """Say whether a window that closes here is the best, and whether the run ends with it."""
        self.judged = updated_moments(_moments(self.judged), judged)
        self.rewarded = updated_moments(_moments(self.rewarded), scores)
        self.batches += 1
        if self.batches < config.judge_window:
            return False, None
        (total, mean, variance), reward = self.judged, self.rewarded[1]
        error = variance / total
        self.judged, self.rewarded, self.batches = Moments(), Moments(), 0
        if self.best is None or mean > self.best[0]:
            self.best, self.falls = (mean, error, reward), 0
            return True, None
        best_mean, best_error, best_reward = self.best
        fallen = best_mean - mean > ERRORS * math.sqrt(error + best_error) and reward > best_reward
        self.falls = self.falls + 1 if fallen else 0
        if self.falls < config.judge_patience:
            return False, None
        return (
            False,
            f"the judge fell from {best_mean:.3f} to {mean:.3f} while the reward rose from {best_reward:.3f} to {reward:.3f}",
        )

    def _length(self, length: float) -> str | None:
        """Tell once of answers that have become much longer or shorter: a reward may like length alone."""
        if self.first_length is None:
            self.first_length = length
        if self.warned or self.first_length / LENGTHENED <= length <= self.first_length * LENGTHENED:
            return None
        self.warned = True
        return (
            f"answers have {length:.1f} tokens on average, at first they had {self.first_length:.1f}: read some of them"
        )


def _moments(plain: tuple[float, ...]) -> Moments:
    total, mean, variance = plain
    return Moments(int(total), mean, variance)
