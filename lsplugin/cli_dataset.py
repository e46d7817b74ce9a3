"""`lsplugin dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsplugin import console
from lsplugin.errors import LspluginError
from lsplugin.files import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.dataset import Made

dataset_app = typer.Typer(
    name="dataset",
    help="Datasets to label, made of other files: of published preferences, or of several models' answers.",
    no_args_is_help=True,
)

Output = Annotated[
    Path, typer.Option("-o", "--output", parser=as_path, metavar="FILE", help="Where the dataset goes (JSON).")
]


@dataset_app.command("from", epilog="Example: lsplugin dataset from hh test.jsonl.gz --limit 300 -o dataset.json")
def from_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="hh|trl|ultrafeedback",
            help="Anthropic's HH (transcripts), TRL (with a prompt or without, texts or messages), or UltraFeedback binarized.",
        ),
    ],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", parser=as_path, help="JSON or JSONL, as it is or packed (.gz).")
    ],
    output: Output = Path("dataset.json"),
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Every prompt as messages, transcripts, too; for `lsplugin render --chat`."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many tasks, drawn at random.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other places and another --limit.")] = 0,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count rows of the wrong shape instead of stopping at the first.")
    ] = False,
) -> None:
    """Make tasks of published preferences, to label them anew; a table says where every row went.

    The chosen answer becomes answer1 or answer2 by the draw of a seed; meta.original says which it was.
    """
    from lsplugin.published import read_rows
    from lsplugin.sources import tasks_from

    _check_output(output, [file])
    with console.progress("reading rows") as advance:
        rows = console.counted(read_rows(file), advance)
        made = tasks_from(source, rows, chat=chat, seed=seed, limit=limit, skip_bad=skip_bad)
    _finish(output, made, f"{file}, read as {source}", "rows")


@dataset_app.command(epilog="Example: lsplugin dataset merge base.json tuned.json --names base,tuned -o dataset.json")
def merge(
    files: Annotated[
        list[Path], typer.Argument(metavar="A.json B.json ...", parser=as_path, help="Datasets of `ppo generate`.")
    ],
    output: Output = Path("dataset.json"),
    names: Annotated[
        str | None,
        typer.Option(
            "--names",
            help="The model of each file, such as base,tuned; by default what meta.models says, else the file's name.",
            show_default=False,
        ),
    ] = None,
    one_each: Annotated[bool, typer.Option("--one-each", help="Take only the first answer of each row.")] = False,
) -> None:
    """Join datasets of different models' answers to the same prompts, so that people compare the models.

    The answers of all files follow each other as answer1, answer2, ...; meta.models says whose each is.
    """
    from lsplugin.merge import merge as merged

    _check_output(output, files)
    given = [name.strip() for name in names.split(",")] if names is not None else None
    made = merged(files, names=given, one_each=one_each)
    _finish(output, made, f"{', '.join(map(str, files))}, joined by prompt", "prompts")


def _check_output(output: Path, files: Sequence[Path]) -> None:
    if output.resolve() in {file.resolve() for file in files}:
        raise LspluginError(f"{output}: expected a file to write, found one that is read; name another with -o")


def _finish(output: Path, made: Made, title: str, what: str) -> None:
    """Write the tasks, and lay out where every row went: the lines above the last sum to it."""
    from lsplugin.files import write_json

    dropped = sorted(made.dropped.items())
    if not made.tasks:
        why = "; ".join(f"{reason}: {count}" for reason, count in dropped) or "the file is empty"
        raise LspluginError(f"{title}: expected answers to compare, found none in {made.rows} {what} ({why})")
    write_json(output, made.tasks)
    lines = [
        ("tasks", len(made.tasks)),
        *((f"dropped: {reason}", count) for reason, count in dropped),
        (what, made.rows),
    ]
    console.say(console.table(title, lines))
    chats = sum(not isinstance(task["prompt"], str) for task in made.tasks)
    hint = f"; {chats} prompts are conversations, which `lsplugin render --chat` shows" if chats else ""
    console.say(f"wrote {output}: {len(made.tasks)} tasks{hint}")
