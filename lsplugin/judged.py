"""The annotations of an export, one at a time: what each says of which answers, and every one of them accounted for.

annotations in = annotations that prefer something + annotations dropped, each with its reason
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lsplugin.dataset import ORDER
from lsplugin.errors import LspluginError
from lsplugin.judgement import Dropped, Judgement, judge
from lsplugin.preferences import check_prompt, kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lsplugin.interface import Interface
    from lsplugin.preferences import Prompt

NOT_UNDERSTOOD = "not understood"


@dataclass
class Accounting:
    """Where every task and annotation went.

    Attributes:
        tasks: tasks read.
        unlabelled: tasks without any annotation.
        annotations: annotations read.
        used: annotations that became at least one pair, or had a say in one.
        dropped: annotations that became none, by reason.
        pairs: pairs that came of them.
        ties: twos of answers that an annotation put level, in annotations that were used or dropped as ties.
        rewrites: pairs among them whose chosen answer is an annotator's own version of the other.
    """

    tasks: int = 0
    unlabelled: int = 0
    annotations: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    ties: int = 0
    rewrites: int = 0

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
            "rewrites": self.rewrites,
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """One annotation, read.

    Attributes:
        task: the task as it was exported.
        annotation: the annotation as it was exported.
        prompt: what was asked.
        texts: the answers in the order in which they stood.
        names: what the dataset calls each of them (annotators may have seen them in another order).
        judgement: what it prefers; None where it says nothing.
        dropped: why it makes no pair by itself; None where it prefers something.
    """

    task: dict[str, Any]
    annotation: dict[str, Any]
    prompt: Prompt
    texts: tuple[str, ...]
    names: tuple[str, ...]
    judgement: Judgement | None
    dropped: str | None

    @property
    def annotator(self) -> str:
        """Who made it, by number or address; empty where the export does not tell."""
        author = self.annotation.get("completed_by")
        if isinstance(author, dict):
            author = author.get("id", author.get("email"))
        return "" if author is None else _name(author)

    @property
    def task_meta(self) -> dict[str, Any]:
        """What the dataset said of the task: models, order, gold, source."""
        meta = self.task.get("meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def results(self) -> list[dict[str, Any]]:
        """What the controls stored."""
        return self.annotation.get("result") or []

    def model(self, place: int) -> str | None:
        """Who wrote the answer at a place, where the dataset told."""
        models = self.task_meta.get("models")
        found = models.get(self.names[place]) if isinstance(models, dict) else None
        return None if found is None else _name(found)


def read_judged(
    tasks: Iterable[dict[str, Any]], accounting: Accounting, interface: Interface, *, skip_bad: bool = False
) -> Iterator[Judged]:
    """Read every annotation of an export.

    Args:
        tasks: as `read_export` yields them.
        accounting: its tasks and annotations are counted here; what becomes of each is for the caller to count.
        interface: where prompt, answers and controls are.
        skip_bad: give what cannot be understood as dropped instead of stopping at it.

    Raises:
        LspluginError: a value that no template stores, or a field that is missing, with the task's id.
    """
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
                _check_shape(annotation, f"task {task.get('id')}")
                yield _judged(task, annotation, interface)
            except Dropped as reason:
                yield Judged(task, annotation, "", (), (), None, str(reason))
            except LspluginError as error:
                if not skip_bad:
                    raise LspluginError(f"{error} (--skip-bad counts it and goes on)") from None
                known = annotation | {"result": []} if isinstance(annotation, dict) else {}
                yield Judged(task, known, "", (), (), None, NOT_UNDERSTOOD)


def _name(found: object) -> str:
    """Give a name that tables can hold: half a character, which they cannot, is written as JSON does."""
    return str(found).encode("utf-8", "backslashreplace").decode()


def _check_shape(annotation: object, where: str) -> None:
    """Refuse what no version of Label Studio exports, so that everything after this may rely on the shape.

    Raises:
        LspluginError: an annotation that is no object, results that are no list of objects, values that are none.
    """
    if not isinstance(annotation, dict):
        raise LspluginError(f"{where}: expected an annotation to be an object, found {kind(annotation)}")
    results = annotation.get("result")
    if results is not None and not (isinstance(results, list) and all(isinstance(part, dict) for part in results)):
        raise LspluginError(f"{where}: expected `result` to be a list of objects, found {kind(results)}")
    for result in results or []:
        value = result.get("value", {})
        if not isinstance(value, dict):
            raise LspluginError(f"{where}: expected a result's `value` to be an object, found {kind(value)}")
        choices = value.get("choices", [])
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise LspluginError(f"{where}: expected `choices` to be a list of texts, found {kind(choices)}")


def _judged(task: dict[str, Any], annotation: dict[str, Any], interface: Interface) -> Judged:
    where = f"task {task.get('id')}"
    data = task["data"]
    judgement = judge(annotation, interface, data, where)
    prompt = check_prompt(_field(data, interface.prompt, where), where=where)
    count = 1 + max((place for tier in judgement.tiers for place in tier), default=1)
    texts = _texts(data, interface, where, count=count)
    reason = None
    if not any(texts[better] != texts[worse] for better, worse in judgement.preferences()):
        level = len(judgement.tiers) == 1
        bad = "both answers are bad" if len(texts) == 2 else "all answers are bad"
        reason = bad if judgement.bad else "a tie" if level else "both answers are identical"
    return Judged(task, annotation, prompt, texts, _names(task, interface, len(texts)), judgement, reason)


def _names(task: dict[str, Any], interface: Interface, count: int) -> tuple[str, ...]:
    """Tell what the dataset calls the answer in each box."""
    meta = task.get("meta")
    order = meta.get(ORDER) if isinstance(meta, dict) else None
    items = task["data"].get(interface.items)
    if not isinstance(order, list) and isinstance(items, list):
        order = [item.get("id") for item in items if isinstance(item, dict)]
    if isinstance(order, list) and len(order) == count:
        return tuple(map(str, order))
    fields = interface.fields_of(task["data"])
    return fields if len(fields) == count else tuple(f"answer{number}" for number in range(1, count + 1))


def _texts(data: dict[str, Any], interface: Interface, where: str, *, count: int) -> tuple[str, ...]:
    """Give the answers' texts in the order in which they stand; the items of a list may bring their own."""
    items = data.get(interface.items)
    if isinstance(items, list) and items and all(isinstance(item, dict) and item.get("body") for item in items):
        return tuple(str(item["body"]) for item in items)
    fields = interface.fields_of(data)
    if len(fields) < count:
        fields = tuple(f"answer{number}" for number in range(1, count + 1))
    return tuple(_text(data, name, where) for name in fields)


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
