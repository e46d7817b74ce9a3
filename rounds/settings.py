"""Settings of rounds, each documented once, here: the options of `start` and the comments in rounds.yaml are made of it."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, get_args, get_type_hints

import yaml

from lsplugin.files import read_text
from rounds.errors import RoundsError

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = "rounds.yaml"
COMMANDS = ("generate", "create", "pairs", "fit", "tune", "evaluate")
"""Settings that hold further options of a step's command."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How rounds go; what was made with other settings and labelled already stays as it is.

    Raises:
        RoundsError: for values that cannot be.
    """

    title: Annotated[str | None, "How the projects begin to be called; the folder's name by default."] = None
    url: Annotated[
        str | None, "Label Studio's address; by default found as `lsplugin` finds it. Keys are never kept."
    ] = None
    rounds: Annotated[int, "How many rounds; raise it to go on."] = 3
    labels: Annotated[int, "Tasks that people get each round."] = 200
    annotators_per_task: Annotated[int, "How many people get each task."] = 1
    answers: Annotated[int, "Answers that people compare in a task."] = 2
    pool: Annotated[int, "From the second round on, prompts answered for each one that is asked about."] = 4
    uncertain: Annotated[float, "Share of the tasks about which the reward model's members disagree most."] = 0.0
    diverse: Annotated[float, "Share of the tasks least like those chosen before; the rest is drawn at random."] = 0.0
    again: Annotated[float, "Share of the tasks that an earlier round asked, too: do people still say the same?"] = 0.05
    judge_share: Annotated[float, "Share of the prompts whose labels train the judge alone."] = 0.25
    members: Annotated[int, "Heads of the reward model; what they disagree about is asked next."] = 4
    seed: Annotated[int, "Of everything that is drawn."] = 0
    generate: Annotated[str, "Further options of `python -m ppo generate`, as on its command line."] = ""
    create: Annotated[str, "Further options of `lsplugin create`."] = ""
    pairs: Annotated[str, "Further options of `lsplugin pairs`."] = ""
    fit: Annotated[str, "Further options of `python -m rm_lightning fit`, for the reward model and the judge."] = ""
    tune: Annotated[str, "Further options of `python -m ppo run`."] = ""
    evaluate: Annotated[str, "Further options of `python -m ppo evaluate`."] = "--best-of 0"

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("labels", 2), ("annotators_per_task", 1), ("answers", 2), ("pool", 1)):
            if getattr(self, name) < least:
                raise RoundsError(f"{name} {getattr(self, name)}: expected {least} or more")
        for name in ("uncertain", "diverse", "again"):
            if not 0 <= getattr(self, name) <= 1:
                raise RoundsError(f"{name} {getattr(self, name)}: expected a share between 0 and 1")
        if not 0 < self.judge_share < 1:
            raise RoundsError(
                f"judge_share {self.judge_share}: expected a share above 0 and below 1, for labels of its own"
            )
        if self.uncertain + self.diverse > 1:
            raise RoundsError(f"uncertain {self.uncertain} and diverse {self.diverse}: expected a sum of 1 at most")
        if self.uncertain and self.members < 2:
            raise RoundsError(
                f"members {self.members}: expected 2 or more, who can disagree, or uncertain 0; found {self.uncertain}"
            )
        for name in COMMANDS:
            try:
                self.more(name)
            except ValueError as error:
                raise RoundsError(f"{name} {getattr(self, name)!r}: expected options as in a shell ({error})") from None

    def more(self, command: str) -> tuple[str, ...]:
        """Give the further options of a step's command."""
        return tuple(shlex.split(getattr(self, command)))


@dataclass(frozen=True, kw_only=True)
class Started(Rounds):
    """All that stands in rounds.yaml.

    Attributes:
        policy: the start: a language model's folder or hub name.
        number: drawn once by `start`; it stands in the projects' titles, so that two runs never share a project.
    """

    policy: Annotated[str, "What everything starts from and is compared with: a language model's folder or hub name."]
    number: Annotated[str, "Drawn by `start`, part of the projects' titles, so that no two runs share a project."]

    def project(self, number: int) -> str:
        """Name the project of a round; Label Studio takes 3 to 50 characters."""
        end = f" round {number} ({self.number})"
        return f"{(self.title or '')[: 50 - len(end)]}{end}"

    def to_yaml(self) -> str:
        """Write every setting under the comment that explains it."""
        hints = get_type_hints(Started, include_extras=True)
        lines = [
            "# Settings of `python -m rounds next`; a change counts for all that people have not labelled yet.",
            "",
        ]
        own = {name: getattr(self, name) for name in ("policy", "number")}
        for name, value in (own | asdict(self)).items():
            lines += [
                f"# {get_args(hints[name])[1]}",
                yaml.safe_dump({name: value}, allow_unicode=True, width=1000).strip(),
            ]
        return "\n".join(lines) + "\n"


def read_settings(folder: Path) -> Started:
    """Read rounds.yaml.

    Raises:
        RoundsError: it is not there, or a line is not a known setting with a value of its kind.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise RoundsError(f"{path}: no such file; `python -m rounds start {folder} --policy ... --prompts ...` begins")
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise RoundsError(f"{path}: expected YAML, found something else ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise RoundsError(f"{path}: expected a line `name: value` for every setting")
    hints = get_type_hints(Started)
    for name, value in found.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            raise RoundsError(f"{path}: there is no setting {name}{f'; did you mean {near[0]}?' if near else ''}")
        _check_kind(path, name, value, get_args(hints[name]) or (hints[name],))
    for field in fields(Started):
        if field.name in {"policy", "number"} and not found.get(field.name):
            raise RoundsError(f"{path}: the setting {field.name} is missing; `start` writes it")
    try:
        return Started(**found)
    except RoundsError as error:
        raise RoundsError(f"{path}: {error}") from None


def _check_kind(path: Path, name: str, value: object, kinds: tuple[type, ...]) -> None:
    takes = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, takes) or (isinstance(value, bool) and bool not in takes):
        said = " or ".join(
            {"str": "text", "int": "a whole number", "float": "a number"}.get(k.__name__, "nothing") for k in kinds
        )
        raise RoundsError(f"{path}: expected {name} to be {said}, found {value!r}")
