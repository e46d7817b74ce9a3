"""Prompts dealt out once: for tuning, for the judge, and held out; each round draws from the first two."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from lsplugin.preferences import Prompt, part_of, prompt_text
from rounds.errors import RoundsError

if TYPE_CHECKING:
    from collections.abc import Sequence


def deal(
    prompts: Sequence[Prompt],
    held_out: Sequence[Prompt] | None,
    *,
    judge_share: float,
    held_out_share: float,
    seed: int,
) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """Deal prompts out by a keyed hash of their text: (tuning, judging, held out), no text in two.

    The reward model learns and the policy is tuned on the first, the judge learns on the second; the third is to measure on.

    Args:
        prompts: all of them; a text that comes again counts once.
        held_out: prompts to measure on; drawn from `prompts` when None.
        judge_share: of those that are not held out.
        held_out_share: what is drawn where `held_out` is None.
        seed: another seed deals anew.

    Raises:
        RoundsError: one part gets too few prompts.
    """
    apart = {prompt_text(prompt): prompt for prompt in held_out or ()}
    parts: tuple[list[Prompt], list[Prompt], list[Prompt]] = ([], [], list(apart.values()))
    share = 0.0 if held_out is not None else held_out_share
    shares = ((1 - share) * (1 - judge_share), (1 - share) * judge_share, share)
    for text, prompt in {prompt_text(prompt): prompt for prompt in prompts}.items():
        if text not in apart:
            parts[part_of(prompt, shares, seed=seed)].append(prompt)
    for name, part in zip(("tuning", "the judge", "measuring"), parts, strict=True):
        if len(part) < 2:
            raise RoundsError(
                f"expected 2 prompts or more for {name}, found {len(part)} of {len(prompts)}; give more prompts"
            )
    return parts


def draw(
    tuning: Sequence[Prompt], judging: Sequence[Prompt], *, labels: int, judge_share: float, pool: int, seed: int
) -> list[Prompt]:
    """Draw the prompts that a round answers: for the judge as many as it labels, of the others `pool` times as many.

    Args:
        tuning: see `deal`.
        judging: see `deal`.
        labels: tasks of the round.
        judge_share: of them.
        pool: prompts to choose each other task from.
        seed: of the round.
    """
    judged = round(labels * judge_share)
    return [*_drawn(tuning, pool * (labels - judged), seed), *_drawn(judging, judged, seed)]


def _drawn(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """Draw some prompts, or all; the order of the file does not matter."""
    return sorted(prompts, key=lambda prompt: place(seed, prompt_text(prompt)))[:count]


def place(seed: int, *content: object) -> str:
    """Give something its place in an order drawn at random: it depends on the seed and on its content alone."""
    return hashlib.blake2b(json.dumps([seed, *content]).encode(), digest_size=12).hexdigest()
