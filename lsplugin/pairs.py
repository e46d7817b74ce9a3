"""Annotations -> preference pairs, with every annotation accounted for.

    annotations in = annotations that prefer something + annotations dropped, each with its reason

An annotation of two answers that prefers one is one pair, so two annotators who disagree give two pairs that disagree: what a
Bradley-Terry fit wants to see. A ranking or a rating gives a pair for every two answers that it does not put level.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lsplugin.dataset import KEY
from lsplugin.errors import LspluginError
from lsplugin.interface import Interface
from lsplugin.judgement import SIDES, Dropped, Judgement, judge
from lsplugin.preferences import Pair, check_prompt, kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass
class Accounting:
    """Where every task and annotation went.

    Attributes:
        tasks: tasks read.
        unlabelled: tasks without any annotation.
        annotations: annotations read.
        used: annotations that became at least one pair.
        dropped: annotations that became none, by reason.
        pairs: pairs that came of them.
        ties: twos of answers that an annotation put level, in annotations that were used or dropped as ties.
    """

    tasks: int = 0
    unlabelled: int = 0
    annotations: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    ties: int = 0

    @property
    def balanced(self) -> bool:
        """Whether annotations in = used + dropped."""
        return self.annotations == self.used + self.dropped.total()

    def to_dict(self) -> dict[str, Any]:
        """Give the counts as JSON."""
        return {
            "tasks": self.tasks,
            "unlabelled": self.unlabelled,
            "annotations": self.annotations,
            "used": self.used,
            "dropped": dict(sorted(self.dropped.items())),
            "pairs": self.pairs,
            "ties": self.ties,
        }


def pairs_from_export(
    tasks: Iterable[dict[str, Any]],
    accounting: Accounting,
    *,
    interface: Interface | None = None,
    skip_bad: bool = False,
) -> Iterator[Pair]:
    """Turn the tasks of an export into pairs.

    Args:
        tasks: as `read_export` yields them.
        accounting: is filled while the pairs are taken.
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: count what cannot be understood instead of stopping at it.

    Raises:
        LspluginError: a value that no template stores, or a field that is missing, with the task's id.
    """
    interface = interface or Interface()
    for task in tasks:
        accounting.tasks += 1
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            raise LspluginError(
                f"task {task.get('id')}: expected `annotations`, as in Label Studio's JSON export, found {kind(annotations)}; "
                "export as JSON (lsplugin pull)"
            )
        accounting.unlabelled += not annotations
        for annotation in annotations:
            accounting.annotations += 1
            try:
                found = _pairs(task, annotation, interface, accounting)
            except Dropped as reason:
                accounting.dropped[str(reason)] += 1
            except LspluginError as error:
                if not skip_bad:
                    raise LspluginError(f"{error} (--skip-bad counts it and goes on)") from None
                accounting.dropped["not understood"] += 1
            else:
                accounting.used += 1
                accounting.pairs += len(found)
                yield from found
    assert accounting.balanced, accounting


def _pairs(
    task: dict[str, Any], annotation: dict[str, Any], interface: Interface, accounting: Accounting
) -> list[Pair]:
    where = f"task {task.get('id')}"
    data = task["data"]
    judgement = judge(annotation, interface, data, where)
    prompt = check_prompt(_field(data, interface.prompt, where), where=where)
    texts = _texts(data, interface, where, count=1 + max(place for tier in judgement.tiers for place in tier))
    compared = [(texts[better], texts[worse], better) for better, worse in judgement.preferences()]
    accounting.ties += judgement.ties
    if not compared:
        raise Dropped("a tie")
    different = [found for found in compared if found[0] != found[1]]
    if not different:
        raise Dropped("both answers are identical")
    meta = _meta(task, annotation, judgement)
    sides = len(texts) == 2
    return [
        Pair(prompt, chosen, rejected, meta=meta | ({"chosen_side": SIDES[place]} if sides else {}))
        for chosen, rejected, place in different
    ]


def _texts(data: dict[str, Any], interface: Interface, where: str, *, count: int) -> list[str]:
    """Give the answers' texts in the order in which they stand; the items of a list may bring their own."""
    items = data.get(interface.items)
    if isinstance(items, list) and items and all(isinstance(item, dict) and item.get("body") for item in items):
        return [str(item["body"]) for item in items]
    fields = interface.fields_of(data)
    if len(fields) < count:
        fields = tuple(f"answer{number}" for number in range(1, count + 1))
    return [_text(data, name, where) for name in fields]


def _meta(task: dict[str, Any], annotation: dict[str, Any], judgement: Judgement) -> dict[str, Any]:
    """Say where a pair comes from; what is not known is left out."""
    author = annotation.get("completed_by")
    task_meta: dict[str, Any] = task.get("meta") or {}
    meta = {
        "task": task.get("id"),
        "key": task_meta.get(KEY),
        "annotation": annotation.get("id"),
        "annotator": author.get("id") if isinstance(author, dict) else author,
        "strength": judgement.strength,
        "lead_time": annotation.get("lead_time"),
        "task_meta": {name: value for name, value in task_meta.items() if name != KEY},
    }
    return {name: value for name, value in meta.items() if value not in (None, {}, [])}


def _field(data: dict[str, Any], name: str, where: str) -> object:
    if name not in data:
        raise LspluginError(
            f"{where}: the field `{name}` is missing (it has {', '.join(data)}); name the fields with --config"
        )
    return data[name]


def _text(data: dict[str, Any], name: str, where: str) -> str:
    value = _field(data, name, where)
    if not isinstance(value, str):
        raise LspluginError(f"{where}: expected `{name}` to be text, found {kind(value)}")
    return value
