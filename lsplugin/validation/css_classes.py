"""Rules about what a style sheet and the tags have to do with each other: classes that meet nobody, texts that nobody sees."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from lsplugin.validation.config import line_of
from lsplugin.validation.css import example
from lsplugin.validation.css_selector import is_internal
from lsplugin.validation.css_sheet import inline, sheets
from lsplugin.validation.rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lxml import etree

    from lsplugin.validation.config import Config
    from lsplugin.validation.css_selector import Compound

_SHOW_HTML = frozenset({"HyperText", "Markdown", "List"})
"""Tags that show HTML of the task, whose classes are not in the config."""

_TEXT = ("lsf-richtext", "ls-richtext", "lsf-object", "ls-object", "lsf-paragraphs", "ls-paragraphs", "htx-richtext")
"""How the classes of Label Studio's own that hold the displayed texts begin."""

_FAR = re.compile(r"-\s*(\d{4,}px|\d{3,}(em|rem|vw|vh|%))")
_ZERO = re.compile(r"0(\.0*)?(px|em|rem|%|pt)?")
_UNLIMITED = frozenset({"", "auto", "none", "100%", "fit-content", "max-content", "min-content", "unset", "initial"})


def classes_of(element: etree._Element) -> list[str]:
    """Give the classes of a tag; `class` is that of HTML inside a HyperText."""
    return f"{element.get('className') or ''} {element.get('class') or ''}".split()


def own_classes(config: Config) -> dict[str, int]:
    """Give every class that a tag has, with the line of the first tag that has it."""
    found: dict[str, int] = {}
    for element in config.elements:
        for name in classes_of(element):
            found.setdefault(name, line_of(element))
    return found


def _shows_html(element: etree._Element) -> bool:
    """Say whether classes may come with what a tag shows: HTML of the task, of choices that the task brings, of a choice."""
    dynamic = element.tag == "Choices" and (element.get("value") or "").startswith("$")
    return dynamic or element.tag in _SHOW_HTML or element.get("html") is not None


def _guess(name: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"`{close[0]}`" if close else None


@rule(
    "css-class-unused",
    "warning",
    summary="A class in the CSS belongs to some tag of the config.",
    why="A rule for a class that nobody has does nothing; mostly the class was renamed or misspelt on one side.",
    bad=example(".mine { padding: 8px; } .mine .promt { color: #333333; }"),
    good=example(".mine { padding: 8px; }"),
)
def _unused(config: Config) -> Iterator[Finding]:
    own = own_classes(config)
    shows_html = any(_shows_html(element) for element in config.elements)
    seen = set()
    for sheet in sheets(config):
        for block in sheet.blocks:
            for selector in block.selectors:
                for name in selector.classes:
                    if name in own or name in seen or is_internal(name):
                        continue
                    guess = _guess(name, own)
                    if shows_html and guess is None:
                        continue  # a class of the displayed HTML
                    seen.add(name)
                    yield Finding(
                        selector.line,
                        f"no tag has the class `{name}`",
                        f'give className="{name}" to the tag it is meant for, or remove the rule',
                        guess,
                    )


@rule(
    "css-class-undefined",
    "warning",
    summary="A className is styled by some rule of the config.",
    why="Label Studio gives a className no meaning of its own: without a rule for it the tag looks like any other.",
    bad=example(".mine { padding: 8px; }").replace("<Text ", '<View className="prompt"/>\n  <Text '),
    good=example(".mine { padding: 8px; } .mine .prompt { margin: 0; }").replace(
        "<Text ", '<View className="prompt"/>\n  <Text '
    ),
)
def _undefined(config: Config) -> Iterator[Finding]:
    parsed = sheets(config)
    styled = {name for sheet in parsed for name in sheet.lost}
    styled |= {name for sheet in parsed for block in sheet.blocks for one in block.selectors for name in one.classes}
    for name, line in own_classes(config).items():
        if name not in styled and not is_internal(name) and "{{" not in name:
            yield Finding(
                line,
                f'no rule styles className="{name}"',
                f"write `.{name} {{ ... }}` in the Style, or remove the class",
                _guess(name, styled),
            )


@rule(
    "css-hides",
    "warning",
    summary="No rule hides or clips what annotators must read.",
    why="A text that is invisible, or cut off without a scroll bar, gets judged unread.",
    bad=example(".mine { max-height: 200px; overflow: hidden; }"),
    good=example(".mine { max-height: 200px; overflow: auto; }"),
)
def _hides(config: Config) -> Iterator[Finding]:
    own = own_classes(config)
    ids = {element.get("idAttr") for element in config.elements}
    for sheet in sheets(config):
        for block in sheet.blocks:
            if "print" in block.condition:
                continue
            hit = [one for one in block.selectors if _is_read(one.subject, own) or one.subject.ids & ids]
            how = _hiding(block.values()) if hit else None
            if how:
                yield Finding(block.line, f"`{hit[0].text}` {how}", _REMEDY)
    for element, attribute, sheet in inline(config):
        for block in sheet.blocks:
            if how := _hiding(block.values()):
                yield Finding(block.line, f"{attribute} of <{element.tag}> {how}", _REMEDY)


_REMEDY = "let the box grow with its text, or scroll (overflow: auto)"


def _is_read(subject: Compound, own: dict[str, int]) -> bool:
    """Say whether a selector's subject is a tag of the config, or a text that it displays."""
    if subject.pseudo_element:
        return False
    return subject.tag == "*" or any(name in own or name.startswith(_TEXT) for name in subject.classes)


def _hiding(values: dict[str, str]) -> str | None:
    """Say how declarations hide or clip a text; None when they do not."""
    lower = {name: value.lower() for name, value in values.items()}
    return _invisible(lower) or _moved_away(lower) or _cut_off(lower)


def _invisible(values: dict[str, str]) -> str | None:
    for name, hiding in (("display", {"none"}), ("visibility", {"hidden", "collapse"}), ("color", {"transparent"})):
        if values.get(name) in hiding:
            return f"hides its text ({name}: {values[name]})"
    for name in ("opacity", "font-size", "max-height", "max-width"):
        if _ZERO.fullmatch(values.get(name, "")):
            return f"hides its text ({name}: {values[name]})"
    return None


def _moved_away(values: dict[str, str]) -> str | None:
    for name in ("left", "top", "right", "bottom", "text-indent", "margin-left", "margin-top", "inset"):
        if _FAR.match(values.get(name, "")):
            return f"moves its text off the screen ({name}: {values[name]})"
    return None


def _cut_off(values: dict[str, str]) -> str | None:
    cuts = {"hidden", "clip"}.intersection(f"{values.get('overflow', '')} {values.get('overflow-y', '')}".split())
    for name in ("height", "max-height"):
        if cuts and values.get(name, "") not in _UNLIMITED:
            return f"cuts off long texts ({name}: {values[name]} with overflow: {min(cuts)})"
    if values.get("text-overflow") == "ellipsis":
        return "cuts off long texts (text-overflow: ellipsis)"
    if any(values.get(name, "none") != "none" for name in ("line-clamp", "-webkit-line-clamp")):
        return "cuts off long texts (line-clamp)"
    return None
