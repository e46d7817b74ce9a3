"""`python -m rm_lightning`: fit, validate and test are LightningCLI's; score, serve and forecast are commands of their own."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from lsplugin.console import mistakes_as_lines, share_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "python -m rm_lightning"
OWN = {
    "score": "Score the answers of a dataset, of pairs or of candidates",
    "serve": "Serve a reward model to Label Studio, as an ML backend",
    "forecast": "Say what more labels would bring",
}
"""Commands beside LightningCLI's, each in `rm_lightning.cli_NAME`; forecast has LightningCLI's options and is no typer app."""

ALSO = "\nalso:\n" + "\n".join(f"  {name:20}  {text}; see `{PROGRAM} {name} --help`." for name, text in OWN.items())


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends as one line and exit code 1."""
    share_cores()
    given = list(sys.argv[1:] if args is None else args)
    with mistakes_as_lines():
        if given[:1] == ["forecast"]:
            from rm_lightning.cli_forecast import main as forecast

            forecast(given[1:])
        elif given and given[0] in OWN:
            app = import_module(f"rm_lightning.cli_{given[0]}").app
            app(args=given[1:], prog_name=f"{PROGRAM} {given[0]}")
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
