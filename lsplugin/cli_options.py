"""Options that several commands of `lsplugin` share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

ProjectName = Annotated[str, typer.Argument(metavar="PROJECT", help="Number or exact title of a project.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Label Studio's address (or the variable LABEL_STUDIO_URL).", show_default=False),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", help="Access token, of either kind (or the variable LABEL_STUDIO_API_KEY).", show_default=False
    ),
]


def client(url: str | None, api_key: str | None) -> Any:  # noqa: ANN401 - project.Client, imported only here: it costs seconds
    """Connect to the server that the options, the environment or `lsplugin serve` name."""
    from lsplugin.connection import resolve
    from lsplugin.project import Client

    return Client(resolve(url, api_key))
