"""`lsplugin invite`, `lsplugin progress`, `lsplugin doctor` and `lsplugin tabs`: a project while people label it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsplugin import console
from lsplugin.cli_options import ApiKey, ProjectName, Url, client
from lsplugin.errors import LspluginError
from lsplugin.files import as_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from rich.table import Table

    from lsplugin.progress import Progress

Export = Annotated[
    Path | None,
    typer.Option(
        "--export",
        parser=as_path,
        metavar="FILE",
        help="The project's JSON export; by default it is exported anew.",
        show_default=False,
    ),
]

HEADER = ("annotator", "labels", "skips", "median seconds", "labels per hour")


def invite(url: Url = None, api_key: ApiKey = None) -> None:
    """Print the link by which annotators join the organisation."""
    from urllib.parse import urlsplit

    from lsplugin.members import invite_link

    with client(url, api_key) as connected:
        link = invite_link(connected)
    typer.echo(link)
    here = urlsplit(link).hostname in {"127.0.0.1", "localhost", "::1"}
    console.say(
        "send it to your annotators: they open it, choose a password, and label"
        + (" (this address works on this machine only)" if here else "")
    )


def progress(
    project: ProjectName,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until all is done, or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", metavar="SECONDS", help="Seconds between refreshes.")] = 5.0,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Show who has labelled how much, how many tasks are done, and how long the rest takes at the present pace."""
    from lsplugin.progress import Reader

    if every <= 0:
        raise LspluginError(f"--every {every:g}: expected a number of seconds above 0")
    with client(url, api_key) as connected:
        reader = Reader(connected, connected.find(project))
        if watch:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start it with Ctrl-C ignored
            try:
                _watch(reader.read, every)
            except KeyboardInterrupt:
                console.say("stopped watching")
            return
        found = reader.read()
    typer.echo(console.table(_summary(found), _rows(found), header=HEADER))


def doctor(project: ProjectName, export: Export = None, url: Url = None, api_key: ApiKey = None) -> None:
    """Check that all is well with a project: server, key, config, labels, predictions; exit code 1 if anything is an error."""
    from lsplugin.doctor import examine

    found = []
    try:
        with client(url, api_key) as connected, console.progress(_reading(export)) as advance:
            for finding in examine(connected, connected.find(project), export, advance=lambda _: advance(0)):
                found.append(finding)  # noqa: PERF402 - what was found before a failure is kept
    finally:  # only now: a progress bar on a terminal takes stdout for itself
        for finding in found:
            typer.echo(f"{finding.verdict:<7}  {finding.check:<11}  {finding.text}")
    if any(finding.verdict == "error" for finding in found):
        raise typer.Exit(1)


def tabs(project: ProjectName, export: Export = None, url: Url = None, api_key: ApiKey = None) -> None:
    """Make tabs in a project's Data Manager: to do, labelled, disputed, missed gold, and one for each source.

    Run it again to bring them up to date: tabs of yours stay as they are.
    """
    from lsplugin.tabs import make_tabs

    with client(url, api_key) as connected, console.progress(_reading(export)) as advance:
        found = connected.find(project)
        made = make_tabs(connected, found, export, advance=lambda _: advance(0))
    rows = [(tab.title, tab.tasks, tab.url) for tab in made]
    typer.echo(console.table(f"{len(made)} tabs of project {found.id}", rows, header=("tab", "tasks", "address")))


def _reading(export: Path | None) -> str:
    return f"reading {export}" if export is not None else "exporting (the server prepares the file first)"


def _watch(read: Callable[[], Progress], every: float) -> None:
    """Show a live table until the project is done."""
    import time

    from rich.live import Live

    found = read()
    with Live(_live(found), auto_refresh=False) as live:
        while not found.finished:
            time.sleep(every)
            found = read()
            live.update(_live(found), refresh=True)


def _live(found: Progress) -> Table:
    from rich.table import Table

    table = Table(title=_summary(found), title_justify="left", title_style="")
    for index, name in enumerate(HEADER):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in _rows(found):
        table.add_row(*map(str, row))
    return table


def _summary(found: Progress) -> str:
    """Say in a line how far a project is."""
    each = f", {found.wanted} annotators each" if found.wanted > 1 else ""
    said = f"{found.done} of {found.tasks} tasks done{each}"
    if found.finished:
        return said
    said += f"; {found.labels_left} label{'' if found.labels_left == 1 else 's'} to go"
    if found.left is None or found.per_hour is None or found.last is None:
        return f"{said}; nobody's pace is known yet"
    pace = f"{found.per_hour:.0f} labels per hour"
    return f"{said}: {_duration(found.left)} at {pace}{_idle(found.last)}"


def _idle(last: datetime) -> str:
    """Say since when nobody labels, where that is so."""
    from datetime import UTC, datetime

    from lsplugin.progress import BREAK

    since = datetime.now(UTC) - last
    return f", the pace until {_duration(since)} ago" if since > BREAK else ""


def _rows(found: Progress) -> list[tuple[str, int, int, str, str]]:
    return [
        (
            share.name,
            share.labels,
            share.skips,
            "-" if share.seconds is None else f"{share.seconds:.1f}",
            "-" if share.per_hour is None else f"{share.per_hour:.0f}",
        )
        for share in found.shares
    ]


def _duration(time: timedelta) -> str:
    minutes = max(1, round(time.total_seconds() / 60))
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.0f} days"
