"""Colours of CSS: reading them, variables included, compositing them, and the contrast of two (WCAG 2.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import tinycss2
import tinycss2.color4

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rgba(NamedTuple):
    """An sRGB colour, each channel and alpha from 0 to 1."""

    red: float
    green: float
    blue: float
    alpha: float = 1.0

    def over(self, below: Rgba) -> Rgba:
        """Composite this colour over an opaque one."""
        red, green, blue = (
            top * self.alpha + under * (1 - self.alpha) for top, under in zip(self[:3], below[:3], strict=True)
        )
        return Rgba(red, green, blue)

    @property
    def hex(self) -> str:
        """Hexadecimal notation of its opaque part."""
        return "#" + "".join(f"{round(channel * 255):02x}" for channel in self[:3])


def contrast(one: Rgba, other: Rgba) -> float:
    """Compute the contrast ratio of two opaque colours, from 1 to 21 (WCAG 2.2, "contrast ratio")."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Rgba) -> float:
    """Compute the relative luminance (WCAG 2.2): linear channels, weighted as the eye weighs them."""
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@lru_cache(maxsize=1024)
def parse_colour(text: str) -> Rgba | None:
    """Read a CSS colour; None for what is no colour, or one that depends on the page (`currentcolor`, `inherit`)."""
    try:
        colour = tinycss2.color4.parse_color(text)
        if colour is None or colour == "currentcolor":
            return None
        red, green, blue = (max(0.0, min(1.0, channel or 0.0)) for channel in colour.to("srgb").coordinates)
    except (NotImplementedError, ValueError, AttributeError, TypeError):
        return None  # a colour space without a way to sRGB in tinycss2
    return Rgba(red, green, blue, colour.alpha)


UNKNOWN = Rgba(0, 0, 0, -1)
"""A picture, a gradient, a variable of Label Studio's own: there is a background, but its colour is not in the sheet."""


@dataclass(frozen=True)
class Variables:
    """Custom properties.

    Attributes:
        values: those that the sheet defines, by name.
        theme_known: the light theme is shown, for which the fallbacks of Label Studio's own `--color-...` are written.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    theme_known: bool = True

    def value(self, name: str, fallback: str | None) -> str | None:
        """Give what `var(name, fallback)` stands for; None when that is not in the sheet."""
        if name in self.values:
            return self.values[name]
        return fallback if self.theme_known or not name.startswith("--color-") else None

    def resolve(self, value: str) -> str:
        """Replace every var() of a value; nothing when one of them is not in the sheet."""
        return _resolve(value, self) or ""


def paint(values: Mapping[str, str], variables: Variables) -> tuple[Rgba | None, Rgba | None]:
    """Read the colour and the background that declarations give; None for what they do not say.

    Args:
        values: declarations by property.
        variables: custom properties, for var().
    """
    colour = background = None
    for name, value in values.items():
        if name == "color":
            colour = parse_colour(_resolve(value, variables) or "") or (UNKNOWN if "(" in value else None)
            if colour and colour.alpha <= 0:
                colour = UNKNOWN  # a background clipped to the text, most likely
        elif name in {"background", "background-color"}:
            background = _background(_resolve(value, variables), value)
    return colour, background


def _background(resolved: str | None, written: str) -> Rgba | None:
    if resolved is None:
        return UNKNOWN
    found = None
    for token in _tokens(resolved):
        if token.type == "url" or (
            token.type == "function" and token.lower_name.endswith(("gradient", "url", "image-set"))
        ):
            return UNKNOWN
        found = parse_colour(token.serialize()) or found
    if found is None:
        return UNKNOWN if "(" in written else None
    return found if found.alpha > 0 else None


@lru_cache(maxsize=1024)
def _tokens(value: str) -> list[Any]:
    tokens: list[Any] = tinycss2.parse_component_value_list(value)
    return tokens


def _resolve(value: str, variables: Variables, depth: int = 0) -> str | None:
    """Replace every var(--x, fallback) of a value; None when a variable is neither in the sheet nor has a fallback."""
    if "var(" not in value.lower():
        return value
    if depth > 8:
        return None  # variables that name each other in a ring
    parts = []
    for token in _tokens(value):
        if token.type != "function":
            parts.append(token.serialize())
            continue
        inside = tinycss2.serialize(token.arguments)
        if token.lower_name == "var":
            name, comma, fallback = inside.partition(",")
            known = variables.value(name.strip(), fallback.strip() if comma else None)
            resolved = None if known is None else _resolve(known, variables, depth + 1)
        else:
            within = _resolve(inside, variables, depth + 1)
            resolved = None if within is None else f"{token.name}({within})"
        if resolved is None:
            return None
        parts.append(resolved)
    return "".join(parts)
