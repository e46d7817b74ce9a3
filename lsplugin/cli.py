"""The `lsplugin` command line: thin commands over functions that neither print nor exit."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsplugin import console
from lsplugin.cli_backend import backend_app
from lsplugin.cli_dataset import dataset_app
from lsplugin.cli_gallery import gallery_app
from lsplugin.cli_options import ApiKey, ProjectName, Url, client
from lsplugin.cli_pairs import config_beside, formats, pairs
from lsplugin.cli_preview import preview
from lsplugin.cli_project import doctor, invite, progress, tabs
from lsplugin.cli_push import create, push
from lsplugin.cli_render import render, templates
from lsplugin.cli_report import report, triage
from lsplugin.cli_validate import rules, validate
from lsplugin.errors import LspluginError
from lsplugin.files import as_path

if TYPE_CHECKING:
    from lsplugin.connection import Connection

app = typer.Typer(
    name="lsplugin",
    help="Preference projects in Label Studio: render and validate configs, create projects, pull labels, make pairs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[Path, typer.Option("--data", help="Folder of the server's database, uploads and log.")]


app.command(epilog="Example: lsplugin render --answers 2 --strength --reason -o config.xml")(render)
app.command(epilog="Example: lsplugin templates")(templates)
app.command(epilog="Example: lsplugin validate config.xml --tasks dataset.json --strict")(validate)
app.command(epilog="Example: lsplugin rules pairwise-targets")(rules)
app.command(epilog="Example: lsplugin preview config.xml --tasks dataset.json -o preview.html")(preview)
app.command(epilog='Example: lsplugin create "Helpful answers" --config config.xml --tasks dataset.json')(create)
app.command(epilog="Example: lsplugin push 7 dataset.json --mirror 5% --gold known.json")(push)
app.command(epilog="Example: lsplugin pairs export.json --aggregate bradley-terry --split 0.9,0.1 -o pairs.jsonl")(
    pairs
)
app.command(epilog="Example: lsplugin formats")(formats)
app.command(epilog="Example: lsplugin report export.json -o report.html")(report)
app.command(epilog='Example: lsplugin triage export.json --top 50 --create "To decide"')(triage)
app.add_typer(dataset_app, name="dataset")
app.command(epilog="Example: lsplugin invite")(invite)
app.command(epilog='Example: lsplugin progress "Helpful answers" --watch')(progress)
app.command(epilog="Example: lsplugin doctor 7 --export export.json")(doctor)
app.command(epilog="Example: lsplugin tabs 7 --export export.json")(tabs)
app.add_typer(gallery_app, name="gallery")
app.add_typer(backend_app, name="backend")


@app.command(epilog="Example: lsplugin serve --detach; lsplugin create ...; lsplugin serve --stop")
def serve(
    data: Data = Path(".lsplugin"),
    port: Annotated[
        int | None, typer.Option("--port", help="Port on 127.0.0.1; a free one by default.", show_default=False)
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the server is up; it runs on in the background.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server of this folder.")] = False,
) -> None:
    """Start a local Label Studio, with a user and a token ready; it asks nothing of the internet. Ctrl-C stops it."""
    from lsplugin import server

    if stop:
        console.say("stopped" if server.stop(data) else f"no server runs on {data}")
        return
    waiting = "starting Label Studio (a first start takes about two minutes)"
    if detach:
        with console.progress(waiting) as advance:
            connection = server.detach(data, port=port, tick=lambda _: advance(0))
        _say_where(connection, data)
        return
    for name in (signal.SIGTERM, signal.SIGINT):  # a shell that starts it in the background has Ctrl-C ignored
        signal.signal(name, _interrupt)
    try:
        with ExitStack() as stack:
            with console.progress(waiting) as advance:
                running = stack.enter_context(server.serve(data, port=port, tick=lambda _: advance(0)))
            _say_where(running.connection, data)
            code = running.process.wait()
            raise LspluginError(f"label-studio ended by itself with exit code {code}; see {data / server.LOG_FILE}")
    except KeyboardInterrupt:
        console.say("stopped")


@app.command(epilog="Example: lsplugin pull 7 -o export.json")
def pull(
    project: ProjectName,
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=as_path, metavar="FILE", help="Where the JSON export goes.")
    ] = Path("export.json"),
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Export a project as Label Studio's own JSON, labelled or not, and check that every task and annotation is there.

    The project's config goes beside it (export.config.xml), where `pairs` and `report` look for the names of its controls.
    """
    from lsplugin.files import write_text

    waiting = "exporting (the server prepares the file first)"
    with client(url, api_key) as connected, console.progress(waiting) as advance:
        found = connected.find(project)
        size = connected.pull(found, output, advance=lambda _: advance(0))
        write_text(config_beside(output), found.config)
    labelled = f"{size.annotations} annotations; {size.unlabelled} tasks have none"
    console.say(f"wrote {output}: {size.tasks} tasks of project {found.id} with {labelled}")


def _say_where(connection: Connection, data: Path) -> None:
    from lsplugin.connection import CONNECTION_FILE, STATE_FOLDER

    file = data / CONNECTION_FILE
    console.say(f"Label Studio is at {connection.url}; user, password and token are in {file}")
    if data.absolute() != STATE_FOLDER.absolute():
        console.say(f"other commands find it after: set -a; . {file}; set +a")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
