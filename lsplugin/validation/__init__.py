"""Find what is wrong with a preference config before an annotator does.

Label Studio accepts configs that its editor cannot show, and stores labels that nobody can read back. `validate` parses the
config as the tree that it is, asks every rule, and reports all issues at once, each with its line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lxml import etree

# Importing a module of rules declares them.
from lsplugin.validation import choices, css, css_classes, css_contrast, names, shown, source, structure, targets  # noqa: F401
from lsplugin.validation.config import Config, variables
from lsplugin.validation.document import load
from lsplugin.validation.issue import Issue, Severity, has_errors
from lsplugin.validation.rule import RULES, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OBJECT_TAGS", "RULES", "Issue", "Rule", "Severity", "has_errors", "validate", "variables"]


def validate(
    xml: str | bytes, *, tasks: Sequence[dict[str, Any]] = (), server_version: str | None = None
) -> list[Issue]:
    """Check a labeling config; return every issue, in the order of its lines. Never raises on any config.

    Args:
        xml: the config as text, or as UTF-8.
        tasks: data of the tasks that it will show; their faults are found, too.
        server_version: the Label Studio that it is meant for, such as `1.20`; the newest known by default.

    Raises:
        ValueError: for a server version that is not numbers and dots.
    """
    wanted = tuple(int(part) for part in server_version.split(".")) if server_version is not None else None
    if isinstance(xml, bytes):
        try:
            xml = xml.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            return [Issue("xml-syntax", "error", line, f"not UTF-8 text at byte {error.start}", "save it as UTF-8")]
    text = xml.removeprefix("\ufeff")
    unread = Config(text, etree.Element("View"))
    for name in source.SOURCE:
        if issues := RULES[name].issues(unread):
            return issues
    config = load(text, tasks=tasks, server_version=wanted)
    issues = [issue for rule in RULES.values() if rule.id not in source.SOURCE for issue in rule.issues(config)]
    return sorted(issues, key=lambda issue: (issue.line, issue.row or 0, issue.severity, issue.rule))
