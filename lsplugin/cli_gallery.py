"""`lsplugin gallery`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from lsplugin import console

gallery_app = typer.Typer(
    name="gallery",
    help="Our templates in Label Studio's own gallery (Browse Templates); `lsplugin serve` has them there already.",
    no_args_is_help=True,
)


@gallery_app.command(epilog="Example: lsplugin gallery install")
def install() -> None:
    """Put our templates into the gallery of the label-studio that is installed here."""
    from lsplugin import gallery

    folder = gallery.install(_gallery())
    console.say(
        f"installed {len(list(folder.iterdir()))} templates in {folder}; a running server shows them when started again"
    )


@gallery_app.command(epilog="Example: lsplugin gallery remove")
def remove() -> None:
    """Take our templates out of the gallery again."""
    from lsplugin import gallery

    console.say("removed" if gallery.remove(_gallery()) else "our templates are not in the gallery")


@gallery_app.command(epilog="Example: lsplugin gallery status")
def status() -> None:
    """Say where the gallery is, and whether our templates are in it."""
    from lsplugin import gallery

    found = _gallery()
    there = (found / gallery.FOLDER).is_dir()
    state = (
        "not installed"
        if not there
        else "installed"
        if gallery.is_current(found)
        else "of another version; install them anew"
    )
    typer.echo(f"{found}: {state}")


@gallery_app.command(epilog="Example: lsplugin gallery export templates-for-docker")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; an earlier export is replaced.")],
) -> None:
    """Make a folder of our templates to mount into a container."""
    from lsplugin import gallery

    gallery.export(folder)
    console.say(
        f"wrote {folder}; mount it: docker run -v {folder.absolute()}:{gallery.IN_CONTAINER}/{gallery.FOLDER}:ro ..."
    )


def _gallery() -> Path:
    from lsplugin import gallery
    from lsplugin.server import find_program

    return gallery.find_gallery(find_program())
