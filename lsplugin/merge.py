"""Datasets of answers by different models to the same prompts -> one dataset that compares them."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from lsplugin.dataset import Made, Task, read_dataset, why_unusable
from lsplugin.errors import LspluginError
from lsplugin.files import as_path
from lsplugin.preferences import Prompt, check_prompt, kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.files import PathLike

_ANSWER = re.compile(r"answer([1-9][0-9]*)")
_DERIVED = re.compile(r"answer[0-9]+_\w+")  # of an answer that gets another number
_MODELS = "models"

Place = tuple[str, int]
"""A prompt, and how often it came before in its file."""


class _Row(NamedTuple):
    """One row of a file: what was asked, each answer with its model, and what else stands in it and in its meta."""

    prompt: Prompt
    answers: list[tuple[str, str]]
    data: dict[str, Any]
    meta: dict[str, Any]


def merge(paths: Sequence[PathLike], *, names: Sequence[str] | None = None, one_each: bool = False) -> Made:
    """Put the answers of all files to a prompt into one row, in the order of the files, which are joined by the prompt's text.

    The first row with a prompt is joined with the first of the others, the second with the second. `meta.models` names each
    answer's model; other fields are kept where all files hold them alike.

    Args:
        paths: datasets, two or more.
        names: the model of each file; by default what its rows' `meta.models` says, else the file's name without its ending.
        one_each: take only the first answer of each row.

    Raises:
        LspluginError: a row is no row of a dataset, or two files name the same model.
    """
    if len(paths) < 2:
        raise LspluginError(f"expected two datasets or more to merge, found {len(paths)}")
    if names is not None and (len(names) != len(paths) or not all(names)):
        raise LspluginError(f"--names {','.join(names)}: expected {len(paths)} names, one a file, with commas between")
    given: Sequence[str | None] = names or [None] * len(paths)
    files = [_read(path, name, one_each=one_each) for path, name in zip(paths, given, strict=True)]
    _check_names(paths, files)
    places = list(dict.fromkeys(place for rows in files for place in rows))
    tasks, dropped = [], Counter[str]()
    for place in places:
        lacking = [str(path) for path, rows in zip(paths, files, strict=True) if place not in rows]
        if lacking:
            dropped[f"not in {', '.join(lacking)}"] += 1
            continue
        rows = [found[place] for found in files]
        answers = [answer for row in rows for answer in row.answers]
        if reason := why_unusable(rows[0].prompt, [text for text, _ in answers]):
            dropped[reason] += 1
            continue
        tasks.append(_task(rows, answers))
    return Made(len(places), tasks, dropped)


def _read(path: PathLike, name: str | None, *, one_each: bool) -> dict[Place, _Row]:
    seen: Counter[str] = Counter()
    rows = {}
    for task in read_dataset(path):
        row = _row(task, path, name, one_each=one_each)
        text = row.prompt if isinstance(row.prompt, str) else json.dumps(row.prompt, sort_keys=True)
        rows[text, seen[text]] = row
        seen[text] += 1
    return rows


def _row(task: Task, path: PathLike, name: str | None, *, one_each: bool) -> _Row:
    where = f"{path}, row {task.row}"
    prompt = check_prompt(task.data.get("prompt"), where=where)
    fields = sorted(filter(_ANSWER.fullmatch, task.data), key=lambda field: int(field.removeprefix("answer")))
    if not fields:
        raise LspluginError(f"{where}: expected an answer, `answer1`, found only {', '.join(task.data)}")
    models = task.meta.get(_MODELS) or {}
    if not isinstance(models, dict):
        raise LspluginError(f"{where}: expected `meta.models` to name each answer's model, found {kind(models)}")
    answers = []
    for field in fields[:1] if one_each else fields:
        text, model = task.data[field], models.get(field)
        if not isinstance(text, str):
            raise LspluginError(f"{where}: expected `{field}` to be text, found {kind(text)}")
        answers.append((text, name or (model if isinstance(model, str) and model else as_path(path).stem)))
    data = {
        key: value for key, value in task.data.items() if key not in {"prompt", *fields} and not _DERIVED.match(key)
    }
    return _Row(prompt, answers, data, {key: value for key, value in task.meta.items() if key != _MODELS})


def _check_names(paths: Sequence[PathLike], files: Sequence[dict[Place, _Row]]) -> None:
    """Refuse two files of the same model: nobody could tell afterwards which answer was whose."""
    models = [{model for row in rows.values() for _, model in row.answers} for rows in files]
    for (path, one), (other, two) in combinations(zip(paths, models, strict=True), 2):
        if both := sorted(one & two):
            raise LspluginError(
                f"{path} and {other}: expected answers of different models, found {both[0]!r} in both; "
                "name the model of each file with --names, such as --names base,tuned"
            )


def _task(rows: Sequence[_Row], answers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    fields = {f"answer{number}": text for number, (text, _) in enumerate(answers, start=1)}
    models = dict(zip(fields, (model for _, model in answers), strict=True))
    meta = {_MODELS: models, **_alike([row.meta for row in rows])}
    return {"prompt": rows[0].prompt, **fields, **_alike([row.data for row in rows]), "meta": meta}


def _alike(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first, *others = found
    return {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }
