"""Rules about names, and the fields that objects show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lsplugin.markup import OBJECT_TAGS
from lsplugin.validation.config import Config, in_html, line_of
from lsplugin.validation.examples import PAGE, page, page_with
from lsplugin.validation.rule import Finding, rule
from lsplugin.validation.vocabulary import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELD = re.compile(r"\w+", re.ASCII)


@rule(
    "name-missing",
    "error",
    summary="Every object and control has a name.",
    why="Labels are stored under it; without one there is nothing to store them under, and the editor leaves the place blank.",
    bad=page_with('<TextArea toName="prompt"/>'),
    good=page_with('<TextArea name="reason" toName="prompt"/>'),
)
def _name_missing(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    for element in config.own:
        tag = str(element.tag)
        needs = (tag in OBJECT_TAGS and tag != "Markdown" and "name" in known.tags.get(tag, {})) or known.is_control(
            tag
        )
        if needs and not element.get("name"):
            yield Finding(line_of(element), f"<{tag}> has no name", 'give it one, such as name="answer1"')


@rule(
    "name-duplicate",
    "error",
    summary="Every name is given once.",
    why="Two results of one name cannot be told apart.",
    bad=page_with('<TextArea name="verdict" toName="prompt"/>'),
    good=page_with('<TextArea name="reason" toName="prompt"/>'),
)
def _name_duplicate(config: Config) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for element in config.elements:
        name = element.get("name")
        if name and element.tag not in {"Choice", "Label", "Bucket"} and not in_html(element):
            if name in seen:
                yield Finding(line_of(element), f'the name "{name}" is taken on line {seen[name]}', "choose another")
            seen.setdefault(name, line_of(element))


@rule(
    "value-missing",
    "error",
    summary="Every object says which field of the task it shows.",
    why="Without a value it shows nothing.",
    bad=page(' value="$prompt"'),
    good=PAGE,
)
def _value_missing(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    for element in config.own:
        tag = str(element.tag)
        shows = tag in OBJECT_TAGS and "value" in known.tags.get(tag, {})
        content = tag == "HyperText" and (len(element) > 0 or (element.text or "").strip())
        if shows and not element.get("value") and not element.get("valueList") and not content:
            yield Finding(line_of(element), f"<{tag}> shows nothing", 'give it value="$field"')


@rule(
    "value-constant",
    "error",
    summary='A field is named with a dollar: `value="$answer1"`.',
    why="Without the dollar every task shows the same word: the field's name.",
    bad=page('value="$answer1"', 'value="answer1"'),
    good=PAGE,
)
def _value_constant(config: Config) -> Iterator[Finding]:
    for element in config.elements:
        value = element.get("value") or ""
        if element.tag in OBJECT_TAGS - {"Markdown"} and _FIELD.fullmatch(value):
            yield Finding(line_of(element), f'value="{value}" shows this word in every task', f'write value="${value}"')


@rule(
    "value-name",
    "error",
    summary="Fields that are shown have names of the letters A to Z, digits and `_`.",
    why="The editor takes no other letter for a part of the name, and shows nothing.",
    bad=page('value="$prompt"', 'value="$häufige Frage"'),
    good=PAGE,
)
def _value_name(config: Config) -> Iterator[Finding]:
    for element in config.elements:
        value = element.get("value") or ""
        if element.tag in OBJECT_TAGS - {"Markdown", "HyperText"} and re.fullmatch(r"\$[\w .-]+", value):
            field = value[1:]
            if not re.fullmatch(r"[\w.]+", field, re.ASCII):
                yield Finding(
                    line_of(element), f'the editor cannot read the field "{field}"', "rename it in the dataset"
                )
