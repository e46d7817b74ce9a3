"""Which comparisons to look at again: those that people dispute most, as tasks for somebody who decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.dataset import KEY, ORDER
from lsplugin.interface import Interface
from lsplugin.judged import Accounting, read_judged
from lsplugin.plan import GOLD, MIRROR
from lsplugin.prelabel import PRELABEL
from lsplugin.votes import Votes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Row = dict[str, Any]
_LEFT_BEHIND = {KEY, ORDER, GOLD, MIRROR, PRELABEL}
"""What of a task's meta does not hold for it when it is asked anew."""


class Disputed(NamedTuple):
    """A task that people disagree on.

    Attributes:
        task: its number on the server.
        dispute: how evenly the votes are split, 1 for evenly: 1 - |for - against| / (votes + 2); of the most disputed two
            answers, where there are more.
        votes: how many votes there are for each answer of the dataset, and for ties.
        row: the task as a row of a dataset, the answers under the names that the dataset gave them.
    """

    task: Any
    dispute: float
    votes: dict[str, int]
    row: Row


def disputed(
    read: Callable[[], Iterable[dict[str, Any]]],
    *,
    top: int,
    interface: Interface | None = None,
    skip_bad: bool = False,
) -> list[Disputed]:
    """Find the tasks whose annotators disagree, the most evenly split first, more votes before fewer.

    Args:
        read: opens the export anew and yields its tasks; it is read twice.
        top: how many at most.
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: pass over what cannot be understood instead of stopping at it.
    """
    interface = interface or Interface()
    votes = Votes()
    for judged in read_judged(read(), Accounting(), interface, skip_bad=skip_bad):
        votes.add(judged)
    if not len(votes):
        return []
    item, choice = np.array(votes.item, dtype=int), np.array(votes.choice, dtype=int)
    first, second, level = (np.bincount(item, weights=choice == said, minlength=votes.items) for said in (1, -1, 0))
    total = first + second + level
    differ = np.sum([count > 0 for count in (first, second, level)], axis=0) > 1
    split = np.where(differ, 1 - np.abs(first - second) / (total + 2), 0.0)
    wanted = {int(number) for number in np.lexsort((-total, -split))[:top] if split[number] > 0}
    found: dict[int, Disputed] = {}
    taken: set[str] = set()
    for judged in read_judged(read(), Accounting(), interface, skip_bad=skip_bad):
        for one, other, number in votes.items_of(judged):
            task = judged.task.get("id")
            if number in wanted and number not in found and repr(task) not in taken:
                names = judged.names[one], judged.names[other], "tie"
                counts = dict(zip(names, map(int, (first[number], second[number], level[number])), strict=True))
                found[number] = Disputed(task, float(split[number]), counts, _row(judged.task, judged.names, interface))
                taken.add(repr(task))
    return sorted(found.values(), key=lambda case: (-case.dispute, -sum(case.votes.values())))


def rows(cases: Sequence[Disputed]) -> Iterator[Row]:
    """Give the tasks as a dataset to decide on: `lsplugin create --tasks` takes it; what was said stands in the meta alone."""
    for case in cases:
        said = {"task": case.task, "votes": case.votes}
        yield case.row | {"meta": case.row.get("meta", {}) | {"triage": said}}


def _row(task: dict[str, Any], names: Sequence[str], interface: Interface) -> Row:
    """Give a task as its dataset's row: the answers in the dataset's order, without what was derived."""
    data: dict[str, Any] = task["data"]
    fields = interface.fields_of(data)
    texts = {name: data[field] for field, name in zip(fields, names, strict=False) if field in data}
    derived = {interface.items, *fields, *(field + MARKDOWN_SUFFIX for field in fields)}
    rest = {name: value for name, value in data.items() if name not in derived}
    found = task.get("meta")
    meta = {name: value for name, value in found.items() if name not in _LEFT_BEHIND} if isinstance(found, dict) else {}
    if set(names) != set(fields):  # two of more answers: they keep their names in the meta
        meta[ORDER] = sorted(names)
    own = {field: texts[name] for field, name in zip(fields, sorted(names), strict=False) if name in texts}
    return rest | own | {"meta": meta}
