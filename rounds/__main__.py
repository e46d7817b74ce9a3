"""`python -m rounds`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.console import run
from rounds.cli import app

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    run(app, args)


if __name__ == "__main__":
    main()
