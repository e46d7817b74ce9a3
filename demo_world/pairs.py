"""Preference pairs without a server: the base model answers, the simulated annotators choose, the result is cached."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from demo_world.annotators import CREW, Annotator, Side
from demo_world.base import base_model, cache_root, source_key
from demo_world.corpus import prompts, split
from lsplugin.preferences import Pair, write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    Progress = Callable[[int, int], None]

DEFAULT_TASKS = 1020
"""Tasks behind `default_pairs`; a few end without a choice, which leaves about a thousand pairs."""


class Task(NamedTuple):
    """Two different answers of one prompt, on the sides an annotator sees them on."""

    prompt: str
    left: str
    right: str


def make_tasks(folder: Path, texts: Sequence[str], *, seed: int, progress: Progress | None = None) -> list[Task]:
    """Draw two answers a prompt from the model in `folder`; prompts whose two answers are equal make no task.

    Sides need no shuffling here: both answers come from the same distribution, in the order they were drawn.
    """
    from demo_world.sampling import sample_answers

    twice = [text for text in texts for _ in range(2)]
    answers = sample_answers(folder, twice, seed=seed, progress=progress)
    return [
        Task(text, left, right)
        for text, left, right in zip(texts, answers[::2], answers[1::2], strict=True)
        if left.strip() != right.strip()
    ]


def simulated_pairs(tasks: Iterable[Task], *, seed: int, crew: Sequence[Annotator] = CREW) -> list[Pair]:
    """Let the crew take turns, one judgement a task; who skips hands the task on, an empty submission makes no pair."""
    pairs = []
    for number, task in enumerate(tasks):
        turn = number % len(crew)
        for annotator in (*crew[turn:], *crew[:turn]):
            action = annotator.act(seed, *task)
            if action in ("left", "right"):
                pairs.append(_pair(number, task, annotator, "left" if action == "left" else "right"))
            if action != "skipped":
                break
    return pairs


def default_pairs(seed: int = 0, *, progress: Progress | None = None) -> Path:
    """Give a cached pairs.jsonl of about a thousand pairs over train prompts; it is made when it is not there yet.

    Args:
        seed: of the base model, the answers and the crew.
        progress: called with (steps done, steps in all), first for the base model and then for the answers.
    """
    from filelock import FileLock

    modules = ("base", "corpus", "gold", "sampling", "annotators", "pairs")
    path = cache_root() / f"pairs-{source_key(modules, seed)}.jsonl"
    if path.is_file():
        return path
    folder = base_model(seed, progress=progress)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            train, _ = split(prompts(seed))
            texts = random.Random(f"tasks {seed}").choices(train, k=DEFAULT_TASKS)
            write_pairs(path, simulated_pairs(make_tasks(folder, texts, seed=seed, progress=progress), seed=seed))
    return path


def _pair(number: int, task: Task, annotator: Annotator, side: Side) -> Pair:
    """Name the chosen side's answer chosen, and say where the pair comes from."""
    chosen, rejected = (task.left, task.right) if side == "left" else (task.right, task.left)
    meta = {"task": number, "annotators": [annotator.name], "chosen_side": side, "simulated": True}
    return Pair(prompt=task.prompt, chosen=chosen, rejected=rejected, meta=meta)
