"""Rows of a dataset -> the tasks that people get: which answers, on which side, in which order, how often.

Everything is drawn by a keyed hash of the task itself, so the same file gives the same tasks whenever it is pushed, and a task is
recognised by its content key however it was placed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path  # noqa: TC003 - a dataclass's field, which the command line reads
from typing import TYPE_CHECKING, Annotated, Any

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.dataset import KEY, ORDER, Task, keyed, read_dataset
from lsplugin.errors import LspluginError
from lsplugin.preferences import kind
from lsplugin.prepare import answer_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml import etree

GOLD, MIRROR, SOURCE, TAGS = "gold", "mirror", "source", "tags"
"""Where in a task's meta these stand."""

SIDES_LATER = 0.25
"""A mirrored task comes at least this share of the project after its original."""


@dataclass(frozen=True)
class Plan:
    """What becomes of a dataset's rows before they are pushed."""

    pairs: Annotated[
        str | None, "Make comparisons of two out of rows with more answers: all, adjacent or random:K of each row."
    ] = None
    keep_order: Annotated[
        bool, "Show answers in the dataset's order; by default their places are balanced over the tasks."
    ] = False
    gold: Annotated[
        Path | None,
        'Mix in the tasks of this dataset, whose rows say `"gold": "answer1"` (or "tie"); they look like any other.',
    ] = None
    mirror: Annotated[str | None, "Ask this share of the tasks again later with the sides swapped, such as 5%."] = None
    predictions: Annotated[
        Path | None, 'Scores to pre-label with: lines such as {"prompt": ..., "answer": ..., "score": 1.5}.'
    ] = None
    prelabel_share: Annotated[
        float, "Show the pre-label in this share of the tasks, so that its pull on people can be measured."
    ] = 1.0
    annotators_per_task: Annotated[int | None, "How many people get each task."] = None
    source: Annotated[str | None, "Where these tasks come from; goes into their meta."] = None
    tag: Annotated[tuple[str, ...], "Tags, which go into their meta."] = ()
    seed: Annotated[int, "Another seed draws sides, copies and shares anew."] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.prelabel_share <= 1:
            raise LspluginError(f"--prelabel-share {self.prelabel_share}: expected a share between 0 and 1")
        if self.annotators_per_task is not None and self.annotators_per_task < 1:
            raise LspluginError(f"--annotators-per-task {self.annotators_per_task}: expected 1 or more")
        _ = self.mirror_share, self.picked  # refuse what cannot be read now, not after the dataset was

    @property
    def mirror_share(self) -> float:
        """Share of tasks that are asked twice, between 0 and 1."""
        try:
            text = self.mirror or "0"
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise LspluginError(f"--mirror {self.mirror}: expected a share of the tasks, such as 5% or 0.05")
        return share

    @property
    def picked(self) -> tuple[str, int]:
        """How twos of answers are picked: (all, adjacent or random; how many of each row at random)."""
        name, _, count = (self.pairs or "all").partition(":")
        if (name in {"all", "adjacent"} and not count) or (name == "random" and count.isdecimal() and int(count) > 0):
            return name, int(count or 0)
        raise LspluginError(f"--pairs {self.pairs}: expected all, adjacent or random:K, such as random:3")


def planned(rows: Sequence[Task], config: etree._Element, plan: Plan) -> list[Task]:
    """Make tasks of rows.

    Args:
        rows: of a dataset.
        config: the config's tree; its answers are what is placed.
        plan: what to do.

    Returns:
        Tasks with a content key; `meta["order"]` names the dataset's answers in the order in which they are shown.

    Raises:
        LspluginError: a plan that these rows or this config do not allow.
    """
    fields = answer_fields(config)
    tasks = keyed(_twos(rows, fields, plan) if plan.pairs is not None else rows)
    if plan.gold is not None:
        tasks = _mixed(tasks, _gold(plan.gold, fields), plan.seed)
    lists = {shown.get("value", "").removeprefix("$") for shown in config.iter("List")}
    if not plan.keep_order:
        tasks = _balanced(tasks, fields, lists, plan.seed)
    tasks = _mirrored(tasks, fields, plan)
    named = {SOURCE: plan.source, TAGS: list(plan.tag) or None}
    known = {name: value for name, value in named.items() if value is not None}
    tasks = [replace(task, meta=task.meta | known) for task in tasks]
    if plan.predictions is None:
        return tasks
    from lsplugin.prelabel import prelabelled

    return prelabelled(tasks, config, plan.predictions, share=plan.prelabel_share, seed=plan.seed)


