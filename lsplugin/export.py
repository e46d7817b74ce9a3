"""Label Studio's JSON export, read one task at a time: a 10 GB file needs no more memory than a 10 MB one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ijson

from lsplugin.errors import LspluginError
from lsplugin.files import PathLike, open_bytes, read_json
from lsplugin.preferences import kind

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_export(path: PathLike, *, name: PathLike | None = None) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a JSON export in order.

    Args:
        path: the file.
        name: what to call it in messages, when it is a temporary one.

    Raises:
        LspluginError: the file is missing, is not JSON (with the line), or is not a list of tasks.
    """
    called = name or path
    with open_bytes(path) as stream:
        is_list = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        stream.seek(0)
        if not is_list:
            read_json(path)  # names the line of a file that is no JSON at all
            raise LspluginError(f"{called}: expected a list of tasks, as Label Studio's JSON export is")
        try:
            for number, task in enumerate(ijson.items(stream, "item", use_float=True), start=1):
                if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                    raise LspluginError(f"{called}, task {number}: expected a task with its `data`, found {kind(task)}")
                yield task
        except ijson.JSONError as error:
            read_json(path)  # the whole file is read once more only to name the line
            raise LspluginError(f"{called}: not the JSON export of a project ({error})") from None


def count_tasks(path: PathLike, *, name: PathLike | None = None) -> int:
    """Count the tasks of an export."""
    return sum(1 for _ in read_export(path, name=name))
