"""What a file or folder holds, as a hash: of its bytes, and of what does not depend on the server or the clock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ijson

from lsplugin.errors import LspluginError
from lsplugin.files import CLOCKED, read_json, read_jsonl, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OF_THE_SERVER = {"project.txt", "labels.html", "labels.json"}
"""Files that name a server's numbers and people; what they say otherwise follows from the export."""

NUMBERS = {"task", "annotation", "annotator", "annotators"}
"""In a pair's meta: what a server numbered."""


class Content(NamedTuple):
    """What something held.

    Attributes:
        sha256: of its bytes; of a folder, of its files' names and hashes. None where there is nothing.
        content: the same on every server and at every hour: the numbers that a server gave and times are left out.
    """

    sha256: str | None
    content: str | None

    def to_dict(self) -> dict[str, str | None]:
        """Give it as JSON; where both are the same, once."""
        return {"sha256": self.sha256} | ({} if self.content == self.sha256 else {"content": self.content})


class Contents:
    """Hashes of what lies in a folder, and of models elsewhere; a file that has not changed is not read twice.

    Args:
        folder: paths are relative to it.
        memory: the file that keeps the hashes, by size and time of change.
    """

    def __init__(self, folder: Path, memory: Path) -> None:
        self.folder, self.memory = folder, memory
        try:
            self.known: dict[str, list[Any]] = read_json(memory) if memory.is_file() else {}
        except LspluginError:  # it saves time, no more
            self.known = {}
        self._changed = False

    def of(self, name: str) -> Content:
        """Give the hashes of a file, a folder, or a model by its hub name."""
        path = located(self.folder / name, name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            lines = [(file.relative_to(path).as_posix(), self._sha256(file)) for file in files]
            plain = [line for line in lines if Path(line[0]).name not in CLOCKED]
            return Content(_digest(lines), _digest(plain))
        if not path.is_file():
            return Content(None, None)
        sha256 = self._sha256(path)
        if path.name in OF_THE_SERVER:
            return Content(sha256, "")
        if path.name == "export.json":
            return Content(sha256, self._slowly(path, sha256, lambda: _digest(sorted(_said(path)))))
        if path.name == "pairs.jsonl":
            return Content(sha256, self._slowly(path, sha256, lambda: _digest(sorted(_paired(path)))))
        return Content(sha256, sha256)

    def keep(self) -> None:
        """Keep the hashes for the next time."""
        if self._changed:
            write_json(self.memory, self.known)
            self._changed = False

    def _sha256(self, path: Path) -> str:
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        found = self.known.get(str(path))
        if not (isinstance(found, list) and found[:3] == seen and len(found) == 4):
            with path.open("rb") as stream:
                found = [*seen, hashlib.file_digest(stream, "sha256").hexdigest()]
            self.known[str(path)] = found
            self._changed = True
        return str(found[3])

    def _slowly(self, path: Path, sha256: str, compute: Any) -> str:  # noqa: ANN401 - a function
        """Compute what a file says, unless its bytes are those that were read before."""
        name = f"{path} says"
        found = self.known.get(name)
        if not (isinstance(found, list) and found[:1] == [sha256]):
            found = [sha256, compute()]
            self.known[name] = found
            self._changed = True
        return str(found[1])


def located(path: Path, name: str) -> Path:
    """Find a path, or the hub cache's folder of a model of that name."""
    if path.exists() or name.count("/") > 1 or name.startswith((".", "/")):
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return path
    return Path(cached).parent if isinstance(cached, str) else path


def tasks_of(export: Path) -> Iterator[dict[str, Any]]:
    """Yield the tasks of an export, one at a time."""
    with export.open("rb") as stream:
        yield from ijson.items(stream, "item", use_float=True)


def _said(export: Path) -> Iterator[str]:
    """Say of every task what people answered, without numbers of the server, names and times; a line each."""
    for task in tasks_of(export):
        found = sorted(
            json.dumps([
                bool(made.get("was_cancelled")), made.get("lead_time"),
                [{name: part.get(name) for name in ("from_name", "type", "value")} for part in made.get("result") or []],
            ], sort_keys=True)
            for made in task.get("annotations") or []
        )  # fmt: skip
        yield json.dumps([(task.get("meta") or {}).get("key"), task.get("data"), found], sort_keys=True)


def _paired(pairs: Path) -> Iterator[str]:
    """Give every pair without the numbers of the server; a line each."""
    for _, row in read_jsonl(pairs):
        meta = {name: value for name, value in (row.get("meta") or {}).items() if name not in NUMBERS}
        yield json.dumps(row | {"meta": meta}, sort_keys=True)


def _digest(lines: Iterable[object]) -> str:
    return hashlib.sha256("".join(f"{json.dumps(line)}\n" for line in lines).encode()).hexdigest()
