"""A style sheet as the rules see it: parsed once by tinycss2, flattened, every part with its line in the config."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import tinycss2
from lxml import etree

from lsplugin.validation.config import line_of
from lsplugin.validation.css_selector import Selector, parse_selectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lsplugin.validation.config import Config

_GROUPS = frozenset({"media", "supports", "container", "layer", "scope", "starting-style"})
_OTHER_AT_RULES = frozenset(
    {
        *("import", "charset", "namespace", "font-face", "keyframes", "-webkit-keyframes", "page", "property"),
        *("counter-style", "font-feature-values", "font-palette-values", "position-try", "view-transition"),
    }
)
_SENTINEL = "lsplugin-end"
_MARKUP = frozenset("<>&")


class Fault(NamedTuple):
    """Something wrong in a sheet by itself: the rule's id, the line in the config, what is wrong."""

    rule: str
    line: int
    problem: str

    @property
    def is_syntax(self) -> bool:
        """Whether a brace left open can be its cause."""
        return self.rule in {"css-syntax", "css-unbalanced"}


class Declaration(NamedTuple):
    """One `name: value`."""

    name: str
    value: str
    important: bool
    line: int


@dataclass(frozen=True, eq=False)
class Block:
    """One rule of a sheet.

    Attributes:
        line: line of its `{`'s selector in the config.
        selectors: whom it is for; with their parents' when nested.
        declarations: what it says.
        condition: the `@media ...` around it; nothing when it always holds.
    """

    line: int
    selectors: tuple[Selector, ...]
    declarations: tuple[Declaration, ...]
    condition: str

    def values(self) -> dict[str, str]:
        """Give what it says, by property; the last of a property counts, an important one more."""
        found: dict[str, Declaration] = {}
        for declaration in self.declarations:
            if declaration.important or not (declaration.name in found and found[declaration.name].important):
                found[declaration.name] = declaration
        return {name: declaration.value for name, declaration in found.items()}


@dataclass(frozen=True, eq=False)
class Sheet:
    """A Style element's CSS, or the declarations of one attribute.

    Attributes:
        blocks: its rules in order, those inside `@media` and nested ones included.
        faults: what is wrong with it by itself.
        lost: classes in rules that the browser skips.
    """

    blocks: tuple[Block, ...]
    faults: tuple[Fault, ...]
    lost: frozenset[str] = frozenset()


def sheets(config: Config) -> tuple[Sheet, ...]:
    """Parse every Style of a config; a sheet parsed before is not parsed again."""
    return tuple(parse_sheet(_css_of(style), line_of(style)) for style in config.styles)


def inline(config: Config) -> Iterator[tuple[etree._Element, str, Sheet]]:
    """Yield (element, attribute, sheet of one block without selector) for every attribute that holds CSS."""
    for element in config.elements:
        for attribute in ("style", "selectionStyle"):
            if text := element.get(attribute):
                yield element, attribute, parse_inline(text, line_of(element))


def _css_of(style: etree._Element) -> str:
    """Give what of a Style's text reaches the page: XML comments are dropped there; their lines are kept here."""
    parts = [style.text or ""]
    for child in style:
        parts += ["\n" * etree.tostring(child, encoding="unicode", with_tail=False).count("\n"), child.tail or ""]
    return "".join(parts)


@lru_cache(maxsize=64)
def parse_sheet(css: str, first_line: int = 1) -> Sheet:
    """Parse a style sheet. Never raises on any text.

    Args:
        css: its text.
        first_line: the line of the config on which the text begins.
    """
    reader = _Reader(css, first_line)
    # A sheet is balanced where a rule put behind it is still a rule of the sheet's own.
    nodes = tinycss2.parse_stylesheet(f"{css}\n@{_SENTINEL};", skip_whitespace=True)
    last = nodes.pop() if nodes else None
    if last is not None and getattr(last, "lower_at_keyword", "") != _SENTINEL:
        nodes.append(last)
    balanced = last is not None and (last.type == "error" or last not in nodes)
    try:
        reader.read_rules(nodes, (), "")
    except RecursionError:
        return Sheet((), (Fault("css-unbalanced", first_line, "rules nested some hundred deep"),))
    if not balanced:
        where = last.source_line if last is not None else 1
        reader.faults = [fault for fault in reader.faults if fault.line < first_line + where - 1 or not fault.is_syntax]
        reader.fault("css-unbalanced", where, f"`{reader.quote(where)}` opens what nothing closes")
    return reader.sheet()


