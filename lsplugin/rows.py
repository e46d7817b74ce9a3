"""Rows of JSON_MIN and CSV exports, one for each annotation -> tasks in the shape of Label Studio's JSON."""

from __future__ import annotations

import csv
import json
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lsplugin.controls import CRITERION, REWRITE, VERDICT
from lsplugin.errors import LspluginError
from lsplugin.files import decoded_lines, open_text
from lsplugin.interface import Interface
from lsplugin.template import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lsplugin.files import PathLike

_OWN = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "history"}
"""Columns that Label Studio adds to a task's data and an annotation's results."""

_KEYS = {"Pairwise": "selected", "Ranker": "ranker", "Rating": "rating", "Choices": "choices", "TextArea": "text"}
"""What a control's result holds."""

_OURS = {VERDICT: "Choices", "reasons": "Choices", "flags": "Choices", "reason": "TextArea"}


def grouped(elements: Iterable[tuple[int, dict[str, Any]]], interface: Interface | None) -> Iterator[dict[str, Any]]:
    """Pass tasks on, and put rows of the same task together."""
    for identity, members in groupby(elements, key=lambda element: _identity(*element)):
        if identity[0] == "task":
            yield from (member for _, member in members)
        else:
            yield _task([row for _, row in members], interface or Interface())


def read_csv(path: PathLike, interface: Interface | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or TSV with the values that JSON_MIN would give.

    Raises:
        LspluginError: it is no text, or a row has more cells than the header names, with the line.
    """
    lists = (interface or Interface()).lists
    csv.field_size_limit(sys.maxsize)
    with open_text(path, newline="") as stream:
        lines = decoded_lines(stream, path)
        first = next(lines)
        lines_again = (line for part in ([first], lines) for line in part)
        rows = csv.DictReader(lines_again, delimiter="\t" if "\t" in first and "," not in first else ",")
        for row in rows:
            if None in row:
                raise LspluginError(
                    f"{path}, line {rows.line_num}: expected {len(rows.fieldnames or [])} cells, found more"
                )
            yield {
                name: _cell(name, value, interface, lists)
                for name, value in row.items()
                if value  # a cell is empty where another task has a field that this one lacks
            }


def _identity(number: int, element: dict[str, Any]) -> tuple[str, object]:
    return ("task", number) if "data" in element else ("row", element.get("id", number))


def _task(rows: list[dict[str, Any]], interface: Interface) -> dict[str, Any]:
    """Make a task of its rows."""
    own = {name: tag for name, value in rows[0].items() if (tag := _tag(name, value, interface))}
    for row in rows[1:]:
        own |= {name: tag for name, value in row.items() if (tag := _tag(name, value, interface))}
    data = {name: value for name, value in rows[0].items() if name not in own and name not in _OWN}
    annotations = [_annotation(row, own) for row in rows if row.get("annotation_id") not in (None, "")]
    return {"id": rows[0].get("id"), "data": data, "annotations": annotations}


def _annotation(row: dict[str, Any], own: dict[str, str]) -> dict[str, Any]:
    results = [
        {"from_name": name, "type": tag.lower(), "value": value}
        for name, tag in own.items()
        for value in _values(tag, row.get(name))
    ]
    return {
        "id": row["annotation_id"],
        "completed_by": row.get("annotator"),
        "created_at": row.get("created_at"),
        "lead_time": row.get("lead_time"),
        "result": results,
    }


def _tag(name: str, value: object, interface: Interface) -> str | None:
    """Say which control a column holds the results of; None for a field of the task."""
    if interface.controls is not None:
        return interface.controls.get(name)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for tag, key in _KEYS.items():
            if key in value[0]:
                return tag
    if name == CONTROL and value not in (None, ""):
        return "Choices"
    if name.startswith(REWRITE):
        return "TextArea"
    return "Choices" if name.startswith(CRITERION) else _OURS.get(name)


def _values(tag: str, value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - what an export holds
    """Give the results of one control again, from how JSON_MIN writes them: a lone choice or text stands by itself."""
    key = _KEYS[tag]
    for found in [value] if isinstance(value, str | dict) else value or []:
        if isinstance(found, dict):
            yield found
        elif found not in (None, ""):
            yield {key: [found]}


def _cell(name: str, text: str, interface: Interface | None, lists: tuple[str, ...]) -> Any:  # noqa: ANN401 - what an export holds
    """Give a cell its value: lists and numbers are written as text."""
    if name in {"id", "annotation_id", "annotator"}:
        return int(text) if text.isdecimal() else text or None
    if name == "lead_time":
        return float(text) if text else None
    controls = interface.controls if interface is not None else None
    is_control = name in controls if controls is not None else name not in _OWN
    if text[:1] in {"[", "{"} and (name in lists or is_control):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        looks = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))
        return value if looks or name in lists or controls is not None else text
    return text
