"""`lsplugin preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsplugin import console
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from lsplugin.dataset import Task


def preview(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A labeling config.")],
    tasks: Annotated[
        Path | None,
        typer.Option(
            "--tasks", help="The dataset to show; the config's own sample task by default.", show_default=False
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the page goes.")] = Path("preview.html"),
) -> None:
    """Make one HTML page that shows what annotators will see, for people without a server."""
    from lsplugin.check import check_config
    from lsplugin.dataset import read_dataset
    from lsplugin.files import read_text, write_text
    from lsplugin.preview import preview as make_page
    from lsplugin.project import prepared

    text = read_text(config)
    check_config(text, what=str(config))
    rows = read_dataset(tasks) if tasks is not None else [_sample(text, config)]
    made = prepared(rows, text, path=tasks or config)
    write_text(output, make_page(text, [task.data for task in made]))
    console.say(f"wrote {output}: open it in a browser")


def _sample(text: str, config: Path) -> Task:
    """Take the sample task out of the comment behind a config."""
    import json

    from lxml import etree

    from lsplugin.dataset import Task

    root = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    for comment in root.itersiblings(etree.Comment):
        try:
            sample = json.loads(comment.text or "")
        except ValueError:
            continue
        if isinstance(sample, dict) and isinstance(sample.get("data"), dict):
            return Task(sample["data"], {}, 1)
    raise LspluginError(f"{config}: it ends with no sample task; name a dataset with --tasks")
