"""The contrast of texts on their backgrounds, computed from the sheet alone: WCAG 2.2, success criterion 1.4.3."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from lsplugin.validation.config import line_of
from lsplugin.validation.css import example
from lsplugin.validation.css_cascade import ALWAYS, Cascade, holdings, inline_values, moments, nodes_of
from lsplugin.validation.css_colour import UNKNOWN, Rgba, Variables, contrast, paint
from lsplugin.validation.css_sheet import sheets
from lsplugin.validation.rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsplugin.validation.config import Config
    from lsplugin.validation.css_cascade import Holding, Moment, Node
    from lsplugin.validation.css_sheet import Sheet

MINIMUM = 4.5
"""The least ratio that WCAG 2.2 level AA asks of ordinary text."""

PAPER = Rgba(1, 1, 1)
"""What Label Studio's light theme shows where a template has no background of its own."""

INK = Rgba(0x26 / 255, 0x25 / 255, 0x22 / 255)
"""The colour of Label Studio's texts in its light theme."""

_COLOURS = frozenset({"color", "background", "background-color"})

_NO_CONTENT = frozenset({"", "none", "normal", "''", '""'})


class Text(NamedTuple):
    """A text and its background.

    Attributes:
        line: line of the rule that paints it; None when a style attribute does.
        node: position of its tag; -1 when the rule is about something that Label Studio draws.
        who: how to name it.
        colour: of the text, opaque.
        background: opaque.
        moment: when it looks so.
    """

    line: int | None
    node: int
    who: str
    colour: Rgba
    background: Rgba
    moment: Moment


@lru_cache(maxsize=64)
def faint_texts(parsed: tuple[Sheet, ...], nodes: tuple[Node, ...]) -> tuple[Text, ...]:
    """Find the texts whose contrast is too low; the first moment of each counts.

    Args:
        parsed: the style sheets.
        nodes: the tags.
    """
    held = holdings(parsed)
    cascade = Cascade(nodes, held)
    found: dict[tuple[int | None, int], Text] = {}
    for moment in moments([one for one in held if _matters(one)]):
        for text in _texts(cascade, moment):
            if contrast(text.colour, text.background) < MINIMUM:
                found.setdefault((text.line, -1 if text.line else text.node), text)
    return tuple(found.values())


def _matters(one: Holding) -> bool:
    return any(name in _COLOURS or name.startswith("--") for name in (said.name for said in one.block.declarations))


def _texts(cascade: Cascade, moment: Moment) -> Iterator[Text]:
    """Yield every text that is painted at a moment and not just as always."""
    for number, node in enumerate(cascade.nodes):
        if moment and not cascade.changes(number, moment):
            continue
        rules = [one for one in cascade.matched(number) if one.moment <= moment and _matters(one)]
        pseudo_elements = dict.fromkeys(one.selector.subject.pseudo_element for one in rules)
        for pseudo_element in [*pseudo_elements, *([""] if node.style and not pseudo_elements else [])]:
            about = [one for one in rules if one.selector.subject.pseudo_element == pseudo_element]
            by_style = _COLOURS.intersection(inline_values(node.style)) if not pseudo_element else ()
            if not about and not by_style:
                continue
            values = cascade.values(number, moment, pseudo_element)
            colours = _painted(cascade, number, moment, values, pseudo_element)
            if colours and (pseudo_element or node.has_text or {"color", "background"} <= _said(values)):
                line = None if by_style else _line(about)
                yield Text(line, number, f"`{about[-1].selector.text}`" if about else "style", *colours, moment)
    for one in cascade.held:  # what Label Studio draws itself: only a rule that gives both colours is known
        if (
            one.moment <= moment
            and _said(one.block.values()) == {"color", "background"}
            and not _has_node(cascade, one)
        ):
            colour, background = paint(one.block.values(), _variables(cascade, 0, moment))
            if colour and background and UNKNOWN not in {colour, background}:
                below = background.over(PAPER)
                yield Text(one.block.line, -1, f"`{one.selector.text}`", colour.over(below), below, moment)


def _said(values: dict[str, str]) -> set[str]:
    return {name.removesuffix("-color") for name in _COLOURS.intersection(values)}


