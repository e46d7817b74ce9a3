"""The same command again goes on where it was interrupted; another command begins anew."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from lsplugin import console
from lsplugin.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from jsonargparse import Namespace

RUN = "run.json"
"""In the folder of logs: the settings of the run, and whether it came to its end."""

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
        return
    if os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0":
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        write_json(folder / RUN, {"settings": settings, "finished": False})


def end(config: Namespace) -> None:
    """Say that the run came to its end; what was kept for going on is not needed any more."""
    folder = logs(config.output)
    write_json(folder / RUN, {"settings": _settings(config), "finished": True})
    latest = folder / "checkpoints" / "latest.ckpt"
    if latest.is_dir():
        shutil.rmtree(latest)
    else:
        latest.unlink(missing_ok=True)


def _settings(config: Namespace) -> dict[str, Any]:
    whole = config.as_dict()
    kept = {name: value for name, value in whole.items() if name not in _OF_NO_MATTER}
    settings: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return settings
