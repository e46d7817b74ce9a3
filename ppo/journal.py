"""What a run writes while it goes, beside its output: log files, and the checkpoint from which the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lsplugin.files import atomic_file, read_json, write_json
from rm_lightning.resume import RUN, logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

METRICS, SAMPLES, TIMINGS = "metrics.jsonl", "samples.jsonl", "timings.jsonl"
FILES = (METRICS, SAMPLES, TIMINGS)
"""They grow by lines; all but the last are the same, byte for byte, however often a run was killed."""


class Journal:
    """Log files and checkpoint of one run.

    Args:
        output: the folder of the finished policy; the journal lies in `<output>-logs/`.
        settings: all that decides what comes out; a run with the same ones is the same run.
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.folder = logs(output)
        self.checkpoint = self.folder / "checkpoints" / "latest.pt"
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))

    def interrupted(self) -> bool:
        """Say whether this very run was interrupted after its first checkpoint."""
        run = self.folder / RUN
        known: dict[str, Any] = read_json(run) if run.is_file() else {}
        same = known.get("settings") == self.settings and not known.get("finished", True)
        return same and self.checkpoint.is_file()

    def begin(self) -> None:
        """Clear away what another run left."""
        self.checkpoint.unlink(missing_ok=True)
        write_json(self.folder / RUN, {"settings": self.settings, "finished": False})
        self.cut(dict.fromkeys(FILES, 0))

    def cut(self, sizes: dict[str, int]) -> None:
        """Cut the log files back to where they were at the checkpoint, bytes."""
        for name, size in sizes.items():
            with (self.folder / name).open("ab") as stream:
                stream.truncate(size)
        for rest in self.checkpoint.parent.glob(f".{self.checkpoint.name}.*"):  # of a kill within a write
            rest.unlink()

    def add(self, name: str, rows: Iterable[object]) -> None:
        """Write lines to one of the log files."""
        with (self.folder / name).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, once all that the log files hold is on the disk."""
        sizes = {}
        for name in FILES:
            with (self.folder / name).open("ab") as stream:
                os.fsync(stream.fileno())
                sizes[name] = stream.tell()
        with atomic_file(self.checkpoint) as temporary, temporary.open("wb") as stream:
            torch.save({"state": state, "sizes": sizes}, stream)
            stream.flush()
            os.fsync(stream.fileno())

    def load(self) -> dict[str, Any]:
        """Read the checkpoint: `state` and `sizes`."""
        return dict(torch.load(self.checkpoint, map_location="cpu", weights_only=True))

    def end(self) -> None:
        """Say that the run came to its end; its checkpoint is not needed any more."""
        write_json(self.folder / RUN, {"settings": self.settings, "finished": True})
        self.checkpoint.unlink(missing_ok=True)


@contextmanager
def patience(tell: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Let an update end before Ctrl-C takes effect; yields what says whether it was pressed. Pressed again it ends at once."""
    pressed = False
    before = signal.getsignal(signal.SIGINT)

    def press(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)
        tell("the run is interrupted when this update is done (Ctrl-C again: at once)")

    if before is not signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        if signal.getsignal(signal.SIGINT) is press:
            signal.signal(signal.SIGINT, before)
