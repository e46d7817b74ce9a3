"""Which declarations reach which tag: a small cascade over the tags of a config, at every moment that its sheets know.

A moment is a set of states that hold together: nothing (always), a hover, a selected answer, a dark theme around, a media query.
Classes, ids and ancestors are matched as a browser would; tag names and siblings are not, as the editor's own tags differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import tinycss2

from lsplugin.validation.css_classes import classes_of
from lsplugin.validation.css_sheet import parse_inline

if TYPE_CHECKING:
    from lsplugin.validation.config import Config
    from lsplugin.validation.css_selector import Selector
    from lsplugin.validation.css_sheet import Block, Sheet

Moment = frozenset[str]
ALWAYS: Moment = frozenset()


class Node(NamedTuple):
    """A tag, reduced to what style sheets and attributes say of it; equal configs give equal nodes, whatever they show.

    Attributes:
        parent: position of the tag around it; -1 for the outermost.
        classes: its classes.
        id: its idAttr.
        style: its style attribute.
        has_text: it displays text, or something in it does.
    """

    parent: int
    classes: frozenset[str]
    id: str
    style: str
    has_text: bool


def nodes_of(config: Config) -> tuple[Node, ...]:
    """Reduce a config to nodes, one for each of its elements, in the same order."""
    position = {element: number for number, element in enumerate(config.elements)}
    nodes = [
        Node(
            position.get(element.getparent(), -1) if element.getparent() is not None else -1,  # type: ignore[arg-type]
            frozenset(classes_of(element)),
            element.get("idAttr") or "",
            element.get("style") or "",
            element.tag not in {"View", "Style"},
        )
        for element in config.elements
    ]
    for number in range(len(nodes) - 1, 0, -1):
        if nodes[number].has_text and nodes[number].parent >= 0:
            nodes[nodes[number].parent] = nodes[nodes[number].parent]._replace(has_text=True)
    return tuple(nodes)


class Holding(NamedTuple):
    """A selector of a rule, when it holds, and how much it weighs."""

    block: Block
    selector: Selector
    moment: Moment
    around: bool
    weight: tuple[int, int, int]


def holdings(parsed: tuple[Sheet, ...]) -> list[Holding]:
    """Give every selector of the sheets, the weakest first."""
    found = [
        Holding(block, selector, *_moment(block, selector), _weight(selector, order))
        for order, block in enumerate(block for sheet in parsed for block in sheet.blocks)
        for selector in block.selectors
    ]
    return sorted(found, key=lambda one: one.weight)


def _moment(block: Block, selector: Selector) -> tuple[Moment, bool]:
    """Give when a rule holds, and whether that depends on the surroundings alone (a theme, a media query)."""
    around = {state for one in selector.compounds[:-1] if not one.classes for state in one.states}
    around |= {block.condition} - {""}
    own = {state for one in selector.compounds for state in one.states} - around
    return frozenset(around | own), not own


def _weight(selector: Selector, order: int) -> tuple[int, int, int]:
    """Give a selector's specificity, then its place."""
    ids = sum(len(one.ids) for one in selector.compounds)
    return ids, sum(len(one.classes) + len(one.states) for one in selector.compounds), order


def moments(held: list[Holding]) -> list[Moment]:
    """Give every moment that the sheets tell apart, and those under each theme; `ALWAYS` comes first."""
    around = dict.fromkeys([ALWAYS, *(one.moment for one in held if one.around)])
    own = dict.fromkeys([ALWAYS, *(one.moment for one in held if not one.around)])
    return list(dict.fromkeys(outer | inner for outer in around for inner in own))


@dataclass
class Cascade:
    """The declarations of each node at each moment.

    Attributes:
        nodes: the tags.
        held: every selector of the sheets, the weakest first.
    """

    nodes: tuple[Node, ...]
    held: list[Holding]
    _matched: dict[int, list[Holding]] = field(default_factory=dict)
    _variables: dict[tuple[int, Moment], dict[str, str]] = field(default_factory=dict)

    def path(self, number: int) -> list[int]:
        """Give a node and those around it, from the inside out."""
        found = []
        while number >= 0:
            found.append(number)
            number = self.nodes[number].parent
        return found

    def matched(self, number: int) -> list[Holding]:
        """Give the selectors about a node, at whatever moment, its pseudo-elements included."""
        if number not in self._matched:
            self._matched[number] = [one for one in self.held if self._matches(number, one.selector)]
        return self._matched[number]

    def _matches(self, number: int, selector: Selector) -> bool:
        node, subject = self.nodes[number], selector.subject
        if not (subject.classes or subject.ids) or not subject.classes <= node.classes or not subject.ids <= {node.id}:
            return False
        wanted = {name for compound in selector.compounds[:-1] for name in compound.classes}
        return not wanted or wanted <= {name for at in self.path(number)[1:] for name in self.nodes[at].classes}

    def changes(self, number: int, moment: Moment) -> bool:
        """Say whether a moment makes a difference to a node: some rule of just this moment is about it or what is around it."""
        return any(one.moment and one.moment <= moment for at in self.path(number) for one in self.matched(at))

    def values(self, number: int, moment: Moment, pseudo_element: str = "") -> dict[str, str]:
        """Give what a node, or its pseudo-element, is told at a moment: declarations by property."""
        found: dict[str, str] = {}
        important: dict[str, str] = {}
        for one in self.matched(number):
            if one.moment <= moment and one.selector.subject.pseudo_element == pseudo_element:
                for declaration in one.block.declarations:
                    (important if declaration.important else found)[declaration.name] = declaration.value
        if not pseudo_element and self.nodes[number].style:
            found |= inline_values(self.nodes[number].style)
        return found | important

    def variables(self, number: int, moment: Moment) -> dict[str, str]:
        """Give the custom properties that hold in a node at a moment, inherited ones included."""
        if number < 0:
            return {}
        if (number, moment) not in self._variables:
            own = {name: value for name, value in self.values(number, moment).items() if name.startswith("--")}
            inherited = self.variables(self.nodes[number].parent, moment)
            # A variable that is set from another takes that other's value here, not where it is used.
            settled = {name: _settle(value, inherited | own) for name, value in own.items()}
            self._variables[number, moment] = inherited | settled
        return self._variables[number, moment]


def _settle(value: str, known: dict[str, str], depth: int = 0) -> str:
    """Replace `var(--x)` by what the sheet says of x; one that the sheet does not know stays, with its fallback."""
    if "var(" not in value.lower() or depth > 8:
        return value
    parts = []
    for token in tinycss2.parse_component_value_list(value):
        if token.type == "function" and token.lower_name == "var":
            name = tinycss2.serialize(token.arguments).partition(",")[0].strip()
            parts.append(_settle(known[name], known, depth + 1) if name in known else token.serialize())
        else:
            parts.append(token.serialize())
    return "".join(parts)


def inline_values(css: str) -> dict[str, str]:
    """Give the declarations of a style attribute by property."""
    return {name: value for block in parse_inline(css).blocks for name, value in block.values().items()}
