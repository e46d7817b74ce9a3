"""Datasets of answers: read, checked as a whole, and made into tasks before anything is sent.

A row is the template's task shape, `{"prompt": ..., "answer1": ..., "answer2": ...}`, or Label Studio's own
`{"data": {...}, "meta": {...}}`. A row's `meta` (which model wrote what) becomes the task's meta, where annotators do not look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsplugin.errors import LspluginError
from lsplugin.files import PathLike, read_json, read_jsonl
from lsplugin.preferences import kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHOWN = 5  # bad rows named in one message; the rest are counted


@dataclass(frozen=True, slots=True)
class Task:
    """One comparison to make.

    Attributes:
        data: the displayed fields, by name.
        meta: provenance; never displayed.
        row: where it stands in its file, from 1 (the line, for JSONL).
    """

    data: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)
    row: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give the task as Label Studio imports it."""
        return {"data": self.data, "meta": self.meta} if self.meta else {"data": self.data}


def read_dataset(path: PathLike) -> list[Task]:
    """Read a JSON list or JSONL file of rows; a row that is no object is reported with its number."""
    if Path(path).suffix in {".jsonl", ".ndjson"}:
        rows: Iterable[tuple[int, Any]] = read_jsonl(path)
    else:
        value = read_json(path)
        if not isinstance(value, list):
            raise LspluginError(f"{path}: expected a list of tasks, found {kind(value)}")
        rows = enumerate(value, start=1)
    tasks = [_task(row, number, path) for number, row in rows]
    if not tasks:
        raise LspluginError(
            f'{path}: no tasks in it; expected rows such as {{"prompt": ..., "answer1": ..., "answer2": ...}}'
        )
    return tasks


def check_tasks(tasks: Sequence[Task], fields: Sequence[str], *, path: PathLike) -> None:
    """Check that every task has every displayed field as text; all bad rows are reported in one error.

    Args:
        tasks: what to check.
        fields: names of the fields that the config displays.
        path: the file, for the message.
    """
    bad = [f"row {task.row}: {problem}" for task in tasks if (problem := _problem(task, fields))]
    if bad:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        count = f"{len(bad)} bad row" + ("s" if len(bad) > 1 else "")
        raise LspluginError(f"{path}: {count}, nothing was sent: {'; '.join(bad[:_SHOWN])}{more}")


def _task(row: object, number: int, path: PathLike) -> Task:
    if not isinstance(row, dict):
        raise LspluginError(f"{path}, row {number}: expected an object with the task's fields, found {kind(row)}")
    data = row.get("data") if isinstance(row.get("data"), dict) else {k: v for k, v in row.items() if k != "meta"}
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise LspluginError(f"{path}, row {number}: expected `meta` to be an object, found {kind(meta)}")
    assert isinstance(data, dict)
    return Task(data, meta, number)


def _problem(task: Task, fields: Sequence[str]) -> str | None:
    for name in fields:
        if name not in task.data:
            return f"`{name}` is missing (it has {', '.join(task.data) or 'no fields'})"
        value = task.data[name]
        if not isinstance(value, str) or not value.strip():
            return f"`{name}` should be text, found {kind(value)}"
        if any("\ud800" <= character <= "\udfff" for character in value):
            return f"`{name}` holds half a character (a lone surrogate), which no file can keep"
    answers = [task.data[name] for name in fields if name.startswith("answer")]
    if len(set(answers)) < len(answers):
        return "the answers are identical, so there is nothing to compare"
    return None
