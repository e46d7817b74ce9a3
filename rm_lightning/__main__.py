"""`python -m rm_lightning`: fit, validate and test are LightningCLI's; score and forecast are commands of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lsplugin.console import mistakes_as_lines, share_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

SCORE = "score"
FORECAST = "forecast"
PROGRAM = "python -m rm_lightning"
ALSO = f"""
also:
  {SCORE}                 Score the answers of a dataset, of pairs or of candidates; see `{PROGRAM} {SCORE} --help`.
  {FORECAST}              Say what more labels would bring; see `{PROGRAM} {FORECAST} --help`."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends as one line and exit code 1."""
    share_cores()
    given = list(sys.argv[1:] if args is None else args)
    with mistakes_as_lines():
        if given[:1] == [SCORE]:
            from rm_lightning.cli_score import app

            app(args=given[1:], prog_name=f"{PROGRAM} {SCORE}")
        elif given[:1] == [FORECAST]:
            from rm_lightning.cli_forecast import main as forecast

            forecast(given[1:])
        else:
            _lightning(args, help_first=given[:1] in (["--help"], ["-h"]))


def _lightning(args: Sequence[str] | None, *, help_first: bool) -> None:
    """Run LightningCLI, which exits after its help; what it does not know is said below that."""
    from rm_lightning.cli import main as run

    try:
        run(args)
    finally:
        if help_first:
            sys.stdout.write(ALSO + "\n")


if __name__ == "__main__":
    main()
