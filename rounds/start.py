"""`start`: a folder with the settings, the prompts dealt out, and the labeling config."""

from __future__ import annotations

import secrets
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lsplugin.files import atomic_folder, read_text, write_jsonl, write_text
from lsplugin.preferences import read_prompts
from rounds.errors import RoundsError
from rounds.prompts import deal
from rounds.settings import SETTINGS, Rounds, Started
from rounds.steps import CONFIG, HELD_OUT, JUDGING, TUNING

if TYPE_CHECKING:
    from lsplugin.files import PathLike


def start(
    folder: Path,
    settings: Rounds,
    *,
    policy: str,
    prompts: PathLike,
    held_out: PathLike | None,
    held_out_share: float,
    config: PathLike | None,
    template: str,
) -> dict[str, int]:
    """Make the folder of some rounds, whole or not at all.

    Args:
        folder: new, or empty.
        settings: what `next` does.
        policy: what everything starts from, a folder or hub name.
        prompts: prompts.jsonl.
        held_out: prompts to measure on; drawn from the others when None.
        held_out_share: how many, where they are drawn.
        config: labeling config; rendered from a template when None.
        template: which.

    Returns:
        How many prompts are for tuning, for the judge and held out.

    Raises:
        LspluginError: the folder holds something, or prompts or config cannot be used.
    """
    if folder.is_dir() and any(folder.iterdir()):
        begun = (folder / SETTINGS).is_file()
        raise RoundsError(
            f"{folder}: rounds were started there; `python -m rounds next {folder}` goes on"
            if begun
            else f"{folder}: expected a new or empty folder, found {next(iter(folder.iterdir())).name} in it; name another"
        )
    if not 0 < held_out_share < 1:
        raise RoundsError(f"--held-out-share {held_out_share}: expected a share between 0 and 1, without the ends")
    local = Path(policy).expanduser()
    name = str(local.resolve()) if local.is_dir() else policy
    given = asdict(settings) | {"title": settings.title or folder.resolve().name}
    parts = deal(
        read_prompts(prompts),
        read_prompts(held_out) if held_out is not None else None,
        judge_share=settings.judge_share,
        held_out_share=held_out_share,
        seed=settings.seed,
    )
    made = Started(**given, policy=name, number=secrets.token_hex(2))
    with atomic_folder(folder, marker=SETTINGS) as temporary:
        for path, part in zip((TUNING, JUDGING, HELD_OUT), parts, strict=True):
            write_jsonl(temporary / path, ({"prompt": prompt} for prompt in part))
        if config is not None:
            write_text(temporary / CONFIG, read_text(config))
        else:
            _lsplugin(
                "render", "--template", template, "--answers", str(settings.answers), "-o", str(temporary / CONFIG)
            )
        _lsplugin("validate", str(temporary / CONFIG))
        write_text(temporary / SETTINGS, made.to_yaml())
    return dict(zip(("tuning", "judging", "held_out"), map(len, parts), strict=True))


def _lsplugin(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lsplugin", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().removeprefix("error: ")
        raise RoundsError(f"lsplugin {arguments[0]} did not end well: {said}")
