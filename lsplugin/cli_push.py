"""`lsplugin create` and `lsplugin push`: a dataset's rows become tasks on a server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsplugin import console
from lsplugin.cli_options import ApiKey, ProjectName, Url, client
from lsplugin.errors import LspluginError
from lsplugin.files import as_path
from lsplugin.options import make, with_options
from lsplugin.plan import GOLD, MIRROR, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.dataset import Task


@with_options(Plan)
def create(
    title: Annotated[str, typer.Argument(help="The project's title, 3 to 50 characters.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            parser=as_path,
            metavar="FILE",
            help="Labeling config; `lsplugin render` by default.",
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(
            "--tasks",
            parser=as_path,
            metavar="FILE",
            help="Dataset of answers (JSON, JSONL or CSV).",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    **settings: Any,  # noqa: ANN401 - the options of Plan
) -> None:
    """Create a project, with its tasks; prints its number. Run again, after a kill, too, it goes on where it was.

    Nothing is created when a row of the dataset is bad, and no task is imported twice.
    """
    from lsplugin.check import check_config
    from lsplugin.dataset import read_dataset
    from lsplugin.files import read_text
    from lsplugin.project import UnreachableError, prepared
    from lsplugin.render import render as render_config

    text = read_text(config) if config is not None else render_config()
    check_config(text)
    plan = make(Plan, settings)
    rows = _planned(read_dataset(tasks), text, plan) if tasks is not None else []
    prepared(rows, text, path=tasks or "")
    with client(url, api_key) as connected:
        project, new = connected.open(title, text)
        try:
            if plan.annotators_per_task is not None:
                connected.set_annotators(project, plan.annotators_per_task)
            count = 0
            if tasks is not None:
                with console.progress("importing tasks", len(rows)) as advance:
                    count = connected.push(project, rows, path=tasks, advance=advance)
        except UnreachableError as error:
            raise LspluginError(
                f"{error} (project {project.id} is kept: run the same command again to go on)"
            ) from None
        except LspluginError:
            if new:
                connected.delete(project)
            raise
    done = "created" if new else "found"
    console.say(f'{done} project {project.id} "{project.title}", imported {count} of {len(rows)} tasks: {project.url}')
    _say_kinds(rows)
    typer.echo(project.id)


@with_options(Plan)
def push(
    project: ProjectName,
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", parser=as_path, help="Dataset of answers (JSON, JSONL or CSV).")
    ],
    url: Url = None,
    api_key: ApiKey = None,
    **settings: Any,  # noqa: ANN401 - the options of Plan
) -> None:
    """Import the tasks of a dataset that a project does not hold yet; all rows are checked before anything is sent."""
    from lsplugin.dataset import read_dataset

    plan = make(Plan, settings)
    read = read_dataset(dataset)
    with client(url, api_key) as connected:
        found = connected.find(project)
        rows = _planned(read, found.config, plan)
        with console.progress("importing tasks", len(rows)) as advance:
            count = connected.push(found, rows, path=dataset, advance=advance)
        if plan.annotators_per_task is not None:
            connected.set_annotators(found, plan.annotators_per_task)
    there = f", {len(rows) - count} were there" if count < len(rows) else ""
    console.say(f"imported {count} tasks into project {found.id}{there}: {found.url}")
    _say_kinds(rows)


def _planned(rows: Sequence[Task], config: str, plan: Plan) -> list[Task]:
    """Make the tasks of a dataset's rows."""
    from lxml import etree

    from lsplugin.plan import planned

    root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    return planned(rows, root, plan)


def _say_kinds(tasks: Sequence[Task]) -> None:
    """Say how many tasks are there for a reason of their own."""
    counts = Counter(name for task in tasks for name in (GOLD, MIRROR) if name in task.meta)
    shown = sum(bool(task.predictions) for task in tasks)
    kinds = [f"{counts[GOLD]} with a known answer"] * bool(counts[GOLD])
    kinds += [f"{counts[MIRROR]} asked again with sides swapped"] * bool(counts[MIRROR])
    kinds += [f"{shown} show a pre-label"] * bool(shown)
    if kinds:
        console.say(f"among them {', '.join(kinds)}")
