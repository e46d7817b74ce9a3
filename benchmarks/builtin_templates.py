"""What `lsplugin validate` says of the templates that come with the installed label-studio.

    python benchmarks/builtin_templates.py

Writes docs/builtin_templates.md. Exits with 1 when the validator finds an error in a template that was not looked into yet.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from lsplugin.files import read_text, write_text
from lsplugin.validation import validate

if TYPE_CHECKING:
    from lsplugin.validation.issue import Issue

PAGE = Path(__file__).resolve().parent.parent / "docs" / "builtin_templates.md"

_CHAT = "the open-source editor shows `ConfigurationError: Not expecting tag: chat` in place of the task"

EXPLAINED = {
    **dict.fromkeys(
        (f"chat/{name}" for name in ("chat_eval", "chat_llm_eval", "chat_red_team", "chat_rlhf", "chatbot")), _CHAT
    ),
    "computer-vision/pdf_ocr": "for Enterprise: the editor shows `ConfigurationError: Not expecting tag: ocrlabels`",
    "community-contributions/two-level-sentiment-analysis-of-x-twitter-posts": "it works, but every annotator's browser loads a "
    "portrait from randomuser.me",
    "ranking-and-scoring/document-retrieval": 'the second and the third choice are both called "Two": either stores `["Two"]`, '
    "so nobody can say which document was meant",
    "ranking-and-scoring/pairwise-regression": "one Rating over two images: the stars can be clicked, and Submit stores `[]`",
    "ranking-and-scoring/serp-ranking": "it works, but each annotator's browser loads pictures from amazonaws.com, iconsdb.com",
}
"""What was seen of each template with an error, in Chromium on a server with that template and one task."""


class Template(NamedTuple):
    """A template of the gallery.

    Attributes:
        name: its folder, such as `computer-vision/object-detection`.
        title: what the gallery calls it.
        config: its labeling config.
    """

    name: str
    title: str
    config: str


def installed_templates() -> list[Template]:
    """Read the gallery of the installed label-studio."""
    folder = Path(str(importlib.metadata.distribution("label-studio").locate_file("label_studio/annotation_templates")))
    found = []
    files = (path for path in folder.rglob("config.yml") if path.relative_to(folder).parts[0] != "lsplugin")  # not ours
    for path in sorted(files):
        entry: dict[str, Any] = yaml.safe_load(read_text(path))
        found.append(Template(path.parent.relative_to(folder).as_posix(), entry["title"], entry["config"]))
    return found


def page(found: list[tuple[Template, list[Issue]]]) -> str:
    """Lay out what was found as a page of Markdown."""
    version = importlib.metadata.version("label-studio")
    severities = Counter(issue.severity for _, issues in found for issue in issues)
    rules = Counter((issue.severity, issue.rule) for _, issues in found for issue in issues)
    wrong = [name for name, issues in ((one.name, issues) for one, issues in found) if _errors(issues)]
    lines = [
        "# Label Studio's own templates under the validator",
        "",
        f"The validator looked at all {len(found)} templates of label-studio {version}.",
        "",
        "| what it found | how many |",
        "|---|---|",
        f"| templates without a remark | {sum(not issues for _, issues in found)} |",
        f"| templates with errors | {len(wrong)} |",
        f"| errors | {severities['error']} |",
        f"| warnings | {severities['warning']} |",
        "",
        "Made by `python benchmarks/builtin_templates.py`.",
        "",
        "## Errors, each looked into in Chromium on a real server",
        "",
        *[f"- **{name}**: {EXPLAINED.get(name, 'not looked into')}." for name in wrong],
        "",
        "## By rule",
        "",
        "| severity | rule | findings |",
        "|---|---|---|",
        *[f"| {severity} | {rule} | {count} |" for (severity, rule), count in sorted(rules.items())],
        "",
        "## All findings",
        "",
        "| template | line | severity | rule | what is wrong |",
        "|---|---|---|---|---|",
    ]
    for template, issues in found:
        for issue in issues:
            problem = " ".join(issue.problem.split()).replace("|", "\\|")
            lines.append(f"| {template.name} | {issue.line} | {issue.severity} | {issue.rule} | {problem} |")
    return "\n".join(lines) + "\n"


def _errors(issues: list[Issue]) -> list[Issue]:
    return [issue for issue in issues if issue.severity == "error"]


def main() -> int:
    """Validate every template, write the page, and say what is new."""
    found = [(template, validate(template.config)) for template in installed_templates()]
    write_text(PAGE, page(found))
    new = [template.name for template, issues in found if _errors(issues) and template.name not in EXPLAINED]
    print(f"{PAGE}: {len(found)} templates, {sum(bool(_errors(issues)) for _, issues in found)} with errors", end="")
    print(f"; not looked into: {', '.join(new)}" if new else "")
    return bool(new)


if __name__ == "__main__":
    sys.exit(main())
