"""Which Label Studio to talk to, and with which key. Reading this costs nothing: the SDK is not imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lsplugin.errors import LspluginError
from lsplugin.files import read_text, write_text

URL_VARIABLE = "LABEL_STUDIO_URL"
KEY_VARIABLE = "LABEL_STUDIO_API_KEY"
STATE_FOLDER = Path(".lsplugin")
"""Where `lsplugin serve` keeps its server by default: in the folder where it is called, like .git."""

CONNECTION_FILE = "connection.env"


@dataclass(frozen=True)
class Connection:
    """An address and a key; the key stays out of every repr and message.

    Attributes:
        url: such as http://localhost:8080, without a slash at the end.
        api_key: a legacy token or a personal access token.
    """

    url: str
    api_key: str = field(repr=False)


def resolve(url: str | None = None, api_key: str | None = None, *, start: Path | None = None) -> Connection:
    """Find the server: options first, then the environment, then the connection.env of `lsplugin serve`.

    The file is looked for in `.lsplugin/` of the current folder and of the folders above it. Address and key are never mixed
    from two places: a key goes only to the server it was given for.

    Raises:
        LspluginError: when one half is missing everywhere, or the address is not one.
    """
    named, key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
    if url and not api_key and (named is None or named.rstrip("/") == url.rstrip("/")):
        api_key = key
    elif api_key and not url:
        url = named
    elif not url and not api_key and (named or key):
        url, api_key = named, key
    elif not url and not api_key and (file := find_connection_file(start or Path.cwd())):
        values = read_connection_file(file)
        url, api_key = values.get(URL_VARIABLE), values.get(KEY_VARIABLE)
    if not url or not api_key:
        missing = f"address (--url or {URL_VARIABLE})" if not url else f"key (--api-key or {KEY_VARIABLE})"
        raise LspluginError(
            f"which Label Studio? The {missing} is missing; `lsplugin serve` starts one on this machine"
        )
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
        raise LspluginError(f"--url {url}: expected an address such as http://localhost:8080")
    return Connection(url.rstrip("/"), api_key)


def find_connection_file(start: Path) -> Path | None:
    """Find the nearest .lsplugin/connection.env in `start` or above it."""
    for folder in (start, *start.parents):
        file = folder / STATE_FOLDER / CONNECTION_FILE
        if file.is_file():
            return file
    return None


def read_connection_file(path: Path) -> dict[str, str]:
    """Read NAME=value lines."""
    lines = (line.strip() for line in read_text(path).splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def write_connection_file(path: Path, values: dict[str, str]) -> None:
    """Write NAME=value lines, readable by the owner only; a shell can source them too."""
    write_text(path, "".join(f"{name}={value}\n" for name, value in values.items()), private=True)
