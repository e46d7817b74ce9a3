"""The rules as text and as a page, from the declarations that the validator itself runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.validation import RULES
from lsplugin.validation.examples import PAGE
from lsplugin.validation.fix import FIXED
from lsplugin.validation.vocabulary import vocabulary

if TYPE_CHECKING:
    from lsplugin.validation.rule import Rule

_LONGEST = 2000  # characters of an example that anyone wants to read


def as_text(rule: Rule) -> str:
    """Explain a rule to a reader at a terminal."""
    parts = [f"{rule.id} ({rule.severity})", rule.summary, rule.why]
    if rule.id in FIXED:
        parts.append("`lsplugin validate --fix` repairs it where that is safe.")
    return "\n\n".join([*parts, f"Bad:\n{_example(rule.bad)}", f"Good:\n{_example(rule.good)}"])


def as_markdown() -> str:
    """Write the page of all rules."""
    lines = [
        "# Rules of the validator",
        "",
        "What `lsplugin validate` looks for. Errors are what the editor cannot show, what loses or falsifies a label, and what",
        "exposes an annotator's browser; warnings are what is merely unwise. This page is made by `lsplugin rules --markdown`;",
        "`lsplugin rules RULE` says the same at a terminal. Tags and attributes are those of",
        f"Label Studio {vocabulary().label_studio}, from the schema in its editor; `python -m lsplugin.validation` reads them",
        "anew from the label-studio that is installed.",
        "",
        "| rule | | what must hold |",
        "|---|---|---|",
        *(f"| [{rule.id}](#{rule.id}) | {rule.severity} | {_cell(rule.summary)} |" for rule in _ordered()),
        "",
        "The examples of rules about tasks are rows under this config:",
        "",
        *_block(PAGE, "xml"),
    ]
    for rule in _ordered():
        fixed = " `--fix` repairs it where that is safe." if rule.id in FIXED else ""
        language = "json" if rule.shows == "task" else "xml"
        lines += ["", f"## {rule.id}", "", f"*{rule.severity}* {rule.summary} {rule.why}{fixed}", "", "Bad:", ""]
        lines += [*_block(_example(rule.bad), language), "", "Good:", "", *_block(_example(rule.good), language)]
    return "\n".join(lines) + "\n"


def _ordered() -> list[Rule]:
    return [RULES[name] for name in sorted(RULES)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _block(text: str, language: str) -> list[str]:
    return [f"```{language}", text.strip("\n"), "```"]


def _example(text: str) -> str:
    """Shorten what is only there to be long."""
    return text if len(text) <= _LONGEST else f"{text[:400]}... ({len(text):,} characters)"
