"""The command line of the made world: prompts, the base model, and the simulated annotators at work."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from demo_world.annotators import ACTIONS
from lsplugin import console
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

app = typer.Typer(
    help="A made world with a known gold score, to try the whole loop in without people or downloads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Seed = Annotated[int, typer.Option(help="Another seed draws another world of the same kind.")]


@app.command("prompts", epilog="Example: python -m demo_world prompts -o prompts.jsonl --held-out held_out.jsonl")
def write_prompts(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the train prompts go (prompts.jsonl).")],
    held_out: Annotated[Path | None, typer.Option(help="Where the held-out prompts go.")] = None,
    train: Annotated[int | None, typer.Option(min=1, help="How many train prompts; all when not given.")] = None,
    held_out_count: Annotated[
        int | None, typer.Option(min=1, help="How many held-out prompts; all when not given.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Write prompts, one {"prompt": ...} a line; no prompt is both a train prompt and held out."""
    from demo_world.corpus import prompts, split
    from lsplugin.files import write_jsonl

    sides = split(prompts(seed))
    for path, texts, count, option in zip((output, held_out), sides, (train, held_out_count), OPTIONS, strict=True):
        if count is not None and count > len(texts):
            raise LspluginError(f"{option}: expected at most {len(texts)} prompts, found {count}")
        if path is not None:
            write_jsonl(path, ({"prompt": text} for text in texts[:count]))


OPTIONS = ("--train", "--held-out-count")


@app.command(epilog="Example: python -m demo_world base")
def base(seed: Seed = 0) -> None:
    """Print the folder of the base model, training it first when it is not in the cache (about a minute)."""
    from demo_world.base import base_model

    with _bar("training the base model") as progress:
        folder = base_model(seed, progress=progress)
    typer.echo(folder)


@app.command(epilog="Example: python -m demo_world label 7 -o labels.json")
def label(
    project: Annotated[int, typer.Argument(help="The number of the project.")],
    url: Annotated[
        str | None, typer.Option(help="Label Studio's address (or the variable LABEL_STUDIO_URL).", show_default=False)
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Access token, of either kind (or the variable LABEL_STUDIO_API_KEY).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the counts go (JSON).", show_default=False)
    ] = None,
    seed: Seed = 0,
) -> None:
    """Let five simulated annotators, who stand in for people, label a project until no task is left."""
    from demo_world.labelling import label_project
    from lsplugin.connection import resolve
    from lsplugin.files import write_json

    server = resolve(url, api_key)
    with console.progress("simulated annotators at work") as advance:
        counts = label_project(server.url, server.api_key, project, seed=seed, progress=lambda _done: advance(1))
    rows = [(name, *(actions[action] for action in ACTIONS)) for name, actions in counts.actions.items()]
    title = f"{counts.labels} labels on {counts.tasks} tasks, by simulated annotators"
    console.say(console.table(title, rows, header=("", *ACTIONS)))
    if output is not None:
        write_json(output, counts.to_dict())


@app.command(epilog="Example: python -m demo_world report runs/demo")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run of examples/loop.sh.")],
) -> None:
    """Print what a run of the loop showed, and write summary.json and report.html; exit code 1 if it did not show it."""
    from demo_world.report import as_text, check, summarise, write_report

    summary = summarise(run)
    typer.echo(as_text(summary))
    write_report(run, summary)
    check(summary)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar while the block calls what it gets with (done, total)."""
    with console.progress(title) as advance:
        yield lambda done, total: advance(0, f"{title} {done}/{total}")
