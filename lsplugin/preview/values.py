"""What a task puts in place of `$field`, as the editor reads it."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.preview.elements import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = re.compile(r"\$[\w\[\].{}]+", re.ASCII)
_STEPS = re.compile(r"[.\[\]]+")
_FREE_KEYS = "1234567890qwetasdfgzxcvbyiopjklnm"
"""The order in which the editor hands out keys to choices that have none; measured with version 1.23."""


def value_of(written: str, task: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever the task holds
    """Give what an attribute shows: the field itself when it names one (`$items`), else text with its fields filled in."""
    if _VARIABLE.fullmatch(written):
        found = _find(task, written[1:])
        return "" if found is None else found
    return filled(written, task)


def filled(written: str, task: Mapping[str, Any]) -> str:
    """Put a task's fields into a text; a path such as `$messages[0].content` reaches into them."""
    return _VARIABLE.sub(lambda found: as_text(_find(task, found[0][1:])), written)


def as_text(value: object) -> str:
    """Write a JSON value as a browser does."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case list():
            return ",".join(map(as_text, value))
        case dict():
            return "[object Object]"
    return str(value)


def _find(task: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - whatever the task holds
    if path in task:
        return task[path]
    found: Any = task
    for step in filter(None, _STEPS.split(path)):
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step[:9]) < len(found):
            found = found[int(step[:9])]
        else:
            return None
    return found


def expanded(root: etree._Element, task: Mapping[str, Any]) -> etree._Element:
    """Give a config as the editor builds it for one task: choices that come from the task, a key for each choice."""
    made = deepcopy(root)
    for control in made.iter("Choices"):
        _add_choices(control, value_of(control.get("value") or "", task))
    taken = {(part.get("hotkey") or "").lower() for part in made.iter(etree.Element)}
    free = (key for key in _FREE_KEYS if key not in taken)
    for choice in made.iter("Choice"):
        if not choice.get("hotkey") and next(choice.iterancestors("Choices"), None) is not None:
            choice.set("hotkey", next(free, ""))
    return made


def _add_choices(parent: etree._Element, items: object) -> None:
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            written = {
                name: clean(as_text(item[name])) for name in ("value", "alias", "hotkey", "html") if name in item
            }
            _add_choices(etree.SubElement(parent, "Choice", written), item.get("children"))
