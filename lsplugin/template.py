"""Templates: where the skeletons, themes and samples lie, and what a rendered config is made of.

A template is a folder: `config.xml` (a skeleton that is valid Label Studio XML by itself) and `sample.json` (one task).
A theme is a CSS file whose rules all start at the skeleton's root class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lsplugin.errors import LspluginError

PROMPT = "prompt"
CONTROL = "comparison"
_THEME_NAME = re.compile(r"[\w-]+")


@cache
def templates_folder() -> Path:
    """Where the shipped templates lie: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "templates", here.parent / "templates"):
        if folder.is_dir():
            return folder
    raise LspluginError(f"the templates are missing from this installation (looked in {here}); install it again")


def theme_names() -> list[str]:
    """Names of the shipped themes."""
    return sorted(path.stem for path in (templates_folder() / "themes").glob("*.css"))


@dataclass(frozen=True)
class Spec:
    """What an annotator is asked, before it is XML.

    Attributes:
        answers: how many answers stand side by side; Pairwise compares exactly two.
        theme: name of a shipped theme.
        question: the line above the answers; None keeps the template's own.

    Raises:
        LspluginError: for a number of answers that Pairwise cannot compare, or an unknown theme.
    """

    answers: int = 2
    theme: str = "default"
    question: str | None = None

    def __post_init__(self) -> None:
        if self.answers != 2:
            raise LspluginError(
                f"--answers {self.answers}: Pairwise compares exactly two answers; "
                "use --answers 2 and make several two-answer tasks of one prompt"
            )
        if not _THEME_NAME.fullmatch(self.theme) or self.theme not in theme_names():
            raise LspluginError(f"--theme {self.theme}: no such theme; there are: {', '.join(theme_names())}")

    @property
    def answer_fields(self) -> list[str]:
        """Names of the answers in a task: answer1, answer2."""
        return [f"answer{number}" for number in range(1, self.answers + 1)]

    @property
    def skeleton(self) -> Path:
        """The template's skeleton XML."""
        return templates_folder() / "pairwise" / "config.xml"

    @property
    def sample(self) -> Path:
        """The template's sample task."""
        return templates_folder() / "pairwise" / "sample.json"

    @property
    def stylesheet(self) -> Path:
        """The theme's CSS."""
        return templates_folder() / "themes" / f"{self.theme}.css"
