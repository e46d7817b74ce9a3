"""Label Studio's exports, read one task at a time: a 10 GB file needs no more memory than a 10 MB one.

JSON is the whole of what the server knows. JSON_MIN and CSV hold a row an annotation, without the skipped ones and without the
tasks' meta; their rows are put back into the shape of JSON, so that nothing after this module sees a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ijson

from lsplugin.errors import LspluginError
from lsplugin.files import PathLike, open_bytes, open_text, read_json
from lsplugin.preferences import kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsplugin.interface import Interface


def read_export(
    path: PathLike, *, interface: Interface | None = None, name: PathLike | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the tasks of an export in order, in the shape of Label Studio's JSON.

    Args:
        path: JSON, JSON_MIN, CSV or TSV.
        interface: the project's controls, which JSON_MIN and CSV do not name; by default, those of our templates.
        name: what to call it in messages, when it is a temporary one.

    Raises:
        LspluginError: the file is missing, is not JSON (with the line), or is not a list of tasks.
    """
    from lsplugin.rows import grouped, read_csv

    called = name or path
    with open_bytes(path) as stream:
        start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        yield from grouped(_elements(path, called), interface)
    elif start and not start.startswith(b"{") and _has_columns(path):
        yield from grouped(enumerate(read_csv(path, interface), start=1), interface)
    else:
        read_json(path, name=called)  # names the line of a file that is no JSON at all
        raise LspluginError(f"{called}: expected a list of tasks, as Label Studio's JSON export is")


class Size(NamedTuple):
    """How much an export holds."""

    tasks: int
    annotations: int
    unlabelled: int


def measure(path: PathLike, *, name: PathLike | None = None) -> Size:
    """Count the tasks of an export, its annotations (skipped ones, too), and the tasks without any."""
    tasks = annotations = unlabelled = 0
    for task in read_export(path, name=name):
        own = len(task.get("annotations") or [])
        tasks, annotations, unlabelled = tasks + 1, annotations + own, unlabelled + (not own)
    return Size(tasks, annotations, unlabelled)


def _elements(path: PathLike, called: PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_bytes(path) as stream:
        try:
            for number, task in enumerate(ijson.items(stream, "item", use_float=True), start=1):
                if not isinstance(task, dict) or ("data" in task and not isinstance(task["data"], dict)):
                    raise LspluginError(f"{called}, task {number}: expected a task with its `data`, found {kind(task)}")
                if "data" not in task and "annotation_id" not in task:
                    raise LspluginError(f"{called}, task {number}: expected a task with its `data`, found none")
                yield number, task
        except ijson.JSONError as error:
            read_json(path, name=called)  # the whole file is read once more only to name the line
            raise LspluginError(f"{called}: not the JSON export of a project ({error})") from None


def _has_columns(path: PathLike) -> bool:
    """Say whether a file starts with the names that every CSV of Label Studio has."""
    with open_text(path) as stream:
        try:
            return "annotation_id" in stream.readline()
        except UnicodeDecodeError:
            return False
