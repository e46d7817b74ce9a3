"""All that a project's labels hold, as two tables: what reports are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsplugin.interface import Interface
from lsplugin.judged import Accounting, Judged, read_judged
from lsplugin.notes import notes
from lsplugin.plan import GOLD
from lsplugin.preferences import prompt_text
from lsplugin.prelabel import PRELABEL
from lsplugin.votes import Votes

if TYPE_CHECKING:
    from collections.abc import Iterable

USED = "used"


@dataclass(frozen=True)
class Labels:
    """What people said.

    Attributes:
        votes: one row a vote on two answers, see `lsplugin.votes.Votes`: `item`, `annotator`, `task`, `choice` (1 the item's
            first answer, -1 its second, 0 a tie), `left` (1 the left one was chosen, -1 the right one, 0 a tie), `longer` (1
            the longer one, -1 the shorter, 0 a tie or equal length), `gold` and `prelabel` (whether the choice agrees with
            them; None where there is none), `shown` (whether people saw the pre-label), `first_model`, `second_model`.
        annotations: one row an annotation: `annotator`, `task`, `seconds`, `created`, `characters` (of prompt and answers),
            `outcome` (used, or why it was dropped), `reasons`, `criteria` (of each, whether it prefers the chosen answer: 1,
            -1, or 0 where the answers are level in it).
        columns: the votes as numbers.
        tasks: how many tasks there are.
        balanced: whether the dataset's answers stood on either side about equally often.
    """

    votes: pd.DataFrame
    annotations: pd.DataFrame
    columns: Votes
    tasks: int
    balanced: bool


def read_labels(
    tasks: Iterable[dict[str, Any]], *, interface: Interface | None = None, skip_bad: bool = False
) -> Labels:
    """Read all annotations of an export.

    Args:
        tasks: as `read_export` yields them.
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: take what cannot be understood for dropped instead of stopping at it.
    """
    accounting, columns = Accounting(), Votes()
    votes: list[tuple[Any, ...]] = []
    annotations: list[tuple[Any, ...]] = []
    for judged in read_judged(tasks, accounting, interface or Interface(), skip_bad=skip_bad):
        annotations.append(_annotation(judged))
        rows = columns.add(judged)
        for row, (first, second, _) in zip(rows, columns.items_of(judged), strict=True):
            votes.append(_vote(judged, first, second, columns.choice[row]))
    table = pd.DataFrame(
        votes, columns=["longer", "gold", "prelabel", "shown", "first_model", "second_model", "task", "in_order"]
    )
    names = np.array(list(columns.annotators), dtype=object)
    table["item"], table["choice"] = np.array(columns.item, dtype=int), np.array(columns.choice, dtype=int)
    table["annotator"] = names[np.array(columns.annotator, dtype=int)] if len(columns) else []
    table["left"] = table["choice"] * np.array(columns.side, dtype=int)
    heads = ["annotator", "task", "seconds", "created", "characters", "outcome", "reasons", "criteria"]
    said = pd.DataFrame(annotations, columns=heads)
    said["created"] = pd.to_datetime(said["created"], utc=True, errors="coerce", format="ISO8601")
    said["seconds"] = pd.to_numeric(said["seconds"], errors="coerce")
    in_order = table.pop("in_order").mean() if len(table) else 1.0
    return Labels(table, said, columns, accounting.tasks, bool(0.4 < in_order < 0.6))


def _annotation(judged: Judged) -> tuple[Any, ...]:
    characters = len(prompt_text(judged.prompt)) + sum(map(len, judged.texts))
    made = judged.annotation
    outcome = judged.dropped or USED
    said = notes(judged)
    criteria = {name: _follows(judged, place) for name, place in said.get("criteria", {}).items()}
    seconds, created = made.get("lead_time"), made.get("created_at")
    created = created if isinstance(created, str) and created.isascii() else None
    return (
        judged.annotator,
        judged.task.get("id"),
        seconds,
        created,
        characters,
        outcome,
        said.get("reasons", []),
        criteria,
    )


def _follows(judged: Judged, place: int | None) -> int:
    """Say whether a criterion prefers the answer that was chosen on the whole (1), another one (-1), or none (0)."""
    if place is None or judged.judgement is None or len(judged.judgement.tiers) < 2:
        return 0
    return 1 if place in judged.judgement.tiers[0] else -1


def _vote(judged: Judged, first: int, second: int, choice: int) -> tuple[Any, ...]:
    prelabel = judged.task_meta.get(PRELABEL)
    lengths = len(judged.texts[first]) - len(judged.texts[second])
    return (
        choice * ((lengths > 0) - (lengths < 0)),
        _agrees(judged, judged.task_meta.get(GOLD), first, second, choice),
        _agrees(judged, judged.task_meta.get(PRELABEL), first, second, choice),
        prelabel.get("shown") if isinstance(prelabel, dict) else None,
        judged.model(first),
        judged.model(second),
        judged.task.get("id"),
        judged.names[min(first, second)] < judged.names[max(first, second)],
    )


def _agrees(judged: Judged, said: Any, first: int, second: int, choice: int) -> bool | None:  # noqa: ANN401 - from a task's meta
    """Say whether a choice is what the meta holds for better; None where it holds nothing of these two."""
    answer = said.get("answer") if isinstance(said, dict) else None
    known = {judged.names[first]: 1, judged.names[second]: -1, "tie": 0}
    return known[answer] == choice if isinstance(answer, str) and answer in known else None
