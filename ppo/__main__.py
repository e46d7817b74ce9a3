"""`python -m ppo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.console import keep_memory, run, share_cores
from ppo.cli import app

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line."""
    share_cores()
    keep_memory()
    run(app, args)


if __name__ == "__main__":
    main()
