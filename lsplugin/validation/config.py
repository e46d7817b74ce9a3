"""The config under examination: parsed once, looked at by every rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from lsplugin.markup import OBJECT_TAGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml import etree


class Miscased(NamedTuple):
    """A tag, or an attribute of it, that was written in another case than the documented one.

    Attributes:
        element: the tag, renamed.
        attribute: the attribute's documented name; None when it is the tag.
        written: how it was written.
    """

    element: etree._Element
    attribute: str | None
    written: str


@dataclass(frozen=True)
class Config:
    """A labeling config, as text and as a tree.

    Attributes:
        text: the config as it was given.
        root: its outermost element.
        tasks: data of the tasks that it will show, in the order of their rows; empty when none were given.
        server_version: version of the Label Studio that it is meant for, such as (1, 23, 2); None for the newest known.
        miscased: what was written in another case than the documented one.
    """

    text: str
    root: etree._Element
    tasks: Sequence[dict[str, Any]] = field(default=())
    server_version: tuple[int, ...] | None = None
    miscased: tuple[Miscased, ...] = ()

    @cached_property
    def elements(self) -> list[etree._Element]:
        """Every tag in document order, without comments and processing instructions."""
        return [element for element in self.root.iter() if isinstance(element.tag, str)]

    @cached_property
    def own(self) -> list[etree._Element]:
        """Tags that should be Label Studio's: all but the HTML inside HyperText and what XInclude brings."""
        return [element for element in self.elements if not str(element.tag).startswith("{") and not in_html(element)]

    @cached_property
    def objects(self) -> dict[str, etree._Element]:
        """The named objects, by name; the first of a name counts."""
        found: dict[str, etree._Element] = {}
        for element in self.elements:
            if element.tag in OBJECT_TAGS and (name := element.get("name")):
                found.setdefault(name, element)
        return found

    @cached_property
    def names(self) -> dict[str, etree._Element]:
        """Every named element, by name; the first of a name counts."""
        found: dict[str, etree._Element] = {}
        for element in self.elements:
            if name := element.get("name"):
                found.setdefault(name, element)
        return found

    @cached_property
    def controls(self) -> list[etree._Element]:
        """Elements that name what they label (toName)."""
        return [element for element in self.elements if element.get("toName") is not None]

    @cached_property
    def styles(self) -> list[etree._Element]:
        """The Style elements."""
        return [element for element in self.elements if element.tag == "Style"]


def in_html(element: etree._Element) -> bool:
    """Say whether a tag is HTML inside a HyperText, and so none of Label Studio's."""
    return any(ancestor.tag == "HyperText" for ancestor in element.iterancestors())


def line_of(element: etree._Element) -> int:
    """Line of an element, from 1."""
    line: int | None = element.sourceline  # type: ignore[assignment]
    return line or 1


def variables(root: etree._Element) -> list[str]:
    """Names of the task fields that a config displays: the x of every value="$x", in document order."""
    found = [
        value[1:]
        for element in root.iter(*OBJECT_TAGS)
        for value in [element.get("value") or ""]
        if value.startswith("$")
    ]
    return list(dict.fromkeys(found))
