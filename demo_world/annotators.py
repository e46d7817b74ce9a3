"""Simulated annotators, a stand-in for people: they prefer the answer with the higher gold score, but not reliably.

An annotator chooses by the Bradley-Terry model, P(left) = sigmoid(beta * (gold_left - gold_right) + left_bias), where beta is
1 / temperature. Beyond that noise, which is the same for both sides, real crews have lazy clickers and people who lean to one
side; so does this one. Every random number is drawn from a key of (seed, task, annotator), so what an annotator does with a
task does not depend on which tasks came before.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demo_world.gold import score
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.preferences import Pair

Side = Literal["left", "right"]
Action = Literal["left", "right", "empty", "skipped"]
"""What an annotator does with a task; `empty` submits without choosing a side."""

ACTIONS: tuple[Action, ...] = ("left", "right", "empty", "skipped")


@dataclass(frozen=True, slots=True)
class Annotator:
    """A simulated annotator.

    Attributes:
        name: lower case letters; also the start of the e-mail address on a server.
        temperature: noise of the judgement in points of gold, above 0; at a difference of one temperature 73% agree with gold.
        left_bias: added to the log odds of left; 0 leans nowhere.
        lazy: share of tasks clicked through without reading: a side at random.
        empty: share of tasks submitted without choosing a side.
        skip: share of tasks skipped.
    """

    name: str
    temperature: float = 0.7
    left_bias: float = 0.0
    lazy: float = 0.0
    empty: float = 0.0
    skip: float = 0.02

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if not self.temperature > 0:
            raise LspluginError(f"annotator {self.name}: expected a temperature above 0, found {self.temperature}")
        for name in ("lazy", "empty", "skip"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise LspluginError(f"annotator {self.name}: expected `{name}` between 0 and 1, found {share}")

    def probability_left(self, prompt: str, left: str, right: str) -> float:
        """Give the probability that left is chosen, given that a side is chosen (lazy clicks included)."""
        return self._probability_left(score(prompt, left) - score(prompt, right))

    def choose(self, rng: random.Random, prompt: str, left: str, right: str) -> Side | None:
        """Choose a side, or none (an empty submission)."""
        if rng.random() < self.empty:
            return None
        return "left" if rng.random() < self.probability_left(prompt, left, right) else "right"

    def act(self, seed: int, prompt: str, left: str, right: str, *, may_skip: bool = True) -> Action:
        """Do one task: the same seed, annotator and task always give the same action."""
        key = json.dumps([seed, self.name, prompt, left, right])
        rng = random.Random(hashlib.blake2b(key.encode(), digest_size=16).digest())
        if rng.random() < self.skip and may_skip:
            return "skipped"
        return self.choose(rng, prompt, left, right) or "empty"

    def accuracy(self, difference: float) -> float:
        """Give the chance that the gold order of two answers is the one chosen, sides drawn at random.

        Args:
            difference: of the two gold scores, in points; at 0 there is no order and the chance is one half.
        """
        gap = abs(difference)
        return 0.5 * (self._probability_left(gap) + 1 - self._probability_left(-gap))

    def _probability_left(self, gap: float) -> float:
        # P(left) = lazy / 2 + (1 - lazy) sigmoid(beta (gold_left - gold_right) + left_bias)
        return self.lazy / 2 + (1 - self.lazy) * _sigmoid(gap / self.temperature + self.left_bias)


CREW: tuple[Annotator, ...] = (
    Annotator("ana"),
    Annotator("ben", temperature=0.6),
    Annotator("chloe", temperature=0.8),
    Annotator("dirk", lazy=0.35, empty=0.05),
    Annotator("eva", left_bias=0.8),
)
"""Three honest ones, a lazy clicker (dirk), and one who leans left (eva)."""


def attainable_accuracy(pairs: Sequence[Pair], crew: Sequence[Annotator] = CREW) -> float:
    """Give the expected accuracy of the gold order on pairs that `crew` labelled, one judgement a pair.

    No predictor can be expected to do better: with sides drawn at random, the gold order is the likelier choice of every
    annotator. Each pair counts the mean over the crew, or its own annotator where its meta names just one.
    """
    _check_some(pairs)
    by_name = {annotator.name: annotator for annotator in crew}
    total = 0.0
    for pair in pairs:
        # On a server an annotator is known by an e-mail address that starts with the name.
        names = [re.split("[.@]", str(name))[0] for name in pair.meta.get("annotators") or []]
        judges = [by_name[names[0]]] if len(names) == 1 and names[0] in by_name else list(crew)
        difference = _difference(pair)
        total += sum(judge.accuracy(difference) for judge in judges) / len(judges)
    return total / len(pairs)


def gold_accuracy(pairs: Sequence[Pair]) -> float:
    """Give the share of pairs whose chosen answer has the higher gold score; equal scores count one half."""
    _check_some(pairs)
    return sum(0.5 * (1 + (d > 0) - (d < 0)) for d in map(_difference, pairs)) / len(pairs)


def _difference(pair: Pair) -> float:
    """Gold score of chosen minus rejected, in points."""
    if not isinstance(pair.prompt, str):
        raise LspluginError("expected pairs of the demo world, whose prompts are plain text, found a conversation")
    return score(pair.prompt, pair.chosen) - score(pair.prompt, pair.rejected)


def _check_some(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise LspluginError("expected pairs to measure accuracy on, found none")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
