"""Annotations -> preference pairs, with every annotation accounted for.

    annotations in = pairs out + annotations dropped, each with its reason

One annotation that prefers a side is one pair, so two annotators who disagree give two pairs that disagree: what a Bradley-Terry
fit wants to see. A tie makes none. Tasks that nobody annotated are counted too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.controls import STRENGTHS, VERDICT
from lsplugin.errors import LspluginError
from lsplugin.preferences import Pair, check_prompt, kind
from lsplugin.prepare import answer_fields, displayed
from lsplugin.template import CONTROL, PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIDES = ("left", "right")
NO_PREFERENCE = {"tie": "a tie", "both-bad": "both answers are bad"}
"""Verdicts that prefer neither answer -> why they make no pair."""


@dataclass(frozen=True)
class Fields:
    """Which task fields hold the prompt and the two answers, and which control compares them.

    Attributes:
        prompt: name of the prompt's field.
        left: the field of the answer that stands first in toName.
        right: the field of the other answer.
        control: name of the control that compares; None takes any Pairwise result and the scale `comparison`.
    """

    prompt: str = PROMPT
    left: str = "answer1"
    right: str = "answer2"
    control: str | None = None

    @classmethod
    def from_config(cls, config: str) -> Fields:
        """Read the names out of a labeling config with one Pairwise control, or our scale."""
        root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        control = root.find(".//Pairwise")
        if control is None:
            control = root.find(f".//Choices[@name='{CONTROL}']")
        if control is None:
            raise LspluginError("this config has no <Pairwise> and no scale, so it makes no pairs")
        answers = answer_fields(root)
        if len(answers) != 2:
            raise LspluginError("this config does not name two objects to compare: see lsplugin validate")
        prompts = [name for name in displayed(root) if name.removesuffix(MARKDOWN_SUFFIX) not in answers]
        if not prompts:
            raise LspluginError("this config displays no prompt beside its two answers")
        return cls(prompts[0], answers[0], answers[1], control.get("name"))


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
    """Turn the tasks of an export into pairs, one for every annotation that prefers a side.

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
    side, strength = _preference(annotation, fields, where)
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
        "strength": strength,
        "lead_time": annotation.get("lead_time"),
        "task_meta": task.get("meta"),
    }
    return Pair(
        prompt, chosen, rejected, meta={name: value for name, value in meta.items() if value not in (None, {}, [])}
    )


def _preference(annotation: dict[str, Any], fields: Fields, where: str) -> tuple[str, str | None]:
    """Find the side that an annotation chose, and how much better it is where that was asked.

    The verdict says what the click on a side means: with `tie` or `both-bad` there is no preference, whatever was clicked.
    """
    if annotation.get("was_cancelled"):
        raise Dropped("skipped by the annotator")
    results = annotation.get("result") or []
    if not results:
        raise Dropped("submitted without a choice")
    verdict = _only(_choices(results, {VERDICT}), where, VERDICT)
    if verdict in NO_PREFERENCE:
        raise Dropped(NO_PREFERENCE[verdict])
    if verdict not in {None, "better", "ranked", *STRENGTHS}:
        raise LspluginError(f"{where}: expected the verdict to be one that our templates offer, found {verdict!r}")
    clicked = [
        result.get("value", {}).get("selected")
        for result in results
        if result.get("type") == "pairwise" and fields.control in (None, result.get("from_name"))
    ]
    ticked = _choices(results, {fields.control or CONTROL})
    if not clicked and not ticked:
        raise Dropped("a verdict without a side" if verdict else "no comparison among its results")
    chosen = _only(clicked or ticked, where, "comparison")
    if chosen in NO_PREFERENCE:
        raise Dropped(NO_PREFERENCE[chosen])
    side, _, strength = str(chosen).partition("-")
    if side not in SIDES or (strength and strength not in STRENGTHS):
        raise LspluginError(f"{where}: expected the comparison to be left or right, found {kind(chosen)}")
    return side, strength or (verdict if verdict in STRENGTHS else None)


def _choices(results: list[dict[str, Any]], names: set[str]) -> list[Any]:
    """Every choice made in the controls of these names."""
    return [
        choice
        for result in results
        if result.get("type") == "choices" and result.get("from_name") in names
        for choice in result.get("value", {}).get("choices") or []
    ]


def _only(found: list[Any], where: str, what: str) -> Any:  # noqa: ANN401 - what an export holds
    """Give the one value that was stored, or None."""
    if len(found) > 1:
        raise LspluginError(f"{where}: expected one {what} in an annotation, found {len(found)}")
    return found[0] if found else None


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
