"""What the command line says of itself, its ready configurations, and mistakes in one line."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "python -m rm_lightning"

COMMANDS = {
    "fit": f"""Train a reward model on comparisons, test it on held-out prompts, and write it to --output.

example:
  {PROGRAM} fit --data.pairs pairs.jsonl --model.backbone gpt2 --output runs/rm

--config NAME takes a ready configuration ({{ready}});
options after it win. The same command again goes on where it was interrupted. Without --model.backbone and
--data.pairs, the demo world's small ones are used.""",
    "validate": f"""Measure a model on the prompts that choose the checkpoint, and print the figures.

example:
  {PROGRAM} validate --model.backbone runs/rm --data.validation_pairs pairs.jsonl""",
    "test": f"""Measure a model on the prompts that choose nothing, and print the figures.

example:
  {PROGRAM} test --model.backbone runs/rm --data.test_pairs pairs.jsonl""",
    "predict": f"""Score both answers of every comparison, and write them to --output as JSON lines.

example:
  {PROGRAM} predict --model.backbone runs/rm --data.pairs pairs.jsonl --output scores.jsonl""",
}
"""What each command's help begins with."""

CONFIGS = Path(__file__).parent / "configs"


class Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the lines of a description as they are."""


class Parser(LightningArgumentParser):
    """Says what is wrong with the arguments in one line, not below some hundred lines of options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise it as a mistake of the user's."""
        if not self.exit_on_error:  # jsonargparse tries something out
            super().error(message, ex)
        raise RewardModelError(f"{of_union(message)}; `{PROGRAM} fit --help` tells all options")


def of_union(message: str) -> str:
    """Cut jsonargparse's list of all types that a value is not of down to the first, which is the one that was meant."""
    head, union, rest = message.partition("Does not validate against any of the Union subtypes")
    _, _, tried = rest.partition("- ")
    meant = [line for line in tried.partition("\n  - ")[0].splitlines() if not line.startswith("Given value")]
    return " ".join(f"{head} {' '.join(meant)}".split()) if union and tried else message


def ready_configs() -> dict[str, Path]:
    """Give the configurations that come with this package, by name."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def with_ready_configs(args: Sequence[str]) -> list[str]:
    """Put a ready configuration's path where its bare name is given to --config; other arguments stay as they are.

    Raises:
        RewardModelError: a bare name that is neither a file nor a ready configuration.
    """
    found: list[str] = []
    for arg in args:
        option, sign, value = arg.partition("=")
        if option in {"--config", "-c"} and sign:
            found.append(f"{option}={_config(value)}")
        else:
            found.append(_config(arg) if found and found[-1] in {"--config", "-c"} else arg)
    return found


def _config(name: str) -> str:
    known = ready_configs()
    if Path(name).is_file() or Path(name).suffix or Path(name).name != name:
        return name
    if name not in known:
        raise RewardModelError(f"--config {name}: no such file, and not one of the ready ones: {', '.join(known)}")
    return str(known[name])
