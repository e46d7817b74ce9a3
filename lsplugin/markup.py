"""Elements of a labeling config: the one way to make them, so that any text is safe in them."""

from __future__ import annotations

import re

from lxml import etree

from lsplugin.errors import LspluginError

_VARIABLE = re.compile(r"\$(?=[\w\[\].{}])")
WORD_JOINER = "\u2060"
"""Invisible, and takes no room."""

OBJECT_TAGS = frozenset(
    {"Text", "HyperText", "Paragraphs", "Image", "Audio", "Video", "TimeSeries", "List", "Table", "Pdf", "Markdown"}
)
"""Tags that display task data under a name."""


def element(tag: str, *children: etree._Element, **attributes: str) -> etree._Element:
    """Make an element; attributes are escaped by lxml when the tree is written.

    Raises:
        LspluginError: for a character that XML cannot hold.
    """
    made = etree.Element(tag)
    for name, value in attributes.items():
        made.set(name, safe_text(value, f"<{tag} {name}>"))
    made.extend(children)
    return made


def attributes_of(part: etree._Element) -> dict[str, str]:
    """Give an element's attributes as plain text."""
    return {str(name): str(value) for name, value in part.items()}


def safe_text(text: str, where: str) -> str:
    """Give text back when XML can hold it.

    Raises:
        LspluginError: for control characters and half characters (lone surrogates), which it cannot.
    """
    try:
        etree.Element("x").text = text
    except ValueError:
        raise LspluginError(f"{where}: control characters cannot stand in XML; remove them") from None
    return text


def shown_text(text: str, where: str) -> str:
    """Make text that the editor shows as it stands.

    The editor replaces `$name` in what it displays by the task's field of that name; an invisible word joiner after the dollar
    keeps `$5` from vanishing.
    """
    return safe_text(_VARIABLE.sub("$" + WORD_JOINER, text), where)
