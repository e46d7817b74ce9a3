"""Rows of a dataset -> the fields that a config displays.

People write `prompt` and `answer1`, `answer2`, ...; some configs show more: sanitised HTML of an answer (`answer1_html`), the
items of a ranking, a conversation in place of a plain prompt. What a row lacks and can be derived is derived when it is pushed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsplugin.answers import MARKDOWN_SUFFIX, letter
from lsplugin.markup import OBJECT_TAGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml import etree

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def prepare(data: dict[str, Any], root: etree._Element, *, order: Sequence[str] = ()) -> dict[str, Any]:
    """Add the fields that a config displays and that follow from the row; what the row has stays.

    Args:
        data: one task's fields.
        root: the config's tree.
        order: what the dataset calls the answers, in the order in which they are shown; the items of a ranking are called so.

    Returns:
        The task's fields; fields that cannot be derived stay missing, for the check that follows.
    """
    made = dict(data)
    for shown in root.iter("Paragraphs"):
        field = shown.get("value", "").removeprefix("$")
        if isinstance(made.get(field), str) and shown.get("nameKey") == "role":
            made[field] = [{"role": "user", "content": made[field]}]
    for shown in root.iter("List"):
        field = shown.get("value", "").removeprefix("$")
        if field and field not in made:
            names = order or answer_fields(root)
            made[field] = [{"id": name, "title": f"Answer {letter(index)}"} for index, name in enumerate(names)]
    for field in displayed(root):
        source = field.removesuffix(MARKDOWN_SUFFIX)
        if field != source and field not in made and _is_text(made.get(source)):
            from lsplugin.markdown import to_html

            made[field] = to_html(made[source].translate(_SURROGATES))
    return made


def _is_text(value: object) -> bool:
    """Say whether there is something to show; what is not text stays where it is, for the check to name."""
    return isinstance(value, str) and bool(value.strip())


def displayed(root: etree._Element) -> dict[str, str]:
    """Name the task fields that a config displays, each with the tag that first shows it."""
    found: dict[str, str] = {}
    for shown in root.iter(*OBJECT_TAGS):
        value = shown.get("value") or ""
        if value.startswith("$"):
            found.setdefault(value[1:], str(shown.tag))
    return found


def answer_fields(root: etree._Element) -> list[str]:
    """Fields of the answers that a config shows, in order: what Pairwise compares, else the objects answer1, answer2, ..."""
    shown = {element.get("name", ""): element.get("value", "") for element in root.iter(*OBJECT_TAGS)}
    control = root.find(".//Pairwise")
    if control is not None:
        names = [name for name in control.get("toName", "").split(",") if name in shown]
    else:
        numbered = [name for name in shown if name.removeprefix("answer").isdigit()]
        names = sorted(numbered, key=lambda name: int(name.removeprefix("answer")))
    return [shown[name].removeprefix("$").removesuffix(MARKDOWN_SUFFIX) for name in names]
