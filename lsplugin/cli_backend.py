"""`lsplugin backend`."""

from __future__ import annotations

from typing import Annotated

import typer

from lsplugin import console
from lsplugin.cli_options import ApiKey, ProjectName, Url, client

backend_app = typer.Typer(
    name="backend",
    help="ML backends: a reward model that pre-labels tasks when they are opened (`python -m rm_lightning serve`).",
    no_args_is_help=True,
)

Address = Annotated[str, typer.Argument(metavar="URL", help="Where the backend listens, as the server reaches it.")]


@backend_app.command(epilog="Example: lsplugin backend add 7 http://127.0.0.1:9090")
def add(
    project: ProjectName,
    backend: Address,
    title: Annotated[str, typer.Option("--title", help="What people see.")] = "Reward model",
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask it also while a person labels.")] = False,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="RM_SERVE_TOKEN",
            help="The token that `serve` was started with; in the variable it stays out of the list of processes.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Connect a backend to a project; run it again to bring title and token up to date."""
    from lsplugin.backend import add as connect
    from lsplugin.backend import backends

    with client(url, api_key) as connected:
        found = connected.find(project)
        made, new = connect(connected, found, backend, title=title, interactive=interactive, token=token)
        others = [other.url for other in backends(connected, found) if other.id != made.id]
    done = "connected" if new else "brought up to date"
    console.say(
        f"{done}: {made.title} at {made.url}, {made.state}, model {made.version}; open a task of {found.url}/data"
    )
    if others:
        console.say(f"Label Studio asks a project's first backend alone; to remove: {', '.join(others)}")


@backend_app.command("list", epilog="Example: lsplugin backend list 7")
def list_(project: ProjectName, url: Url = None, api_key: ApiKey = None) -> None:
    """List a project's backends, and how each one is."""
    from lsplugin.backend import backends

    with client(url, api_key) as connected:
        found = connected.find(project)
        rows = [(made.title, made.url, made.state, made.version) for made in backends(connected, found)]
    title = f"{len(rows)} backend{'' if len(rows) == 1 else 's'} of project {found.id}"
    typer.echo(console.table(title, rows, header=("title", "address", "state", "model")))


@backend_app.command(epilog="Example: lsplugin backend remove 7 http://127.0.0.1:9090")
def remove(project: ProjectName, backend: Address, url: Url = None, api_key: ApiKey = None) -> None:
    """Take a backend out of a project; the predictions that it made stay."""
    from lsplugin.backend import remove as disconnect

    with client(url, api_key) as connected:
        found = connected.find(project)
        gone = disconnect(connected, found, backend)
    console.say("removed" if gone else f"project {found.id} has no backend at {backend}")