@lru_cache(maxsize=256)
def parse_inline(css: str, line: int = 1) -> Sheet:
    """Parse the declarations of a `style` or `selectionStyle` attribute, which the editor splits at every `;` itself."""
    reader = _Reader(css, line)
    nodes = tinycss2.parse_blocks_contents(css, skip_comments=True, skip_whitespace=True)
    reader.read_block([node for node in nodes if node.type == "declaration"], (), "", 1)
    reader.read_rules([node for node in nodes if node.type == "error"], (), "")
    if any(node.type not in {"declaration", "error"} for node in nodes):
        reader.fault("css-syntax", 1, f"`{reader.quote(1)}` is no list of declarations")
    reader.faults = [fault._replace(line=line) for fault in reader.faults]
    for declaration in [declaration for block in reader.blocks for declaration in block.declarations]:
        if declaration.important:
            reader.fault("css-syntax", 1, f"`{declaration.name}: ... !important` is dropped from an inline style")
        if ";" in declaration.value:
            reader.fault("css-syntax", 1, f"the editor cuts `{declaration.name}` at the `;` inside its value")
    return reader.sheet()


@dataclass
class _Reader:
    """Collects blocks and faults while it walks tinycss2's nodes."""

    css: str
    first_line: int
    blocks: list[Block] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)

    def sheet(self) -> Sheet:
        return Sheet(tuple(self.blocks), tuple(dict.fromkeys(self.faults)), frozenset(self.lost))

    def fault(self, rule: str, source_line: int, problem: str) -> None:
        self.faults.append(Fault(rule, self.first_line + source_line - 1, problem))

    def quote(self, source_line: int) -> str:
        """Give a line of the sheet, for messages."""
        lines = self.css.split("\n")
        text = " ".join(lines[source_line - 1].split()) if source_line <= len(lines) else ""
        return text if len(text) <= 60 else text[:57] + "..."

    def read_rules(self, nodes: Iterable[Any], parents: tuple[Selector, ...], condition: str) -> None:
        for node in nodes:
            if node.type == "qualified-rule":
                self._read_rule(node, parents, condition)
            elif node.type == "at-rule":
                self._read_at_rule(node, parents, condition)
            elif node.type == "error":
                self._does_not_parse(node.source_line)

    def read_block(self, nodes: Iterable[Any], selectors: tuple[Selector, ...], condition: str, line: int) -> None:
        declarations = []
        nested = []
        for node in nodes:
            if node.type == "declaration":
                declarations.append(self._read_declaration(node))
            else:
                nested.append(node)
        self.blocks.append(Block(self.first_line + line - 1, selectors, tuple(declarations), condition))
        self.read_rules(nested, selectors, condition)

    def _read_rule(self, node: Any, parents: tuple[Selector, ...], condition: str) -> None:  # noqa: ANN401 - untyped library
        stray = self._walk(node.prelude)
        selectors = parse_selectors(node.prelude, self.first_line)
        if selectors is None:
            pairs = zip(node.prelude, node.prelude[1:], strict=False)
            self.lost.update(name.value for dot, name in pairs if dot == "." and name.type == "ident")
        if stray:
            return
        line = next((token.source_line for token in node.prelude if token.type != "whitespace"), node.source_line)
        if selectors is None:
            self.fault(
                "css-syntax", line, f"`{self.quote(line)}` has no valid selector, and the browser skips the rule"
            )
            return
        if parents:
            selectors = [selector.within(parent) for parent in parents for selector in selectors]
        contents = tinycss2.parse_blocks_contents(node.content, skip_comments=True, skip_whitespace=True)
        self.read_block(contents, tuple(selectors), condition, line)

    def _read_at_rule(self, node: Any, parents: tuple[Selector, ...], condition: str) -> None:  # noqa: ANN401
        keyword = node.lower_at_keyword
        stray = keyword != "import" and self._walk(node.prelude)
        if keyword == "import":
            address = tinycss2.serialize(node.prelude).strip()
            self.fault("css-foreign", node.source_line, f"`@import {address}` loads CSS from elsewhere")
        elif keyword in _GROUPS and node.content is not None and not stray:
            around = f"{condition} @{keyword} {' '.join(tinycss2.serialize(node.prelude).split())}".strip()
            contents = tinycss2.parse_blocks_contents(node.content, skip_comments=True, skip_whitespace=True)
            self.read_rules((part for part in contents if part.type != "declaration"), parents, around)
        elif keyword in _OTHER_AT_RULES or keyword in _GROUPS:
            self._walk(node.content or ())
        else:
            self.fault("css-syntax", node.source_line, f"there is no `@{keyword}` in CSS, and the browser skips it")

    def _read_declaration(self, node: Any) -> Declaration:  # noqa: ANN401
        self._walk(node.value)
        text = tinycss2.serialize(node.value).strip()
        if not node.name.startswith("--"):
            if any(token.type == "literal" and token.value == ":" for token in node.value):
                self.fault("css-syntax", node.source_line, f"a `;` is missing in `{self.quote(node.source_line)}`")
            elif not text:
                self.fault("css-syntax", node.source_line, f"`{node.name}` has no value")
        return Declaration(node.lower_name, text, bool(node.important), self.first_line + node.source_line - 1)

    def _does_not_parse(self, source_line: int) -> None:
        source_line = min(
            source_line, self.css.rstrip().count("\n") + 1
        )  # the end of the sheet is where its last text is
        self.fault("css-syntax", source_line, f"`{self.quote(source_line)}` does not parse, and the browser skips it")

    def _walk(self, tokens: Iterable[Any]) -> bool:
        """Look at every token for what leaves the page, what the editor escapes, and strays; say whether a stray came."""
        stray = False
        for token in tokens:
            if token.type == "error":
                stray = True
                if token.kind in {"}", ")", "]"}:
                    self.fault("css-unbalanced", token.source_line, f"this `{token.kind}` closes nothing")
                else:
                    self._does_not_parse(token.source_line)
            elif token.type in {"literal", "string", "url"}:
                self._read_text(token)
            elif token.type == "function":
                if token.lower_name in {"url", "src", "image", "image-set", "-webkit-image-set"}:
                    for argument in token.arguments:
                        if argument.type == "string":
                            self._read_address(argument)
                stray |= self._walk(token.arguments)
            elif token.type in {"() block", "[] block", "{} block"}:
                stray |= self._walk(token.content)
        return stray

    def _read_text(self, token: Any) -> None:  # noqa: ANN401
        text = token.value
        if token.type == "url":
            self._read_address(token)
        if found := sorted(_MARKUP.intersection(text)):
            self.fault("css-escaped", token.source_line, f"`{found[0]}` in `{self.quote(token.source_line)}`")

    def _read_address(self, token: Any) -> None:  # noqa: ANN401
        if is_foreign(token.value):
            self.fault("css-foreign", token.source_line, f"`{token.value}` is loaded from elsewhere")


def is_foreign(address: str) -> bool:
    """Say whether a browser leaves the page's own server for an address: it names a host or a scheme other than data."""
    plain = "".join(char for char in address if char > " ").replace("\\", "/").lower()
    scheme, colon, _ = plain.partition(":")
    named = bool(colon) and scheme[:1].isalpha() and all(char.isalnum() or char in "+-." for char in scheme)
    return plain.startswith("//") or (named and scheme != "data")