def draw(seed: int, purpose: str, key: object) -> float:
    """Draw a number between 0 and 1 that depends on these three alone."""
    text = json.dumps([seed, purpose, str(key)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64


def _twos(rows: Sequence[Task], fields: list[str], plan: Plan) -> list[Task]:
    """Make a task of every two answers of a row that the plan picks."""
    if len(fields) != 2:
        raise LspluginError(f"--pairs: this config shows {len(fields)} answers at once; take one that compares two")
    made = []
    for row in rows:
        names = _numbered(row.data)
        if len(names) < 2:
            raise LspluginError(f"--pairs: row {row.row} has no answer1 and answer2 (it has {', '.join(row.data)})")
        rest = {name: value for name, value in row.data.items() if name.removesuffix(MARKDOWN_SUFFIX) not in names}
        how, count = plan.picked
        twos = list(pairwise(names) if how == "adjacent" else combinations(names, 2))
        if how == "random":
            content = json.dumps(row.data, sort_keys=True)
            twos = sorted(twos, key=lambda two: draw(plan.seed, f"pairs {content}", two))[:count]
        for two in twos:
            shown = _shown(row.data, dict(zip(fields, two, strict=True)))
            meta = {name: value for name, value in row.meta.items() if name != KEY}  # each two is a task of its own
            made.append(Task(rest | shown, meta | {ORDER: list(two)}, row.row))
    return made


def _numbered(data: dict[str, Any]) -> list[str]:
    """Name the answers of a row: answer1, answer2, ..., in the order of their numbers."""
    found = [name for name in data if name.startswith("answer") and name.removeprefix("answer").isdecimal()]
    return sorted(found, key=lambda name: int(name.removeprefix("answer")))


def _shown(data: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Give each field of a config what the dataset has under another name, its HTML too."""
    suffixes = ("", MARKDOWN_SUFFIX)
    return {
        field + suffix: data[name + suffix]
        for field, name in names.items()
        for suffix in suffixes
        if name + suffix in data
    }


def _gold(path: Path, fields: list[str]) -> list[Task]:
    """Read tasks with a known answer, which moves to where nobody looks."""
    made = []
    for task in read_dataset(path):
        data = dict(task.data)
        said = data.pop(GOLD, task.meta.get(GOLD))
        if said not in {*fields, "tie"}:
            raise LspluginError(
                f"{path}, row {task.row}: expected `gold` to be {', '.join(fields)} or tie, found {kind(said)}"
            )
        made.append(Task(data, task.meta | {GOLD: {"answer": said}}, task.row))
    return keyed(made)


def _mixed(tasks: list[Task], gold: list[Task], seed: int) -> list[Task]:
    """Put tasks at places drawn evenly among others, which keep their order."""
    places = [(float(place), task) for place, task in enumerate(tasks)]
    places += [(draw(seed, "gold", task.key) * len(tasks), task) for task in gold]
    return [task for _, task in sorted(places, key=lambda found: found[0])]


def _balanced(tasks: list[Task], fields: list[str], lists: set[str], seed: int) -> list[Task]:
    """Show each answer equally often in the first place: over the tasks in a drawn order they take turns.

    A task that brings the items of its ranking itself has them placed already.
    """
    free = [number for number, task in enumerate(tasks) if not lists & task.data.keys()]
    made = list(tasks)
    for rank, number in enumerate(sorted(free, key=lambda number: draw(seed, "side", tasks[number].key))):
        made[number] = _placed(tasks[number], fields, _order(tasks[number], fields, rank, seed))
    return made


def _order(task: Task, fields: list[str], rank: int, seed: int) -> list[str]:
    """Draw an order of the fields: the one whose turn it is comes first, the others as they are drawn."""
    first = fields[rank % len(fields)]
    others = sorted((name for name in fields if name != first), key=lambda name: draw(seed, f"place {name}", task.key))
    return [first, *others]


def _placed(task: Task, fields: list[str], order: list[str]) -> Task:
    """Show in each box the answer that the order names, and say so in the meta."""
    if any(name not in task.data for name in fields):
        return task  # the check that follows names what is missing
    names = dict(zip(fields, task.meta.get(ORDER) or fields, strict=True))
    shown = _shown(task.data, dict(zip(fields, order, strict=True)))
    return replace(task, data=task.data | shown, meta=task.meta | {ORDER: [names[name] for name in order]})


def _mirrored(tasks: list[Task], fields: list[str], plan: Plan) -> list[Task]:
    """Ask a share of the tasks again, later, the other way round."""
    if not plan.mirror_share:
        return tasks
    if len(fields) != 2:
        raise LspluginError(
            f"--mirror: this config shows {len(fields)} answers; sides can be swapped where there are two"
        )
    ordinary = [number for number, task in enumerate(tasks) if GOLD not in task.meta]
    drawn = sorted(ordinary, key=lambda number: draw(plan.seed, "mirror", tasks[number].key))
    places = [(float(place), task) for place, task in enumerate(tasks)]
    for number in drawn[: round(plan.mirror_share * len(ordinary))]:
        task = tasks[number]
        swapped = _placed(task, fields, fields[::-1])
        copy = replace(swapped, meta=swapped.meta | {MIRROR: task.key, KEY: f"{task.key}-mirror"})
        earliest = min(number + SIDES_LATER * len(tasks), len(tasks) - 0.5)
        later = earliest + draw(plan.seed, "later", task.key) * (len(tasks) - earliest)
        places.append((later, copy))
    return [task for _, task in sorted(places, key=lambda found: found[0])]
