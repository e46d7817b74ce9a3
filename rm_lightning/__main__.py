"""`python -m rm_lightning`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.console import mistakes_as_lines, share_cores

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends as one line and exit code 1."""
    share_cores()
    from rm_lightning.cli import main as run

    with mistakes_as_lines():
        run(args)


if __name__ == "__main__":
    main()