def _line(about: list[Holding]) -> int:
    """Give the line of the rule that paints, rather than of one that only sets variables."""
    painting = [one for one in about if _said(one.block.values())]
    return (painting or about)[-1].block.line


def _has_node(cascade: Cascade, one: Holding) -> bool:
    return any(one in cascade.matched(number) for number in range(len(cascade.nodes)))


def _variables(cascade: Cascade, number: int, moment: Moment) -> Variables:
    return Variables(cascade.variables(number, moment), theme_known=not _is_dark(moment))


def _is_dark(moment: Moment) -> bool:
    """Say whether this may be in a dark theme, whose page and text colours are Label Studio's own."""
    return any("dark" in state for state in moment)


def _painted(
    cascade: Cascade, number: int, moment: Moment, values: dict[str, str], pseudo_element: str = ""
) -> tuple[Rgba, Rgba] | None:
    """Give the opaque colours of a node's text and of what is behind it; None when they are not in the sheet, or no text is."""
    variables = _variables(cascade, number, moment)
    if pseudo_element in {"before", "after"} and variables.resolve(values.get("content", "")) in _NO_CONTENT:
        return None
    colour, background = paint(values, variables)
    layers = [background] if background else []
    for at in cascade.path(number)[0 if pseudo_element else 1 :]:
        outer_colour, outer_background = paint(cascade.values(at, moment), _variables(cascade, at, moment))
        colour = colour or outer_colour
        layers += [outer_background] if outer_background else []
    opaque = next((place for place, layer in enumerate(layers) if layer.alpha == 1), None)
    if _is_dark(moment) and (colour is None or opaque is None):
        return None
    seen = layers if opaque is None else layers[: opaque + 1]
    colour = colour or INK
    if UNKNOWN in {*seen, colour}:
        return None
    below = PAPER
    for layer in reversed(seen):
        below = layer.over(below)
    return colour.over(below), below


@rule(
    "css-contrast",
    "warning",
    summary="Text stands out from its background by at least 4.5 : 1.",
    why="Below that ratio (WCAG 2.2, level AA) many people read slowly or not at all; tired annotators are among them.",
    bad=example(".mine { color: #ffffff; background: #27ae60; }"),
    good=example(".mine { color: #ffffff; background: #1b7a4b; }"),
)
def _contrast(config: Config) -> Iterator[Finding]:
    parsed, nodes = sheets(config), nodes_of(config)
    for text in faint_texts(parsed, nodes):
        element = config.elements[text.node]
        who = text.who if text.line else f"style of <{element.tag}>"
        states = " ".join(sorted(text.moment))
        when = f" at {states}" if states and states not in who else ""
        yield _finding(text.line or line_of(element), who + when, text.colour, text.background)
    if any(_said(inline_values(control.get("selectionStyle") or "")) for control in config.controls):
        yield from _selections(config, Cascade(nodes, holdings(parsed)))


def _selections(config: Config, cascade: Cascade) -> Iterator[Finding]:
    """Look at the selected answers of each Pairwise: its selectionStyle is put on their texts."""
    position = {element: number for number, element in enumerate(config.elements)}
    for control in config.elements:
        values = inline_values(control.get("selectionStyle") or "") if control.tag == "Pairwise" else {}
        if not _said(values):
            continue
        for name in (control.get("toName") or "").split(","):
            answer = config.objects.get(name.strip())
            if answer is None:
                continue
            at = position[answer]
            colours = _painted(cascade, at, ALWAYS, cascade.values(at, ALWAYS) | values)
            if colours and contrast(*colours) < MINIMUM:
                yield _finding(line_of(control), f"selectionStyle on {name.strip()}", *colours)
                break


def _finding(line: int, who: str, colour: Rgba, background: Rgba) -> Finding:
    ratio = int(contrast(colour, background) * 100) / 100  # never rounded up to what would do
    return Finding(
        line,
        f"{who}: {colour.hex} on {background.hex} is a contrast of {ratio}:1",
        f"take a darker or lighter one of the two colours until it is {MINIMUM}:1 or more",
    )
