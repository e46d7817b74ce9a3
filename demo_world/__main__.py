"""`python -m demo_world`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo_world.cli import app
from lsplugin.console import run, share_cores

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    share_cores()
    run(app, args)


if __name__ == "__main__":
    main()
