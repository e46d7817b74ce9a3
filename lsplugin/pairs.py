"""Annotations -> preference pairs, with every annotation accounted for.

    annotations in = pairs out + annotations dropped, each with its reason

One annotation that chose a side is one pair, so two annotators who disagree give two pairs that disagree: what a Bradley-Terry
fit wants to see. Tasks that nobody annotated are counted too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.errors import LspluginError
from lsplugin.preferences import Pair, check_prompt, kind
from lsplugin.template import PROMPT
from lsplugin.validate import OBJECT_TAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIDES = ("left", "right")


@dataclass(frozen=True)
class Fields:
    """Which task fields hold the prompt and the two answers, and which control compares them.

    Attributes:
        prompt: name of the prompt's field.
        left: the field of the answer that stands first in toName.
        right: the field of the other answer.
        control: name of the Pairwise control; None takes any Pairwise result.
    """

    prompt: str = PROMPT
    left: str = "answer1"
    right: str = "answer2"
    control: str | None = None

    @classmethod
    def from_config(cls, config: str) -> Fields:
        """Read the names out of a labeling config with one Pairwise control."""
        root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        control = root.find(".//Pairwise")
        if control is None:
            raise LspluginError("this config has no <Pairwise>, so it makes no pairs")
        shown = {
            element.get("name", ""): element.get("value", "").removeprefix("$") for element in root.iter(*OBJECT_TAGS)
        }
        targets = control.get("toName", "").split(",")
        if len(targets) != 2 or any(target not in shown for target in targets):
            raise LspluginError("this config's Pairwise does not name two objects: see lsplugin validate")
        prompts = [value for name, value in shown.items() if name not in targets]
        if not prompts:
            raise LspluginError("this config displays no prompt beside its two answers")
        return cls(prompts[0], shown[targets[0]], shown[targets[1]], control.get("name"))


@dataclass
class Accounting:
    """Where every task and annotation went.

    Attributes:
        tasks: tasks read.
        unlabelled: tasks without any annotation.
        annotations: annotations read.
        pairs: annotations that became a pair.
        dropped: annotations that did not, by reason.
    """

    tasks: int = 0
    unlabelled: int = 0
    annotations: int = 0
    pairs: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def balanced(self) -> bool:
        """Whether annotations in = pairs + dropped."""
        return self.annotations == self.pairs + self.dropped.total()

    def to_dict(self) -> dict[str, Any]:
        """Give the counts as JSON."""
        return {
            "tasks": self.tasks,
            "unlabelled": self.unlabelled,
            "annotations": self.annotations,
            "pairs": self.pairs,
            "dropped": dict(sorted(self.dropped.items())),
        }


class Dropped(Exception):  # noqa: N818 - not an error: the reason why an annotation makes no pair
    """An annotation that makes no pair, for the reason that its message names."""


def pairs_from_export(
    tasks: Iterable[dict[str, Any]], accounting: Accounting, *, fields: Fields | None = None, skip_bad: bool = False
) -> Iterator[Pair]:
    """Turn the tasks of an export into pairs, one for every annotation that chose a side.

    Args:
        tasks: as `read_export` yields them.
        accounting: is filled while the pairs are taken.
        fields: where prompt and answers are.
        skip_bad: count what cannot be understood instead of stopping at it.

    Raises:
        LspluginError: a value that no Pairwise stores, or a field that is missing, with the task's id.
    """
    fields = fields or Fields()
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
                pair = _pair(task, annotation, fields)
            except Dropped as reason:
                accounting.dropped[str(reason)] += 1
            except LspluginError as error:
                if not skip_bad:
                    raise LspluginError(f"{error} (--skip-bad counts it and goes on)") from None
                accounting.dropped["not understood"] += 1
            else:
                accounting.pairs += 1
                yield pair
    assert accounting.balanced, accounting


def _pair(task: dict[str, Any], annotation: dict[str, Any], fields: Fields) -> Pair:
    where = f"task {task.get('id')}"
    side = _selected(annotation, fields, where)
    prompt = check_prompt(_field(task, fields.prompt, where), where=where)
    left, right = (_text(task, name, where) for name in (fields.left, fields.right))
    if left == right:
        raise Dropped("both answers are identical")
    chosen, rejected = (left, right) if side == "left" else (right, left)
    author = annotation.get("completed_by")
    meta = {
        "task": task.get("id"),
        "annotation": annotation.get("id"),
        "annotator": author.get("id") if isinstance(author, dict) else author,
        "chosen_side": side,
        "lead_time": annotation.get("lead_time"),
        "task_meta": task.get("meta"),
    }
    return Pair(
        prompt, chosen, rejected, meta={name: value for name, value in meta.items() if value not in (None, {}, [])}
    )


def _selected(annotation: dict[str, Any], fields: Fields, where: str) -> str:
    """Find the side that an annotation chose."""
    if annotation.get("was_cancelled"):
        raise Dropped("skipped by the annotator")
    results = annotation.get("result") or []
    if not results:
        raise Dropped("submitted without a choice")
    sides = [
        result.get("value", {}).get("selected")
        for result in results
        if result.get("type") == "pairwise" and fields.control in (None, result.get("from_name"))
    ]
    if not sides:
        raise Dropped("no comparison among its results")
    if len(sides) > 1:
        raise LspluginError(f"{where}: expected one comparison in an annotation, found {len(sides)}")
    if sides[0] not in SIDES:
        raise LspluginError(f"{where}: expected the comparison to be left or right, found {kind(sides[0])}")
    return str(sides[0])


def _field(task: dict[str, Any], name: str, where: str) -> object:
    data = task["data"]
    if name not in data:
        raise LspluginError(
            f"{where}: the field `{name}` is missing (it has {', '.join(data)}); name the fields with --config"
        )
    return data[name]


def _text(task: dict[str, Any], name: str, where: str) -> str:
    value = _field(task, name, where)
    if not isinstance(value, str):
        raise LspluginError(f"{where}: expected `{name}` to be text, found {kind(value)}")
    return value
