"""`python -m rm_lightning score`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsplugin import console
from lsplugin.files import as_path
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = typer.Typer(name="score", add_completion=False, pretty_exceptions_enable=False)

DEFAULT_MODEL = "runs/rm"


@app.command(epilog="Example: python -m rm_lightning score --model runs/rm dataset.json -o scores.jsonl")
def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=as_path,
            help='dataset.json, an export, pairs.jsonl, or {"prompt", "answer"} or {"prompt", "answers"} a line; .gz, too.',
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Folder or hub name of a reward model; several are an ensemble. Default: runs/rm.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=as_path, metavar="FILE", help="Where the scores go (JSONL).")
    ] = Path("scores.jsonl"),
    members: Annotated[
        str | None,
        typer.Option(
            "--members",
            metavar="A,B,C",
            help="Heads to use, counted from 0 over all models; the others stay judges. All by default.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    tokens_per_batch: Annotated[
        int, typer.Option("--tokens-per-batch", min=1, help="Tokens in one pass at most; less needs less memory.")
    ] = 8192,
    precision: Annotated[str, typer.Option("--precision", help="32-true, or bf16-mixed on a GPU.")] = "32-true",
) -> None:
    """Score every answer of some files by a reward model; `lsplugin push --predictions` shows the scores as pre-labels.

    The same command goes on where a killed run stopped.
    """
    folders = model or [DEFAULT_MODEL]
    _check(folders, files, output)
    chosen = _numbers(members)
    from rm_lightning.quiet import quiet

    quiet()
    from rm_lightning.scorer import RewardScorer, find_device
    from rm_lightning.scoring import Part, model_digest, score_files

    part = Part(output)
    found = find_device(device)
    scorer = RewardScorer(
        folders,
        device=found,
        tokens_per_batch=tokens_per_batch,
        members=chosen,
        precision=precision,  # type: ignore[arg-type]  # checked there
    )
    made_with = {
        "model": _name(folders, chosen),
        "model files": [model_digest(folder) for folder in folders],
        "members": scorer.members,
        "device": found.type,
        "precision": precision,
        "tokens per batch": tokens_per_batch,
    }
    with ExitStack() as bar:
        bar.enter_context(console.progress("reading all rows"))
        tally = score_files(
            scorer, files, part, made_with=made_with, total=lambda *counts: _shown(bar, *counts), tell=console.say
        )
    skipped = sum(tally.skipped.values())
    console.say(f"wrote {output}: {tally.scored} of {tally.taken} answers scored, {skipped} skipped")
    for reason in tally.reasons():
        console.say(f"skipped {reason}")


def _shown(bar: ExitStack, count: int, done: int) -> Callable[[int], object]:
    """Show a bar of `count` answers, and how many of them a second are scored now."""
    bar.close()  # what was shown before
    advance = bar.enter_context(console.progress("scoring answers", count))
    advance(done)
    began, new = time.monotonic(), 0

    def show(amount: int) -> None:
        nonlocal new
        new += amount
        speed = new / max(time.monotonic() - began, 1e-9)
        advance(amount, f"scoring answers, {speed:,.0f} a second")

    return show


def _check(folders: Sequence[str], files: Sequence[Path], output: Path) -> None:
    """Refuse, before anything is loaded, what can only be a mistake."""
    if folders == [DEFAULT_MODEL] and not Path(DEFAULT_MODEL).exists():
        raise RewardModelError(
            f"{DEFAULT_MODEL}: no such folder; `python -m rm_lightning fit` makes it (or name another with --model)"
        )
    if str(output.absolute()) in {str(file.absolute()) for file in files}:
        raise RewardModelError(f"--output {output}: it is one of the files to score; name another")


def _numbers(members: str | None) -> list[int] | None:
    """Read `0,2`."""
    if members is None:
        return None
    try:
        return [int(number) for number in members.split(",")]
    except ValueError:
        raise RewardModelError(f"--members {members}: expected numbers such as 0,2, counted from 0") from None


def _name(folders: Sequence[str], members: Sequence[int] | None) -> str:
    """Name what scores, as people will see it in Label Studio: the folders' own names, and the members where some are chosen."""
    names = [Path(folder).resolve().name if Path(folder).is_dir() else folder for folder in folders]
    return "+".join(names) + (f"[{','.join(map(str, members))}]" if members is not None else "")
