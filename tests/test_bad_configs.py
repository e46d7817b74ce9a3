"""The corpus of broken configs: one fault each, caught by the expected rule on the expected line, and by no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lsplugin.validation import RULES, validate

FOLDER = Path(__file__).parent / "configs" / "bad"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
PARSE_ERRORS = {"xml-syntax", "xml-entity"}
"""Rules after which little of the config is left: what else they bring with them is not asked."""


def issues_of(name: str) -> list[tuple[str, int]]:
    """(rule, line) of every issue of a config of the corpus."""
    row = EXPECTED[name]
    tasks = json.loads((FOLDER / row["tasks"]).read_text(encoding="utf-8")) if "tasks" in row else ()
    xml = (FOLDER / f"{name}.xml").read_text(encoding="utf-8")
    issues = validate(xml, tasks=tasks, server_version=row.get("server_version"))
    return [(issue.rule, issue.line) for issue in issues]


@pytest.mark.parametrize("name", EXPECTED)
def test_its_fault_is_found_on_its_line_and_nothing_else(name: str) -> None:
    expected = (EXPECTED[name]["rule"], EXPECTED[name]["line"])
    found = issues_of(name)
    if expected[0] in PARSE_ERRORS:
        assert expected in found
    else:
        assert found == [expected]


def test_the_corpus_is_whole() -> None:
    files = {path.name for path in FOLDER.iterdir()} - {"expected.json"}
    named = {f"{name}.xml" for name in EXPECTED} | {row["tasks"] for row in EXPECTED.values() if "tasks" in row}
    assert files == named
    assert len(EXPECTED) >= 60


def test_every_rule_has_a_broken_config() -> None:
    """All but one, whose broken config is a megabyte and made below."""
    assert set(RULES) - {row["rule"] for row in EXPECTED.values()} == {"oversized"}


def test_a_config_of_a_megabyte_is_refused_at_once() -> None:
    xml = (FOLDER / "css-grey-hint.xml").read_text(encoding="utf-8") + f"<!-- {'x' * 1_000_000} -->"
    assert [(issue.rule, issue.line) for issue in validate(xml)] == [("oversized", 1)]
