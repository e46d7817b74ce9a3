"""Which of several sampled answers are worth comparing."""

from __future__ import annotations

import random
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ppo.errors import PPOError
from ppo.reward import content_of
from rm_lightning.scoring import model_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ppo.choice import Choice
    from ppo.policy import Policy


_SHORT = 12  # characters of a digest that people read


def select(choice: Choice, count: int, scores: Tensor | None, *, draw: str) -> list[int]:
    """Choose `choice.answers` of `count` candidates; gives their places, ascending, so that an order says nothing of rewards.

    Args:
        choice: what to keep.
        count: candidates, C; as many as are kept, or more.
        scores: of each candidate by each member, (C, K); None without a reward.
        draw: what a random choice is drawn from; the same gives the same.

    Raises:
        PPOError: `uncertain` with less than two members.
    """
    kept = choice.answers
    if choice.select == "first":
        return list(range(kept))
    if choice.select == "random":
        return sorted(random.Random(draw).sample(range(count), kept))
    assert scores is not None  # the caller has a reward for these
    if choice.select == "uncertain":
        return sorted(disputed(scores, kept))
    ranking = scores.mean(dim=1).argsort(descending=True, stable=True).tolist()
    if choice.select == "best":
        return sorted(ranking[:kept])
    return sorted(ranking[round(place * (count - 1) / (kept - 1))] for place in range(kept))


def disputed(scores: Tensor, kept: int) -> list[int]:
    """Find answers on whose order the members disagree most.

    First the pair with the largest standard deviation, over the members, of the difference of its rewards; then, one at a time,
    the answer that adds most to the sum over pairs. Source: Christiano et al. 2017 (arXiv 1706.03741), section 2.2.4, where the
    ensemble's variance chooses the queries.

    Args:
        scores: (C, K).
        kept: how many, 2 or more.

    Raises:
        PPOError: K is less than 2.
    """
    if scores.shape[1] < 2:
        raise PPOError(
            "--select uncertain: expected two members or more, who can disagree, found one; fit the reward model with "
            "--model.members 4, or name several with --reward A --reward B"
        )
    # Over members k, s_ij is the deviation of r_ik - r_jk: (C, C).
    spread = (scores.double().unsqueeze(1) - scores.double().unsqueeze(0)).std(dim=2)
    first, second = max(combinations(range(len(scores)), 2), key=lambda pair: float(spread[pair]))
    chosen = [first, second]
    while len(chosen) < kept:
        rest = [place for place in range(len(scores)) if place not in chosen]
        chosen.append(max(rest, key=lambda place: float(spread[place, chosen].sum())))
    return chosen


def origin(policy: Policy, rewards: Sequence[str]) -> dict[str, Any]:
    """Name what answers and their rewards come from, by the content of its files, so that a copy elsewhere is the same."""
    found: dict[str, Any] = {"digest": model_digest(policy.name)[:_SHORT], "device": policy.model.device.type}
    return found | ({"reward_digests": {name: content_of(name) for name in rewards}} if rewards else {})
