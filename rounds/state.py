"""Where the rounds are: which steps are done, stale, kept or still to do, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from lsplugin.files import as_path, held
from rounds.content import Contents
from rounds.ledger import LEDGER, Ledger
from rounds.settings import read_settings
from rounds.steps import ASKS, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rounds.ledger import Hashes, Record
    from rounds.settings import Started
    from rounds.steps import Step

LOCK, HASHES = ".lock", ".hashes.json"

State = Literal["done", "to do", "stale", "kept", "lost"]
"""Kept: its settings or inputs changed, but people have tasks that depend on it. Lost: so has what it wrote, beside."""


class Found(NamedTuple):
    """The state of a step, and why it is so."""

    step: Step
    state: State
    why: str = ""


class Place:
    """The folder of some rounds, with its settings, ledger and hashes.

    Args:
        folder: made by `start`.
        table: gives the steps.

    Raises:
        RoundsError: it is none, or its settings or ledger cannot be read.
    """

    def __init__(self, folder: Path, table: Callable[[Started], list[Step]] = steps) -> None:
        self.folder = folder
        self.settings = read_settings(folder)
        self.ledger = Ledger(folder / LEDGER)
        self.contents = Contents(folder.resolve(), folder / HASHES)
        self.steps = table(self.settings)
        asked = [number for number, step in enumerate(self.steps) if step.name == ASKS and self._record(step)]
        self.asked = {(step.round, step.name) for step in self.steps[: asked[-1] + 1 if asked else 0]}

    def find(self, step: Step, *, again: bool = False) -> Found:
        """Say how a step stands.

        Args:
            step: which.
            again: take steps that people's tasks depend on for stale like any other.
        """
        record = self._record(step)
        if record is None:
            return Found(step, "to do")
        changed = [] if record.command == step.typed else ["its settings changed"]
        changed += [f"{path} {how}" for path, how in self._against(record.reads)]
        lost = [f"{path} {how}" for path, how in self._against(record.writes)]
        why = "; ".join(changed + lost)
        if changed and (step.round, step.name) in self.asked and not again:
            return Found(step, "lost" if lost else "kept", why)
        return Found(step, "stale" if why else "done", why)

    def all(self) -> list[Found]:
        """Say how every step stands; what follows from a step that has to be done again is stale, too."""
        found, pending = [], dict[str, str]()
        for step in self.steps:
            one = self.find(step)
            behind = [pending[path] for path in step.reads if path in pending]
            if one.state == "done" and behind and (step.round, step.name) not in self.asked:
                one = Found(step, "stale", f"follows {behind[0]}")
            if one.state in {"stale", "to do"}:
                pending |= dict.fromkeys(step.writes, f"{step.name} of round {step.round}")
            found.append(one)
        self.contents.keep()
        return found

    def hashes(self, paths: tuple[str, ...]) -> Hashes:
        """Hash some paths for the ledger."""
        return {path: self.contents.of(path).to_dict() for path in paths}

    def _record(self, step: Step) -> Record | None:
        return self.ledger.current.get((step.round, step.name))

    def _against(self, recorded: Hashes) -> Iterator[tuple[str, str]]:
        """Yield what is not as it was recorded, and how."""
        for path, was in recorded.items():
            now = self.contents.of(path).sha256
            if now != was["sha256"]:
                yield path, "is missing" if now is None else "changed"


def locked(folder: Path) -> AbstractContextManager[int]:
    """Keep a second `next` out of a folder; yields the lock's file descriptor, for the commands to inherit."""
    return held(
        as_path(folder) / LOCK,
        f"{folder}: another `next` is at work there, or a command that it began before it was killed; wait for its end",
    )
