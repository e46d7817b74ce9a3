"""`next`: does one step after the other, as a user would, up to the one that waits for people."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE, resolve
from lsplugin.files import write_text
from rounds.content import tasks_of
from rounds.errors import RoundsError
from rounds.ledger import Record
from rounds.state import locked
from rounds.steps import CONFIG, HELD_OUT, JUDGING, TUNING, WAITS, folder_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rounds.state import Place
    from rounds.steps import Step

LIBRARIES = ("label-studio-rlhf", "label-studio-sdk", "torch", "transformers", "lightning", "peft", "numpy")


TALKS = {("lsplugin", "create"), ("lsplugin", "pull")}
"""Commands that talk to a server."""


class Waiting(NamedTuple):
    """What people still have to do.

    Attributes:
        round: from 1.
        labelled: tasks that have as many people's answers as they should.
        tasks: in all.
        url: where.
        skipped: tasks among the others that somebody skipped.
    """

    round: int
    labelled: int
    tasks: int
    url: str
    skipped: int = 0


def go_on(
    open_place: Callable[[], Place],
    folder: Path,
    *,
    again: bool = False,
    enough: bool = False,
    tell: Callable[[str], object],
) -> Waiting | None:
    """Do every step that is to do or stale, in order.

    Args:
        open_place: reads settings and ledger, once nobody else can change them.
        folder: of the rounds.
        again: do steps again that people's tasks depend on, where they are stale; new tasks are added, labels stay.
        enough: take the labels that are there for all.
        tell: called with what a person should know.

    Returns:
        What people still have to do; None when all rounds are done.

    Raises:
        LspluginError: a command failed, or something that people's tasks depend on is lost. The next call goes on there.
    """
    with locked(folder) as lock:
        place = open_place()
        runner = _Runner(place, lock, tell)
        for step in place.steps:
            found = place.find(step, again=again)
            if found.state == "kept":
                tell(f"round {step.round}, {step.name}: kept as people have it ({found.why})")
            elif found.state == "lost":
                raise RoundsError(
                    f"round {step.round}, {step.name}: {found.why}; people have tasks that depend on it: put it back, or run "
                    "`next --again`, which makes it anew and adds tasks to the project (labels stay)"
                )
            if found.state in {"done", "kept"}:
                continue
            if found.why:
                tell(f"round {step.round}, {step.name}: stale, as {found.why}")
            if waiting := runner.run(step, enough=enough):
                return waiting
    return None


class _Runner:
    """Runs steps in the folder of the rounds and writes them down."""

    def __init__(self, place: Place, lock: int, tell: Callable[[str], object]) -> None:
        self.place, self.lock, self.tell = place, lock, tell
        self.environment: dict[str, str] | None = None
        self.versions = _versions()
        self._ours = {path for step in place.steps for path in step.writes} | {CONFIG, TUNING, JUDGING, HELD_OUT}

    def run(self, step: Step, *, enough: bool) -> Waiting | None:
        """Run a step and write it down, or say what it waits for."""
        self.tell(f"round {step.round}, {step.name}: {step.says}")
        when, started = datetime.now(UTC), time.monotonic()
        reads = self.place.hashes(step.reads)
        missing = [path for path, found in reads.items() if found["sha256"] is None and path in self._ours]
        if missing:
            raise RoundsError(
                f"round {step.round}, {step.name}: {missing[0]} is missing; put it back, or see `rounds status`"
            )
        fetched = tuple(
            path for path, found in reads.items() if found["sha256"] is None
        )  # a model that the command downloads
        self._command(step)
        if step.name == WAITS and (waiting := self._waiting(step, enough=enough)):
            return waiting
        record = Record(
            round=step.round,
            step=step.name,
            command=step.typed,
            seed=step.seed,
            versions=self.versions,
            reads=reads | self.place.hashes(fetched),
            writes=self.place.hashes(step.writes),
            when=when.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 2),
        )
        lacking = [path for path, found in record.writes.items() if found["sha256"] is None]
        if lacking:
            raise RoundsError(
                f"round {step.round}, {step.name}: expected {lacking[0]}, which its command did not write"
            )
        self.place.ledger.add(record)
        self.place.contents.keep()
        return None

    def _command(self, step: Step) -> None:
        """Run a step's command in a process of its own; what it says goes to the terminal."""
        environment = self._connected() if step.command[:2] in TALKS else None
        folder = self.place.folder
        (folder / folder_of(step.round)).mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", *step.command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if step.stdout else sys.stderr,
            pass_fds=(self.lock,),
            text=True,
        )
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:  # the command has it, too, and ends in its own way
            self.tell("interrupted; waiting for the command to end (Ctrl-C again: at once)")
            process.wait()
            raise
        if process.returncode != 0:
            raise RoundsError(
                f"round {step.round}, {step.name}: its command ended with exit code {process.returncode}, as said above; mend "
                f"that and run `next` again, which goes on there ({shlex.join(step.typed)})"
            )
        if step.stdout:
            write_text(folder / step.stdout, printed)

    def _connected(self) -> dict[str, str]:
        """Give commands the server that is found from here; the folder of the rounds may lie elsewhere."""
        if self.environment is None:
            found = resolve(self.place.settings.url)
            self.environment = os.environ | {URL_VARIABLE: found.url, KEY_VARIABLE: found.api_key}
        return self.environment

    def _waiting(self, step: Step, *, enough: bool) -> Waiting | None:
        """Count the tasks that were pulled; give what is missing, or None where there is enough."""
        export = self.place.folder / step.writes[0]
        wanted = self.place.settings.annotators_per_task
        labelled = tasks = skipped = voices = 0
        for task in tasks_of(export):
            people = {made["completed_by"] for made in task["annotations"] if not made["was_cancelled"]}
            tasks, voices, labelled = tasks + 1, voices + len(people), labelled + (len(people) >= wanted)
            skipped += len(people) < wanted and any(made["was_cancelled"] for made in task["annotations"])
        if labelled >= tasks or (enough and voices):
            return None
        if enough:
            raise RoundsError(f"round {step.round}: --enough takes the labels that are there, and there are none")
        project = (self.place.folder / folder_of(step.round) / "project.txt").read_text().strip()
        url = self._connected()[URL_VARIABLE]
        return Waiting(step.round, labelled, tasks, f"{url}/projects/{project}", skipped)


def _versions() -> dict[str, str]:
    """Give the versions of what decides what comes out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
