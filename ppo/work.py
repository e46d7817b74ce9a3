"""Results that grow in a file beside their place, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsplugin.files import PathLike, is_remote
from ppo.errors import PPOError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def check_output(output: PathLike, *others: PathLike | None) -> Path:
    """Refuse, before any work is done, an output that cannot be written, and make its folder.

    Args:
        output: a local file.
        others: files that it must not replace; None is nothing.

    Raises:
        PPOError: the output is an address, no regular file, in a folder that cannot be written to, or one of the others.
    """
    if is_remote(output):
        raise PPOError(f"{output}: expected a local file to write; copy it afterwards")
    place = Path(output)
    if place.exists() and not place.is_file():
        raise PPOError(f"{output}: expected a file to write, found a folder, device or pipe; name a file")
    if place.absolute() in {Path(other).absolute() for other in others if other is not None}:
        raise PPOError(f"{output}: it is another file of this command, which would be lost; name a new one")
    place.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(place.parent, os.W_OK):
        raise PPOError(f"{output}: its folder cannot be written to; name another file")
    return place


class WorkFile:
    """`<output>.part`: a first line with all that the results depend on, then a line of JSON for each result.

    Args:
        output: a local file, which somebody else writes when all results are there.

    Raises:
        PPOError: see `check_output`.
    """

    def __init__(self, output: PathLike) -> None:
        place = check_output(output)
        self.path = place.with_name(place.name + ".part")
        self.made_with: dict[str, Any] = {}

    def begin(
        self, made_with: dict[str, Any], *, size: int, tell: Callable[[str], object] = lambda _: None
    ) -> list[Any]:
        """Give the results of an earlier run that was made with the same, in whole batches; all else is cut off.

        Args:
            made_with: all that a result depends on, by a name for people.
            size: results of a batch.
            tell: called with what a person should know.
        """
        made_with = json.loads(json.dumps(made_with))
        lines = self._lines()
        old, results = (lines[0], lines[1:]) if lines and isinstance(lines[0], dict) else ({}, [])
        changed = [name for name, value in made_with.items() if old.get(name) != value]
        kept = [] if changed else results[: len(results) // size * size]
        if results and changed:
            tell(f"{self.path}: begun anew, as this changed since it was made: {', '.join(changed)}")
        elif kept:
            tell(f"{self.path}: goes on after {len(kept)} prompts")
        if kept:
            self._cut(1 + len(kept))
        else:
            self.path.unlink(missing_ok=True)
        self.made_with = made_with
        return kept

    def add(self, results: Iterable[object]) -> None:
        """Append a batch; it is on the disk when this returns."""
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8") as stream:
            for line in [self.made_with, *results] if new else results:
                stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def finish(self) -> None:
        """Remove the file: its results are in their place."""
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[Any]:
        """Read the whole lines; a kill may have left a part of one."""
        found: list[Any] = []
        if self.path.is_file():
            with suppress(ValueError):
                for line in self.path.read_bytes().split(b"\n")[:-1]:
                    found.append(json.loads(line))  # noqa: PERF401 - what came before a bad line stays
        return found

    def _cut(self, count: int) -> None:
        """Leave the first lines."""
        with self.path.open("rb+") as stream:
            for _ in range(count):
                stream.readline()
            stream.truncate(stream.tell())
