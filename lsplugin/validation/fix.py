"""Repair what is safe to repair; everything else stays as it is, byte for byte.

Safe is what changes nothing that the editor shows or stores: what it cannot read anyway (declaration, DOCTYPE, spaces in
toName), what it does not read (attributes that Pairwise ignores), spelling that it takes in any case, and a dollar before the
name of a field that the sample task or a given task has. Tags that need no repair are not touched; those that do are
written anew by lxml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.parsers import expat

from lxml import etree

from lsplugin.markup import OBJECT_TAGS
from lsplugin.validation.document import parse
from lsplugin.validation.targets import IGNORED_BY_PAIRWISE
from lsplugin.validation.vocabulary import vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection

FIXED = (
    *(
        "xml-declaration",
        "doctype",
        "tag-case",
        "attribute-case",
        "pairwise-spaces",
        "pairwise-ignored",
        "value-constant",
    ),
)
"""Rules whose violations `fix` repairs, where that is safe."""


def fix(xml: str, *, fields: Collection[str] = ()) -> str:
    """Repair a config; what cannot be parsed keeps all but its declaration and DOCTYPE.

    Args:
        xml: the config.
        fields: names of the tasks' fields, as far as known.
    """
    text = _without_prolog(xml.removeprefix("\ufeff"))
    try:
        root = parse(text)
    except etree.XMLSyntaxError:
        return text
    edits = _Edits(text.encode(), {*fields, *_sample_fields(root)})
    edits.collect()
    return edits.applied().decode()


def _without_prolog(text: str) -> str:
    """Drop an XML declaration, and a DOCTYPE that declares nothing."""
    text = text.lstrip()
    if text.startswith("<?xml ") and "?>" in text:
        text = text.partition("?>")[2].lstrip()
    if text[:9].upper() == "<!DOCTYPE" and "[" not in text.partition(">")[0]:
        text = text.partition(">")[2].lstrip()
    return text


def _sample_fields(root: etree._Element) -> set[str]:
    for comment in root.itersiblings(etree.Comment):
        try:
            sample = json.loads(comment.text or "")
        except (ValueError, RecursionError):
            continue
        if isinstance(sample, dict) and isinstance(sample.get("data"), dict):
            return set(sample["data"])
    return set()


@dataclass
class _Edits:
    """Start and end tags to be written anew: (from, to, bytes)."""

    source: bytes
    fields: set[str]
    found: list[tuple[int, int, bytes]] = field(default_factory=list)
    depth_in_html: int = 0

    def collect(self) -> None:
        """Walk the tags, with the place of each."""
        parser = expat.ParserCreate(encoding="utf-8")
        parser.ordered_attributes = True
        names = {tag.lower(): tag for tag in vocabulary().tags}

        def start(tag: str, flat: list[str]) -> None:
            right = names.get(tag.lower(), tag) if not self.depth_in_html else tag
            before = dict(zip(flat[::2], flat[1::2], strict=True))
            after = self.repaired(right, before) if not self.depth_in_html else before
            if (right, after) != (tag, before) or list(after) != list(before):
                self.replace_start(parser.CurrentByteIndex, right, after)
            self.depth_in_html += right == "HyperText" or self.depth_in_html > 0

        def end(tag: str) -> None:
            self.depth_in_html = max(0, self.depth_in_html - 1)
            right = names.get(tag.lower(), tag) if not self.depth_in_html else tag
            place = parser.CurrentByteIndex
            if right != tag and self.source.startswith(b"</", place):
                self.found.append((place, place + 2 + len(tag.encode()), b"</" + right.encode()))

        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.Parse(self.source, True)  # noqa: FBT003 - expat takes it by position

    def repaired(self, tag: str, attributes: dict[str, str]) -> dict[str, str]:
        """Give a tag's attributes as they should be."""
        known = vocabulary()
        lower = {name.lower(): name for name in known.attributes(tag)} if tag in known.tags else {}
        made: dict[str, str] = {}
        for name, value in attributes.items():
            right = lower.get(name.lower(), name)
            made[right if right == name or right not in attributes else name] = value
        if tag == "Pairwise":
            made = {name: value for name, value in made.items() if name not in IGNORED_BY_PAIRWISE}
        if "toName" in made:
            made["toName"] = ",".join(name.strip() for name in made["toName"].split(","))
        if tag in OBJECT_TAGS and made.get("value") in self.fields:
            made["value"] = f"${made['value']}"
        return made

    def replace_start(self, place: int, tag: str, attributes: dict[str, str]) -> None:
        """Note a start tag to be written anew."""
        stop, quote = place, 0
        while quote or self.source[stop] != ord(">"):
            byte = self.source[stop]
            quote = 0 if byte == quote else byte if not quote and byte in b"\"'" else quote
            stop += 1
        written = etree.tostring(etree.Element(tag, attributes), encoding="unicode")
        if self.source[stop - 1] != ord("/"):
            written = written.removesuffix("/>") + ">"
        self.found.append((place, stop + 1, written.encode()))

    def applied(self) -> bytes:
        """Give the config with all edits."""
        made, place = [], 0
        for start, stop, written in sorted(self.found):
            made += [self.source[place:start], written]
            place = stop
        return b"".join([*made, self.source[place:]])
