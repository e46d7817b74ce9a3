"""`lsplugin render` and `lsplugin templates`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.cli_options import ApiKey, Url, client
from lsplugin.options import make, with_options
from lsplugin.template import Spec


@with_options(Spec)
def render(
    sample: Annotated[
        Path | None,
        typer.Option("--sample", help="A task for the preview (JSON); of a dataset the first.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to a file instead of stdout.", show_default=False)
    ] = None,
    create: Annotated[
        str | None, typer.Option("--create", metavar="TITLE", help="Make a project of it at once.", show_default=False)
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    **settings: Any,  # noqa: ANN401 - the fields of Spec
) -> None:
    """Print a labeling config: a comparison of answers, with a custom Style. Options combine."""
    from lsplugin.files import write_text
    from lsplugin.render import render as render_config

    spec = make(Spec, settings)
    config = render_config(spec, sample=_sample(sample, spec) if sample is not None else None)
    if output is not None:
        write_text(output, config)
        console.say(f"wrote {output}")
    elif create is None:
        typer.echo(config, nl=False)
    if create is not None:
        with client(url, api_key) as connected:
            project = connected.create(create, config)
        console.say(f'created project {project.id} "{project.title}": {project.url}')
        typer.echo(project.id)


def _sample(path: Path, spec: Spec) -> dict[str, Any]:
    from lsplugin.dataset import read_sample

    return read_sample(path, (spec.prompt_field, *spec.fields))


def templates() -> None:
    """List the templates, with a line each, and the themes."""
    from lsplugin.template import describe, template_names, theme_names

    for name in template_names():
        title, line = describe(name)
        typer.echo(f"{name:10} {title}. {line}")
    typer.echo(f"\nthemes: {', '.join(theme_names())}")
