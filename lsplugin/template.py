"""Templates and what is asked with them: where skeletons, themes and samples lie, and the specification of one config.

A template is a folder: `config.xml` (a skeleton that is valid Label Studio XML by itself), `sample.json` (one task), `README.md`
(a title and a line), and `style.css` where it needs one. A theme is a CSS file whose rules all start at the root class. Layout
is the same under every theme: `css/CLASS.css` goes into every config that has a View of that class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated

from lsplugin.errors import LspluginError

PROMPT = "prompt"
CONTROL = "comparison"
MOST_ANSWERS = 10
_NAME = re.compile(r"[\w-]+")
_FIELD = re.compile(r"[A-Za-z0-9_]+")  # what the editor itself takes for the name of a variable


@cache
def templates_folder() -> Path:
    """Where the shipped templates lie: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "templates", here.parent / "templates"):
        if folder.is_dir():
            return folder
    raise LspluginError(f"the templates are missing from this installation (looked in {here}); install it again")


def template_names() -> list[str]:
    """Names of the shipped templates; the default comes first."""
    return sorted(
        (path.parent.name for path in templates_folder().glob("*/config.xml")), key=lambda n: (n != "pairwise", n)
    )


def theme_names() -> list[str]:
    """Names of the shipped themes; the default comes first."""
    return sorted(
        (path.stem for path in (templates_folder() / "themes").glob("*.css")), key=lambda n: (n != "default", n)
    )


def describe(template: str) -> tuple[str, str]:
    """Give a template's title and its line, from its README.md; a folder without one is known by its name."""
    readme = _template_folder(template) / "README.md"
    if not readme.is_file():
        return readme.parent.name, ""
    title, _, text = readme.read_text(encoding="utf-8").partition("\n")
    return title.lstrip("# ").strip(), " ".join(text.split())


@dataclass(frozen=True)
class Spec:
    """What an annotator is asked, before it is XML. Options combine; what a template has no place for is refused on rendering.

    Raises:
        LspluginError: for a value that no template can hold, at construction.
    """

    answers: Annotated[int, "How many answers a task has."] = 2
    template: Annotated[
        str | None, "A template's name (lsplugin templates) or a folder; pairwise for two answers, else ranking."
    ] = None
    theme: Annotated[str, "A theme's name or a CSS file."] = "default"
    css: Annotated[tuple[Path, ...], "A CSS file whose rules come after the theme's; may be given several times."] = ()
    question: Annotated[str | None, "The line above the answers, in place of the template's own."] = None
    tie: Annotated[bool, 'Offer "about the same" (offered by default).'] = True
    strength: Annotated[bool, "Ask how much better; a scale always asks."] = False
    both_bad: Annotated[bool, 'Offer "both are bad".'] = False
    reason: Annotated[bool, "Ask for the reason, as free text."] = False
    reasons: Annotated[tuple[str, ...], "Reasons to tick, any number of them."] = ()
    criteria: Annotated[tuple[str, ...], "Ask each criterion on its own, too; a rating gives stars for each."] = ()
    rewrite: Annotated[bool, "Let annotators edit an answer into a better one."] = False
    flag: Annotated[bool, "Let annotators flag a task as unsafe or for an expert."] = False
    chat: Annotated[bool, "The prompt is a conversation: a list of messages with role and content."] = False
    markdown: Annotated[bool, "Show answers as Markdown, sanitised, with the raw text folded below."] = False
    instructions: Annotated[Path | None, "A Markdown file, shown folded above the task."] = None
    prompt_field: Annotated[str, "The dataset's field of the prompt."] = PROMPT
    answer_fields: Annotated[
        tuple[str, ...] | None,
        "The dataset's fields of the answers, one for each; answer1,answer2,... by default.",
        "--answer-field",
        "--answer-fields",
    ] = None

    def __post_init__(self) -> None:
        if not 2 <= self.answers <= MOST_ANSWERS:
            raise LspluginError(f"--answers {self.answers}: a task compares 2 to {MOST_ANSWERS} answers")
        _ = self.folder, self.stylesheet  # refuse unknown names here, not when the config is rendered
        if self.answer_fields is not None and len(self.answer_fields) != self.answers:
            raise LspluginError(
                f"--answers {self.answers} needs as many --answer-field, {len(self.answer_fields)} were given"
            )
        _check_fields([self.prompt_field, *self.fields])
        _check_labels("--reasons", self.reasons)
        _check_labels("--criteria", self.criteria)

    @cached_property
    def folder(self) -> Path:
        """The template's folder."""
        return _template_folder(self.template or ("pairwise" if self.answers == 2 else "ranking"))

    @cached_property
    def stylesheet(self) -> Path:
        """The theme's CSS."""
        shipped = templates_folder() / "themes" / f"{self.theme}.css"
        if _NAME.fullmatch(self.theme) and shipped.is_file():
            return shipped
        if self.theme.endswith(".css"):
            return Path(self.theme)
        raise LspluginError(f"--theme {self.theme}: expected a CSS file or one of {', '.join(theme_names())}")

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the answers' fields in a task."""
        return self.answer_fields or tuple(f"answer{number}" for number in range(1, self.answers + 1))

    @property
    def own_files(self) -> bool:
        """Whether a template or CSS of the user's own goes into the config."""
        shipped = templates_folder()
        return bool(self.css) or any(shipped not in path.parents for path in (self.folder, self.stylesheet))


def _template_folder(template: str) -> Path:
    shipped = templates_folder() / template
    if _NAME.fullmatch(template) and (shipped / "config.xml").is_file():
        return shipped
    folder = Path(template)
    if not (folder / "config.xml").is_file():
        raise LspluginError(
            f"--template {template}: expected a folder with a config.xml or one of {', '.join(template_names())}"
        )
    return folder


def _check_fields(fields: list[str]) -> None:
    for number, name in enumerate(fields):
        if not _FIELD.fullmatch(name):
            raise LspluginError(
                f"field name {name!r}: Label Studio resolves only letters A-Z, digits and _ in one; rename it in the dataset"
            )
        if name in fields[:number]:
            raise LspluginError(f"field name {name!r} is given twice; the prompt and each answer need their own")


def _check_labels(option: str, labels: tuple[str, ...]) -> None:
    if any(not label.strip() for label in labels):
        raise LspluginError(f"{option}: an empty name; expected names separated by commas")
    if len({slug(label) for label in labels}) < len(labels):
        raise LspluginError(
            f"{option}: two names read the same once reduced to letters and digits: {', '.join(labels)}"
        )


def slug(label: str) -> str:
    """Reduce a label to what names a control or is stored as a choice: `Follows instructions` -> `follows-instructions`."""
    return "-".join(re.findall(r"\w+", label.lower())) or "other"
