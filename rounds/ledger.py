"""The ledger: for every finished step what it was told, what it read and what it wrote, by hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lsplugin.files import read_jsonl, write_jsonl
from rounds.errors import RoundsError

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = "ledger.jsonl"

Hashes = dict[str, dict[str, str | None]]
"""By path: `sha256` of the bytes, and `content` where that differs (see `rounds.content.Content`)."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished step.

    Attributes:
        round: from 1.
        step: its name.
        command: what was run, as typed in the folder of the rounds.
        seed: of what it draws; None where it draws nothing.
        versions: of this project and of the libraries that decide what comes out.
        reads: what it read.
        writes: what it wrote.
        when: when it began (UTC); of no account for what came out, as `seconds`.
        seconds: how long it took.
    """

    round: int
    step: str
    command: list[str]
    seed: int | None
    versions: dict[str, str]
    reads: Hashes
    writes: Hashes
    when: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def name(self) -> tuple[int, str]:
        """Which step it is."""
        return self.round, self.step

    @property
    def hashed(self) -> list[Any]:
        """All of it that is the same wherever and whenever the same is done with the same labels."""
        told = [
            {path: found.get("content", found["sha256"]) for path, found in part.items()}
            for part in (self.reads, self.writes)
        ]
        return [self.round, self.step, self.command, self.seed, *told]


class Ledger:
    """All records, in the order in which steps were finished; a step that was done again has several, the last one counts.

    Args:
        path: the file; every change writes it anew, whole or not at all.

    Raises:
        RoundsError: a line is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        for number, row in read_jsonl(path) if path.is_file() else ():
            try:
                self.records.append(Record(**row))
            except TypeError:
                raise RoundsError(
                    f"{path}, line {number}: expected the record of a step; put the file back as it was"
                ) from None

    @property
    def current(self) -> dict[tuple[int, str], Record]:
        """The last record of every step, by round and name."""
        return {record.name: record for record in self.records}

    def add(self, record: Record) -> None:
        """Write down a finished step."""
        self.records.append(record)
        write_jsonl(self.path, map(asdict, self.records))

    def writer(self, path: str, sha256: str | None = None) -> Record | None:
        """Find the step that wrote a file or folder, or the folder around it: the last that wrote this hash, else the last."""
        found = [
            record for record in self.records if any(path == one or path.startswith(f"{one}/") for one in record.writes)
        ]
        same = [
            record for record in found if sha256 is not None and record.writes.get(path, {}).get("sha256") == sha256
        ]
        return next(iter([*same[::-1], *found[::-1]]), None)

    def fingerprint(self) -> str:
        """Hash all steps as they count now: two runs that did the same with the same labels have the same."""
        found = [record.hashed for _, record in sorted(self.current.items())]
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
