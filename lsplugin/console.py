"""What every command line of this project shares: one line for an error, a progress bar, tables. Cores never print."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

import typer

from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of malloc.h."""


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, amount: float, doing: str | None = None, /) -> None:
        """Advance by an amount; `doing` changes the bar's text."""


def run(app: typer.Typer, args: Sequence[str] | None = None) -> None:
    """Run a command line; a user's mistake ends as one line on stderr and exit code 1.

    Args:
        app: the command line.
        args: its arguments; those of the process when None.
    """
    with mistakes_as_lines():
        app(args=list(args) if args is not None else None)


@contextmanager
def mistakes_as_lines() -> Iterator[None]:
    """Turn a mistake, or what the system refuses (a full disk, a file that may not be written), into one line and exit 1."""
    try:
        yield
    except LspluginError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'the system says'}: {error.strerror or error}")


def share_cores() -> None:
    """Let OpenMP's threads sleep while they wait; call it before torch is imported.

    By default they spin, which on a machine with other work (a server, a second run) made sampling from a small model 60 times
    slower. A setting of the user's own wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_memory() -> None:
    """Let this process keep the memory that it frees.

    glibc gives blocks of 32 MiB and more back at once, and the end of its heap; an update then spends a tenth of its time on
    getting the same pages again. The peak stays what it is. Other C libraries, which have no mallopt(3), are left as they are.
    """
    malloc_options = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if malloc_options is not None:
        malloc_options(M_MMAP_MAX, 0)
        malloc_options(M_TRIM_THRESHOLD, 2**31 - 1)


def fail(message: str) -> None:
    """Print one line and exit with 1."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(1)


def say(text: str) -> None:
    """Tell a person something, on stderr, so that stdout stays the command's result."""
    typer.echo(text, err=True)


@contextmanager
def progress(doing: str, total: float | None = None) -> Iterator[Advance]:
    """Show a progress bar on stderr; yields the function that advances it and may say anew what is being done.

    Args:
        doing: what is being done.
        total: how much there is to do; None shows a spinner and the time gone by.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    amount = [] if total is None else [MofNCompleteColumn(), TimeRemainingColumn(compact=True)]
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total)

        def advance(amount: float, doing: str | None = None) -> None:
            bar.update(task, advance=amount, description=doing)

        yield advance
        bar.update(task, completed=total if total is not None else 1, total=total or 1)


def counted(items: Iterable[T], advance: Advance) -> Iterator[T]:
    """Pass items on and advance a bar by each."""
    for item in items:
        advance(1)
        yield item


def table(title: str, rows: Sequence[Sequence[object]], *, header: Sequence[str] = ()) -> str:
    """Lay rows out as a plain-text table: the first column left, the others right.

    Args:
        title: a line above the table.
        rows: cells; shown with str().
        header: a name for each column, or nothing.
    """
    lines = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    if header:
        text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([title, *(line.rstrip() for line in text)])
