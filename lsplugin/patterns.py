"""Regular expressions that select by value, for filters that know no lists."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def any_of(numbers: Iterable[int]) -> str:
    """Give a pattern that matches just these numbers; none matches only 0, which numbers nothing in a database.

    Common beginnings are written once, 12(?:3|45?), so that matching takes as long for thousands of numbers as for one.
    """
    tree: dict[str, Any] = {}
    for number in numbers:
        node = tree
        for digit in str(number):
            node = node.setdefault(digit, {})
        node[""] = {}
    return f"^{_pattern(tree) or '0'}$"


def field_in_json(name: str, value: object) -> str:
    """Give a pattern of a field in JSON as databases write it: SQLite's text keeps the escapes, PostgreSQL's does not."""
    written = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    return f'"{name}": ({"|".join(sorted(map(re.escape, written)))})[,}}]'


def _pattern(node: dict[str, Any]) -> str:
    branches = [digit + _pattern(rest) for digit, rest in sorted(node.items()) if digit]
    if not branches:
        return ""
    joined = branches[0] if len(branches) == 1 and "" not in node else f"(?:{'|'.join(branches)})"
    return joined + ("?" if "" in node else "")
