"""Rules about the text of a config, before it is a tree. What breaks one of them is not looked at further."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lxml import etree

from lsplugin.validation.document import parse
from lsplugin.validation.examples import PAGE, page
from lsplugin.validation.rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsplugin.validation.config import Config

LARGEST = 1_000_000
"""Characters that a config may have; the largest of Label Studio's own has some ten thousand."""

_PROLOG = re.compile(r"\s+|<!--.*?-->|<\?.*?\?>", re.DOTALL)
_UNDECLARED_ENTITY = {26, 27}  # libxml2's error codes


def _after_prolog(text: str) -> int:
    """Find where the prolog ends: behind white space, comments and processing instructions."""
    place = 0
    while found := _PROLOG.match(text, place):
        place = found.end()
    return place


@rule(
    "oversized",
    "error",
    summary=f"A config has at most {LARGEST:,} characters.",
    why="Every annotator's browser loads the whole config with every task.",
    bad=page("</View>", f"  <!-- {'x' * LARGEST} -->\n</View>"),
    good=PAGE,
)
def _oversized(config: Config) -> Iterator[Finding]:
    if (size := len(config.text)) > LARGEST:
        yield Finding(
            1, f"a config of {size:,} characters", f"keep it below {LARGEST:,}; put texts into the tasks' data"
        )


@rule(
    "xml-declaration",
    "error",
    summary="A config has no XML declaration.",
    why='Label Studio\'s server answers an internal error (HTTP 500) to `<?xml version="1.0" encoding="UTF-8"?>`.',
    bad='<?xml version="1.0" encoding="UTF-8"?>\n' + PAGE,
    good=PAGE,
)
def _declaration(config: Config) -> Iterator[Finding]:
    if config.text.lstrip().startswith("<?xml "):
        yield Finding(1, "an XML declaration, to which Label Studio answers 500", "remove the `<?xml ...?>`")


@rule(
    "doctype",
    "error",
    summary="A config has no DOCTYPE.",
    why="Label Studio refuses one, for it can declare entities that expand without end or read files.",
    bad="<!DOCTYPE View>\n" + PAGE,
    good=PAGE,
)
def _doctype(config: Config) -> Iterator[Finding]:
    place = _after_prolog(config.text)
    if config.text[place : place + 9].upper() == "<!DOCTYPE":
        yield Finding(config.text.count("\n", 0, place) + 1, "a DOCTYPE, which Label Studio refuses", "remove it")


def _parse_error(config: Config) -> tuple[int, int, int, str] | None:
    """Give libxml2's code, line, column and words for what stops the parser."""
    try:
        parse(config.text)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        code: int = error.code  # type: ignore[attr-defined]
        return code, max(line, 1), column, str(error.msg)
    return None


@rule(
    "xml-syntax",
    "error",
    summary="A config is well-formed XML.",
    why="Label Studio cannot read anything else.",
    bad=page('name="prompt"', 'name="prompt'),
    good=PAGE,
)
def _syntax(config: Config) -> Iterator[Finding]:
    if not config.text.strip():
        yield Finding(1, "an empty text", "write a config, or make one with `lsplugin render`")
    elif (error := _parse_error(config)) is not None and error[0] not in _UNDECLARED_ENTITY:
        _, line, column, said = error
        yield Finding(line, f"not well-formed XML at column {column}: {said}", "correct it there or just before")


@rule(
    "xml-entity",
    "error",
    summary="A config uses no entities besides `&amp;`, `&lt;`, `&gt;`, `&quot;` and `&apos;`.",
    why="XML knows no others without a DOCTYPE; HTML's, such as `&nbsp;`, make the config unreadable.",
    bad=page("About the same", "About&nbsp;the same"),
    good=page("About the same", "About&#160;the same"),
)
def _entity(config: Config) -> Iterator[Finding]:
    if (error := _parse_error(config)) is not None and error[0] in _UNDECLARED_ENTITY:
        yield Finding(error[1], f"an entity that XML does not know: {error[3]}", "write the character itself")


SOURCE = ("oversized", "xml-declaration", "doctype", "xml-syntax", "xml-entity")
"""The rules of this module, in the order in which they are asked."""
