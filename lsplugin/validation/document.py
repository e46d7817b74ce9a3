"""From text to a `Config`: parsed safely, with tags and attributes in the case that Label Studio documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.validation.config import Config, Miscased
from lsplugin.validation.vocabulary import vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(text: str) -> etree._Element:
    """Parse without entities, network, DTD or unlimited depth.

    Raises:
        etree.XMLSyntaxError: not well-formed.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(text.encode("utf-8", "surrogatepass"), parser)


def load(text: str, *, tasks: Sequence[dict[str, Any]], server_version: tuple[int, ...] | None) -> Config:
    """Parse a well-formed config; tags and attributes in another case than documented are renamed, and kept in mind.

    The editor reads both in any case, so every other rule may look for the documented one.
    """
    root = parse(text)
    known = vocabulary()
    by_case = {tag.lower(): tag for tag in known.tags}
    miscased: list[Miscased] = []
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        written = element.tag
        tag = by_case.get(written.lower(), written)
        if tag != written:
            element.tag = tag
            miscased.append(Miscased(element, None, written))
        if tag not in known.tags:
            continue
        attributes = known.attributes(tag)
        if all(name in attributes for name in element.attrib):
            continue
        lower = {name.lower(): name for name in attributes}
        for name in [str(name) for name in element.attrib if name not in attributes]:
            right = lower.get(name.lower())
            if right is not None and right not in element.attrib:
                element.set(right, element.attrib.pop(name))
                miscased.append(Miscased(element, right, name))
    return Config(text, root, tasks, server_version, tuple(miscased))
