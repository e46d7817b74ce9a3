"""The same command again goes on where it was interrupted; another command begins anew."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from typing import TYPE_CHECKING, Any

from lsplugin import console
from lsplugin.files import read_json, write_json
from rm_lightning.sources import files_of, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from jsonargparse import Namespace

RUN = "run.json"
"""In the folder of logs: the settings of the run, a hash of its data, and whether it came to its end."""

_PLACES = ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID")
"""Where launchers say which process this is; of several, only the first one clears anything away."""

_OF_NO_MATTER = {"ckpt_path", "fresh", "weights_only", "config", "subcommand"}


def logs(output: Path) -> Path:
    """Where logs and checkpoints of an output lie: beside it, so that the output holds the finished model alone."""
    return output.with_name(output.name + "-logs")


def begin(config: Namespace) -> None:
    """Point at the latest checkpoint if this very run was interrupted; otherwise clear away what another left."""
    folder = logs(config.output)
    latest = folder / "checkpoints" / "latest.ckpt"
    settings = _settings(config)
    known: dict[str, Any] = read_json(folder / RUN) if (folder / RUN).is_file() else {}
    same = known.get("settings") == settings and not known.get("finished", True)
    if config.ckpt_path is not None:
        return
    if same and latest.exists() and not config.fresh:
        console.say(
            f"an interrupted run with these settings is there: going on from {latest} (--fresh true begins anew)"
        )
        config.ckpt_path = str(latest)
        warnings.filterwarnings(
            "ignore", ".*Checkpoint directory .* exists and is not empty"
        )  # that is the point of it
        return
    if all(os.environ.get(name, "0") == "0" for name in _PLACES):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        write_json(folder / RUN, {"settings": settings, "finished": False})


def end(config: Namespace) -> None:
    """Say that the run came to its end; what was kept for going on, and what is exported, is not needed any more."""
    folder = logs(config.output)
    write_json(folder / RUN, {"settings": _settings(config), "finished": True})
    for name in ("latest", "best"):
        checkpoint = folder / "checkpoints" / f"{name}.ckpt"
        if checkpoint.is_dir():
            shutil.rmtree(checkpoint)
        else:
            checkpoint.unlink(missing_ok=True)


def _settings(config: Namespace) -> dict[str, Any]:
    whole = config.as_dict()
    kept = {name: value for name, value in whole.items() if name not in _OF_NO_MATTER}
    settings: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    named = [config.data.pairs, config.data.validation_pairs, config.data.test_pairs]
    files = [files_of([paths] if isinstance(paths, str) else paths) for paths in named if paths is not None]
    return settings | {"content": [fingerprint(part) for part in files]}
