"""A new model from a project's labels, in the background, while the old one serves; it takes over if it is at least as good.

Every step is a command that a person could type; what it reads, writes and says lies in `<model>-refit/`. The old model stays as
`<model>-<hash>`, and what the two were compared by is a line of `<model>-refits.jsonl`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from lsplugin.errors import LspluginError
from lsplugin.files import held, read_json
from rm_lightning.errors import RewardModelError
from rm_lightning.finish import MARKER
from rm_lightning.held_out import Comparison, compare, held_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rm_lightning.prelabels import Model
    from rm_lightning.worker import Worker

_NICER = 10
"""How much a refit steps back behind the predictions, which people wait for."""

_GRACE = 10.0
"""Seconds that a step has to end in when it is asked to."""


class Refit:
    """Refits one model, one at a time.

    Args:
        worker: what serves the model.
        load: loads a folder as the served one was.
        options: more options for `fit`, which win over those that the served model was fitted with.
        tell: called with what a person should know.

    Attributes:
        status: `idle`, `running`, `swapped`, `kept` or `failed`, and why, for /health.
        outcomes: how often a refit ended in each of the last three.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        load: Callable[[Path], Model],
        options: Sequence[str] = (),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.status: dict[str, Any] = {"state": "idle", "said": "no refit since the start"}
        self.outcomes = {"swapped": 0, "kept": 0, "failed": 0}
        self._worker, self._load, self._options, self._tell = worker, load, list(options), tell
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._lock = -1  # its file descriptor
        self._folder = worker.model.folder
        self.work = self._folder.with_name(self._folder.name + "-refit")
        self.log = self._folder.with_name(self._folder.name + "-refits.jsonl")

    def begin(self, project: int) -> bool:
        """Begin a refit from a project's labels; False while one runs."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self.status = {"state": "running", "said": "starting", "project": project, "since": _now()}
        self._thread = threading.Thread(target=self._run, args=(project,), name="refit", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """End a running refit; the served model stays as it is."""
        self._stopping = True
        if (process := self._process) is not None:
            _end(process)
        if self._thread is not None:
            self._thread.join(_GRACE)

    def _run(self, project: int) -> None:
        try:
            state, said, compared = self._refit(project)
        except Exception as error:  # noqa: BLE001 - whatever ends a refit, the old model serves on and people learn why
            kind = "" if isinstance(error, LspluginError) else f"{type(error).__name__}: "
            state, said, compared = "failed", kind + " ".join(str(error).split()), None
        self.outcomes[state] += 1
        found = {"state": state, "said": said, "project": project, "since": self.status["since"], "until": _now()}
        found |= {"model_version": self._worker.model.version}
        self._tell(f"refit from project {project}: {state}: {said}; {found['model_version']} serves")
        with suppress(OSError):  # a full disk must not take the state along
            note = found | ({"comparison": compared._asdict()} if compared is not None else {})
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(note, ensure_ascii=False) + "\n")
        self.status = found

    def _refit(self, project: int) -> tuple[str, str, Comparison | None]:
        """Fit, compare, and swap, alone in the folder; give how it ended, and why."""
        self.work.mkdir(parents=True, exist_ok=True)
        said = f"{self.work}: another refit is at work there, perhaps of a server that was killed; ask again when it has ended"
        with held(self.work / "lock", said) as self._lock:
            return self._refit_alone(project)

    def _refit_alone(self, project: int) -> tuple[str, str, Comparison | None]:
        (self.work / "log.txt").unlink(missing_ok=True)
        export, pairs, fitted = self.work / "export.json", self.work / "pairs.jsonl", self.work / self._folder.name
        self._step("pulling the labels", ["lsplugin", "pull", str(project), "-o", str(export)])
        self._step("making pairs", ["lsplugin", "pairs", str(export), "-o", str(pairs)])
        given = [f"--data.pairs={pairs}", f"--output={fitted}"]
        self._step("fitting", ["rm_lightning", "fit", *fit_options(self._folder), *self._options, *given])
        self._saying("comparing")
        old, new = self._worker.model, self._load(fitted)
        if new.version.rpartition("-")[2] == old.version.rpartition("-")[2]:
            return "kept", "the refit gives the very weights that serve already", None
        found = compare(old.scorer, new.scorer, held_out(self._folder, fitted), run=self._worker.between)
        if found.new < found.old:
            return "kept", f"the new model is not as good: {found}", found
        if self._stopping:
            raise RewardModelError("the server stops")
        kept = swap(fitted, self._folder, old.version)
        self._worker.model = new._replace(folder=self._folder)
        return "swapped", f"{found}; the old model is kept in {kept}", found

    def _step(self, saying: str, command: list[str]) -> None:
        """Run a command of ours to its end; what it says goes to the log.

        Raises:
            RewardModelError: it failed or was killed.
        """
        self._saying(saying)
        log = self.work / "log.txt"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=(self._lock,),  # it outlives a server that is killed, and then keeps the next refit out
                start_new_session=True,  # Ctrl-C reaches the server, and that ends it
            )
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICER))
            if self._stopping:
                _end(self._process)
            code = self._process.wait()
        if code:
            raise RewardModelError(f"{saying} {_ended(code)}{_last_error(log)} (all that it said: {log})")

    def _saying(self, what: str) -> None:
        self.status = self.status | {"said": what}


def fit_options(folder: Path) -> list[str]:
    """Give the options of `fit` that make a model like the one in a folder: its settings, and the seed of its split.

    The model's metrics.json holds them; a folder of another origin has none, and is fitted by what the user names.
    """
    if not (folder / MARKER).is_file():
        return []
    told: dict[str, Any] = read_json(folder / MARKER)
    options = [f"--data.seed={told['seed']}"] if "seed" in told else []
    for name, value in (told.get("settings") or {}).items():
        if name.startswith("model.") and value is not None:
            options.append(f"--{name}={value if isinstance(value, str) else json.dumps(value)}")
    return options


def swap(new: Path, served: Path, version: str) -> Path:
    """Put a new model in the place of the served one, which is kept under its version beside it; say where.

    A kill between the two renames leaves no folder in that place; `recover` puts the new one there.
    """
    names = (served.with_name(version + (f"-{number}" if number else "")) for number in count())
    kept = next(name for name in names if not name.exists())
    served.rename(kept)
    try:
        new.rename(served)
    except OSError:
        kept.rename(served)
        raise
    return kept


def recover(served: Path) -> None:
    """Finish a swap that was killed between its two renames."""
    new = served.with_name(served.name + "-refit") / served.name
    if not served.exists() and (new / MARKER).is_file():
        new.rename(served)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"


def _last_error(log: Path) -> str:
    """Give the line in which a command said what was wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f": {said[-1]}" if said else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
