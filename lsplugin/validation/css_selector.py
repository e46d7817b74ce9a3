"""CSS selectors as data: which tags, classes and states a rule names.

tinycss2 leaves selectors as tokens; the validator needs no matching engine, only what stands in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tinycss2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INTERNAL = ("lsf-", "ls-", "ant-", "htx-", "dm-")
"""How the classes of Label Studio's own interface begin."""

_UTILITIES = frozenset({"cursor-pointer", "transition-colors", "rounded-sm", "border", "border-transparent"})
"""Classes that Pairwise puts on the texts it compares."""

_COMBINATORS = frozenset({">", "+", "~"})
_LEGACY_PSEUDO_ELEMENTS = frozenset({"before", "after", "first-line", "first-letter"})
_ALTERNATIVES = frozenset({"is", "where", "matches", "-webkit-any", "-moz-any"})
_SELECTOR_FUNCTIONS = _ALTERNATIVES | {"not", "has"}


def is_internal(name: str) -> bool:
    """Say whether a class is one of Label Studio's own interface."""
    return name.startswith(INTERNAL) or name in _UTILITIES


@dataclass(frozen=True, slots=True)
class Compound:
    """What a selector says of one element.

    Attributes:
        tag: element name, `*`, or nothing.
        classes: its classes.
        ids: its ids.
        states: its pseudo-classes and attributes, as written; they hold at some moments only.
        pseudo_element: such as `before`; nothing when the element itself is meant.
        alternatives: the lists in its `:is()` and `:where()`.
        mentions: classes in any of its functions, `:not()` and `:has()` included.
    """

    tag: str = ""
    classes: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    states: tuple[str, ...] = ()
    pseudo_element: str = ""
    alternatives: tuple[tuple[Selector, ...], ...] = ()
    mentions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selector:
    """One selector: compounds from the outermost ancestor to the element that the rule is about.

    Attributes:
        text: as written, on one line.
        line: its line in the config.
        compounds: at least one.
    """

    text: str
    line: int
    compounds: tuple[Compound, ...]

    @property
    def subject(self) -> Compound:
        """The element that the rule is about."""
        return self.compounds[-1]

    @property
    def classes(self) -> Iterator[str]:
        """Every class that it names, anywhere."""
        for compound in self.compounds:
            yield from sorted(compound.classes | compound.mentions)

    def within(self, parent: Selector) -> Selector:
        """Give this selector as it stands nested in a rule for `parent`."""
        return Selector(f"{parent.text} {self.text}", self.line, parent.compounds + self.compounds)


def is_scoped(selector: Selector, ids: frozenset[str]) -> bool:
    """Say whether a selector can only match inside a template: some compound needs a class or an id of the template's own.

    Args:
        selector: the selector.
        ids: the template's ids.
    """
    return any(
        any(not is_internal(name) for name in compound.classes)
        or compound.ids & ids
        or any(all(is_scoped(inner, ids) for inner in listed) for listed in compound.alternatives)
        for compound in selector.compounds
    )


def parse_selectors(tokens: Sequence[Any], first_line: int) -> list[Selector] | None:
    """Read a list of selectors; None when one of them is none, which loses the whole rule.

    Args:
        tokens: the tokens before a rule's `{`, as tinycss2 gives them.
        first_line: line of the config on which line 1 of these tokens stands.
    """
    selectors = [_parse_selector(part, first_line) for part in _split(tokens)]
    known = [selector for selector in selectors if selector is not None]
    return known if len(known) == len(selectors) else None


def _split(tokens: Sequence[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for token in tokens:
        if token.type == "literal" and token.value == ",":
            yield part
            part = []
        elif token.type != "comment":
            part.append(token)
    yield part


def _parse_selector(tokens: list[Any], first_line: int) -> Selector | None:
    compounds: list[Compound] = []
    current: list[Any] = []
    for token in [*tokens, None]:
        if token is None or token.type == "whitespace" or (token.type == "literal" and token.value in _COMBINATORS):
            if current:
                compound = _parse_compound(current, first_line)
                if compound is None:
                    return None
                compounds.append(compound)
            current = []
        else:
            current.append(token)
    if not compounds:
        return None
    line = first_line + next(token.source_line for token in tokens if token.type != "whitespace") - 1
    return Selector(" ".join(tinycss2.serialize(tokens).split()), line, tuple(compounds))


def _parse_compound(tokens: list[Any], first_line: int) -> Compound | None:
    builder = _Builder(first_line)
    rest = iter(tokens)
    for position, token in enumerate(rest):
        value = getattr(token, "value", None)
        understood = True
        if token.type == "ident" or (token.type, value) == ("literal", "*"):
            builder.tag, understood = str(value).lower(), position == 0
        elif token.type == "hash":
            builder.ids.add(str(value))
        elif token.type == "[] block":
            builder.states.append(tinycss2.serialize([token]))
        elif (token.type, value) == ("literal", "."):
            understood = builder.read_class(next(rest, None))
        elif (token.type, value) == ("literal", ":"):
            understood = builder.read_pseudo(rest)
        else:
            understood = (token.type, value) == ("literal", "&")
        if not understood:
            return None
    return builder.compound()


@dataclass
class _Builder:
    """A compound while it is read; what is read says whether it was understood."""

    first_line: int
    tag: str = ""
    pseudo_element: str = ""
    classes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    mentions: set[str] = field(default_factory=set)
    states: list[str] = field(default_factory=list)
    alternatives: list[tuple[Selector, ...]] = field(default_factory=list)

    def compound(self) -> Compound:
        return Compound(
            self.tag,
            frozenset(self.classes),
            frozenset(self.ids),
            tuple(self.states),
            self.pseudo_element,
            tuple(self.alternatives),
            frozenset(self.mentions),
        )

    def read_class(self, name: Any) -> bool:  # noqa: ANN401 - tinycss2 is untyped
        if name is None or name.type != "ident":
            return False
        self.classes.add(str(name.value))
        return True

    def read_pseudo(self, rest: Iterator[Any]) -> bool:
        token = next(rest, None)
        is_element = token is not None and token.type == "literal" and token.value == ":"
        if is_element:
            token = next(rest, None)
        if token is None or token.type not in {"ident", "function"}:
            return False
        name = str(token.lower_value if token.type == "ident" else token.lower_name)
        if is_element or name in _LEGACY_PSEUDO_ELEMENTS:
            self.pseudo_element = name
        elif name != "root":
            self.states.append(":" + tinycss2.serialize([token]))
        return name not in _SELECTOR_FUNCTIONS or (token.type == "function" and self._read_function(name, token))

    def _read_function(self, name: str, token: Any) -> bool:  # noqa: ANN401
        inner = parse_selectors(token.arguments, self.first_line)
        if inner is None:
            return False
        self.mentions.update(name for selector in inner for name in selector.classes)
        if name in _ALTERNATIVES:
            self.alternatives.append(tuple(inner))
        return True
