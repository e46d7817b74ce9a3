"""Two models on the same pairs, of prompts that neither was trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lsplugin.files import read_json
from lsplugin.preferences import prompt_text, read_pairs
from rm_lightning.data import split_places
from rm_lightning.errors import RewardModelError
from rm_lightning.finish import MARKER
from rm_lightning.statistics import design_effect, distinct
from rm_lightning.store import TIE, prompt_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from lsplugin.preferences import Pair
    from rm_lightning.scorer import Attempt, RewardScorer

TEST = "test_pairs.jsonl"
"""In a model's folder: the pairs that neither trained it nor chose anything."""

_PAIRS = 32
"""Pairs that are scored at once: predictions that wait meanwhile wait no longer than that."""


class Comparison(NamedTuple):
    """How much more often a new model is right than an old one.

    Attributes:
        pairs: decided pairs that both were asked about.
        prompts: how many prompts they are of.
        old: share of them in which the old model prefers the better answer.
        new: share of the new one.
        low: end of the 95% interval of new - old.
        high: its other end.
    """

    pairs: int
    prompts: int
    old: float
    new: float
    low: float
    high: float

    def __str__(self) -> str:
        """Say it in a line."""
        gain = f"{self.new - self.old:+.3f} (95% interval {self.low:+.3f} to {self.high:+.3f})"
        return f"accuracy {self.old:.3f} -> {self.new:.3f}, {gain}, on {self.pairs} pairs of {self.prompts} held-out prompts"


def held_out(old: Path, new: Path) -> list[Pair]:
    """Give the test pairs of a new model whose prompts the old one was not trained on either.

    A split deals prompts by a keyed hash, the lowest to the test. So a prompt at or below the old test's highest was in the old
    test, or not in the old data at all.

    Args:
        old: folder of a model of `fit`.
        new: of another, fitted with the same seed; with another, fewer prompts are left.

    Raises:
        RewardModelError: nothing is left to compare the models on, or a folder does not say what it held out.
    """
    for folder in (old, new):
        if not (folder / TEST).is_file():
            raise RewardModelError(
                f"{folder}: expected {TEST}, pairs that `fit` held out, to compare a refit on; fit it with --data.test above 0"
            )
    told: dict[str, Any] = read_json(old / MARKER)
    seed, up_to = told.get("seed"), told.get("test_up_to")
    known = {prompt_text(pair.prompt) for pair in read_pairs(old / TEST)}

    def untrained(pair: Pair) -> bool:
        if prompt_text(pair.prompt) in known:
            return True
        if seed is None or up_to is None:
            return False
        return int(split_places(np.array([prompt_key(pair.prompt)]), int(seed))[0]) <= int(up_to)

    pairs = [pair for pair in read_pairs(new / TEST) if pair.probability != TIE and untrained(pair)]
    if not pairs:
        raise RewardModelError(
            f"none of the new model's held-out prompts was held out of the old one, too, so {old} and {new} cannot be compared"
        )
    return pairs


def compare(
    old: RewardScorer,
    new: RewardScorer,
    pairs: Sequence[Pair],
    *,
    run: Callable[[Callable[[], Attempt]], Attempt] = lambda work: work(),
) -> Comparison:
    """Compare two models; a pair that one of them cannot read is left out.

    Args:
        old: a model.
        new: another.
        pairs: decided ones, that neither was trained on.
        run: runs each batch, as among the predictions of a model that serves.

    Raises:
        RewardModelError: no pair is left.
    """
    parts = [pairs[at : at + _PAIRS] for at in range(0, len(pairs), _PAIRS)]
    right = [torch.cat([_right(scorer, part, run) for part in parts]) for scorer in (old, new)]
    both = ~(right[0].isnan() | right[1].isnan())
    keys = torch.tensor([prompt_key(pair.prompt) for pair in pairs])[both]
    if not len(keys):
        raise RewardModelError(f"none of {len(pairs)} held-out pairs can be read by both models")
    before, after = right[0][both], right[1][both]
    low, high = paired_interval(after - before, keys)
    return Comparison(len(keys), len(distinct(keys).values), float(before.mean()), float(after.mean()), low, high)


def paired_interval(gains: Tensor, groups: Tensor, *, z: float = 1.959964) -> tuple[float, float]:
    """Give the interval of a difference of two shares that were counted on the same n things.

    Half a thing is added to each of the four cells (Agresti and Min 2005, Statistics in Medicine 24, section 4), so that two
    models that agree everywhere still have an interval; n is divided by the design effect of the groups. With s = sum gains and
    q = sum gains^2:

        d = s / (n + 2),    variance = [q + 1 - s^2 / (n + 2)] / (n + 2)^2

    Args:
        gains: 1 where only the second was right, -1 where only the first, else 0, or halves of them, (n,), n >= 1.
        groups: equal for things that go alike, (n,).
        z: normal quantile; 1.96 gives 95%.
    """
    shrunk = 1 / design_effect(gains, groups) if bool(gains.any()) else len(distinct(groups).values) / len(groups)
    count, total, squares = (float(value) * shrunk for value in (len(gains), gains.sum(), (gains**2).sum()))
    middle = total / (count + 2)
    half = z * math.sqrt(max(0.0, squares + 1 - total**2 / (count + 2))) / (count + 2)
    return max(-1.0, middle - half), min(1.0, middle + half)


def _right(scorer: RewardScorer, pairs: Sequence[Pair], run: Callable[[Callable[[], Attempt]], Attempt]) -> Tensor:
    """Say of each pair whether the better answer has the higher score: 1, 0, or a half; NaN where it has none; (n,) float64."""
    prompts = [pair.prompt for pair in pairs for _ in range(2)]
    answers = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
    attempt = run(lambda: scorer.attempt(prompts, answers))
    scores = torch.full((2 * len(pairs),), math.nan, dtype=torch.float64)
    scores[attempt.places] = attempt.scores.mean(dim=1).double()
    chosen, rejected = scores.view(-1, 2).unbind(1)  # (2n,) -> (n,), (n,)
    better = torch.tensor([1.0 if pair.probability is None or pair.probability > TIE else -1.0 for pair in pairs])
    difference = (chosen - rejected) * better
    return torch.where(difference.isnan(), difference, (difference.sign() + 1) / 2)  # the sign of NaN is 0
