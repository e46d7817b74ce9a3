"""Datasets of answers: read, checked as a whole, and made into tasks before anything is sent.

A row is the template's task shape, `{"prompt": ..., "answer1": ..., "answer2": ...}`, or Label Studio's own
`{"data": {...}, "meta": {...}}`. A row's `meta` (which model wrote what) becomes the task's meta, where annotators do not look.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.errors import LspluginError
from lsplugin.files import PathLike, as_path, decoded_lines, open_text, read_json, read_jsonl
from lsplugin.preferences import kind
from lsplugin.prepare import answer_fields, displayed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lxml import etree

    from lsplugin.preferences import Prompt

KEY = "key"
"""Where in a task's meta its content key stands."""

ORDER = "order"
"""Where in a task's meta it stands which answer of the dataset is shown in which box, from the first box on."""

_LINES = {".jsonl", ".ndjson"}
_TABLES = {".csv": ",", ".tsv": "\t"}
_LISTS = {"Paragraphs": "a list of messages", "List": "a list of items"}
_HALF = re.compile("[\ud800-\udfff]")
_SHOWN = 5  # bad rows named in one message; the rest are counted


@dataclass(frozen=True, slots=True)
class Task:
    """One comparison to make.

    Attributes:
        data: the displayed fields, by name.
        meta: provenance; never displayed.
        row: where it stands in its file, from 1 (the line, for JSONL).
        predictions: pre-labels, as Label Studio imports them.
    """

    data: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)
    row: int = 0
    predictions: tuple[dict[str, Any], ...] = ()

    @property
    def key(self) -> str | None:
        """What tells this task from every other: its content key, once `keyed` has given it one."""
        key = self.meta.get(KEY)
        return key if isinstance(key, str) else None

    def to_dict(self) -> dict[str, Any]:
        """Give the task as Label Studio imports it."""
        task: dict[str, Any] = {"data": self.data}
        if self.meta:
            task["meta"] = self.meta
        if self.predictions:
            task["predictions"] = list(self.predictions)
        return task


@dataclass(frozen=True, slots=True)
class Made:
    """A dataset made of other files.

    Attributes:
        rows: how many there were to make tasks of; each is a task or dropped.
        tasks: rows of the new dataset.
        dropped: how many were left out, by reason.
    """

    rows: int
    tasks: list[dict[str, Any]]
    dropped: Counter[str]


def keyed(tasks: Sequence[Task]) -> list[Task]:
    """Give every task a content key in its meta: pushed twice, it is recognised, and not imported again.

    The key is a hash of data and meta; rows that are the same in both are told apart by how many of them came before. A task that
    has a key keeps it.
    """
    seen: Counter[str] = Counter()
    made = []
    for task in tasks:
        if task.key:
            made.append(task)
            continue
        content = json.dumps([task.data, task.meta], sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        key = f"{digest}-{seen[digest]}" if seen[digest] else digest
        seen[digest] += 1
        made.append(replace(task, meta=task.meta | {KEY: key}))
    return made


def read_dataset(path: PathLike) -> list[Task]:
    """Read rows from a JSON list, JSONL or CSV (by the name's ending); a row that is no object is reported with its number."""
    suffix = as_path(path).suffix
    if suffix in _LINES:
        rows: Iterable[tuple[int, Any]] = read_jsonl(path)
    elif suffix in _TABLES:
        rows = _read_table(path, _TABLES[suffix])
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


def _read_table(path: PathLike, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row, from 1; the header does not count) of a CSV; lists of messages and `meta` stand in it as JSON."""
    with open_text(path, newline="") as stream:
        rows = csv.DictReader(decoded_lines(stream, path), delimiter=delimiter)
        for number, row in enumerate(rows, start=1):
            if None in row or None in row.values():
                cells = len([value for value in row.values() if value is not None])
                raise LspluginError(
                    f"{path}, line {rows.line_num}: expected {len(rows.fieldnames or [])} cells, as in the first line, found "
                    f"{'more' if None in row else cells}"
                )
            yield number, {name: _cell(name, text) for name, text in row.items()}


def _cell(name: str, text: str) -> Any:  # noqa: ANN401 - JSON is whatever it is
    """Read JSON where it can only be meant: in `meta`, and where a list of objects is written."""
    if name == "meta" or text.startswith("[{"):
        with suppress(ValueError):
            return json.loads(text or "{}")
    return text


def read_sample(path: PathLike, fields: Sequence[str]) -> dict[str, Any]:
    """Read one task to show: a JSON object, or the first row of a dataset; it must have every field.

    Args:
        path: where it lies.
        fields: the fields of prompt and answers.
    """
    value = read_json(path) if as_path(path).suffix not in _LINES else None
    task = _task(value, 1, path) if isinstance(value, dict) else read_dataset(path)[0]
    missing = [name for name in fields if name not in task.data]
    if missing:
        raise LspluginError(f"{path}: the sample lacks {', '.join(missing)} (it has {', '.join(task.data)})")
    return task.data


def check_tasks(tasks: Sequence[Task], config: etree._Element, *, path: PathLike) -> None:
    """Check that every task has what the config displays; all bad rows are reported in one error.

    Args:
        tasks: what to check.
        config: the config's tree.
        path: the file, for the message.
    """
    shown = displayed(config)
    answers = answer_fields(config)
    bad = [f"row {task.row}: {problem}" for task in tasks if (problem := _problem(task, shown, answers))]
    if bad:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        count = f"{len(bad)} bad row" + ("s" if len(bad) > 1 else "")
        raise LspluginError(f"{path}: {count}, nothing was sent: {'; '.join(bad[:_SHOWN])}{more}")


def why_unusable(prompt: Prompt, answers: Sequence[str]) -> str | None:
    """Say why nobody could compare these answers to this prompt; None where somebody can."""
    said = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    texts = [answer.strip() for answer in answers]
    if not any(text.strip() for text in said):
        return "the prompt is empty"
    if not all(texts):
        return "an answer is empty"
    if len(set(texts)) < len(texts):
        return "the answers are identical"
    if _HALF.search(json.dumps([prompt, *answers], ensure_ascii=False)):
        return "half a character (a lone surrogate), which no file can keep"
    return None


def _task(row: object, number: int, path: PathLike) -> Task:
    if not isinstance(row, dict):
        raise LspluginError(f"{path}, row {number}: expected an object with the task's fields, found {kind(row)}")
    data = row.get("data") if isinstance(row.get("data"), dict) else {k: v for k, v in row.items() if k != "meta"}
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise LspluginError(f"{path}, row {number}: expected `meta` to be an object, found {kind(meta)}")
    assert isinstance(data, dict)
    return Task(data, meta, number)


def _problem(task: Task, shown: dict[str, str], answers: list[str]) -> str | None:
    for shown_field, tag in shown.items():
        source = shown_field.removesuffix(MARKDOWN_SUFFIX)
        name = source if shown_field not in task.data and source in task.data else shown_field  # what HTML is made of
        if name not in task.data:
            return f"`{name}` is missing (it has {', '.join(task.data) or 'no fields'})"
        value = task.data[name]
        if problem := _problem_of_value(value, tag):
            return f"`{name}` {problem}"
    texts = [json.dumps(task.data[name]) for name in answers if name in task.data]
    if len(set(texts)) < len(texts):
        return "the answers are identical, so there is nothing to compare"
    return None


def _problem_of_value(value: object, tag: str) -> str | None:
    if tag in _LISTS:
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            return f"should be {_LISTS[tag]}, found {kind(value)}"
        texts = [text for item in value for text in item.values() if isinstance(text, str)]
    elif not isinstance(value, str) or not value.strip():
        return f"should be text, found {kind(value)}"
    else:
        texts = [value]
    if any(_HALF.search(text) for text in texts):
        return "holds half a character (a lone surrogate), which no file can keep"
    return None
