"""Rules about controls and the objects that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.validation.config import Config, line_of
from lsplugin.validation.examples import PAGE, page
from lsplugin.validation.rule import Finding, rule
from lsplugin.validation.structure import guess
from lsplugin.validation.vocabulary import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml import etree

SELECTABLE_TAGS = frozenset({"Text", "HyperText", "Paragraphs", "Image", "Audio", "Video", "TimeSeries"})
"""Objects that a Pairwise can compare: they take its click."""

IGNORED_BY_PAIRWISE = ("required", "requiredMessage", "hotkey", "visibleWhen", "leftClass", "rightClass")
"""Attributes that the editor does not read on Pairwise."""


def _pairwise(config: Config) -> list[etree._Element]:
    return [element for element in config.elements if element.tag == "Pairwise"]


def _targets(control: etree._Element) -> list[str]:
    return [name.strip() for name in (control.get("toName") or "").split(",") if name.strip()]


@rule(
    "no-control",
    "error",
    summary="There is something to label with.",
    why="Annotators would see the task and could say nothing.",
    bad='<View>\n  <Text name="prompt" value="$prompt"/>\n</View>\n',
    good=PAGE,
)
def _no_control(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    if not any(known.is_control(str(element.tag)) or element.get("toName") for element in config.own):
        # A tag that is misspelt or of another edition may be the control; its own rule speaks of it.
        if any(str(element.tag) not in known.tags or element.tag == "Chat" for element in config.own):
            return
        yield Finding(line_of(config.root), "nothing to label with", "add a control, such as <Pairwise> or <Choices>")


@rule(
    "pairwise-targets",
    "error",
    summary="Pairwise compares exactly two different objects.",
    why="With any other number the editor shows an error in its place; an object compared with itself says nothing.",
    bad=page("answer1,answer2", "answer1,answer2,prompt"),
    good=PAGE,
)
def _pairwise_targets(config: Config) -> Iterator[Finding]:
    for control in _pairwise(config):
        targets, written = _targets(control), control.get("toName") or ""
        if len(targets) != 2:
            problem = f'Pairwise compares exactly two objects, toName="{written}" names {len(targets)}'
            yield Finding(line_of(control), problem, 'write toName="answer1,answer2"; for more, use List and Ranker')
        elif targets[0] == targets[1]:
            yield Finding(
                line_of(control), f'Pairwise compares "{targets[0]}" with itself', "name two different objects"
            )


@rule(
    "pairwise-spaces",
    "error",
    summary="The names in toName are separated by a comma alone.",
    why="Label Studio takes a space as part of the name, and finds no such object.",
    bad=page("answer1,answer2", "answer1, answer2"),
    good=PAGE,
)
def _spaces(config: Config) -> Iterator[Finding]:
    for control in config.controls:
        written = control.get("toName") or ""
        if any(name != name.strip() for name in written.split(",")):
            yield Finding(
                line_of(control), f'spaces in toName="{written}"', f'write toName="{",".join(_targets(control))}"'
            )


@rule(
    "pairwise-ignored",
    "warning",
    summary="Pairwise has none of required, requiredMessage, hotkey, visibleWhen, leftClass, rightClass.",
    why="The editor reads none of them there: nothing is required, hidden or styled, and no key works.",
    bad=page("<Pairwise ", '<Pairwise required="true" '),
    good=PAGE,
)
def _pairwise_ignored(config: Config) -> Iterator[Finding]:
    for control in _pairwise(config):
        useless = [name for name in IGNORED_BY_PAIRWISE if name in control.attrib]
        if useless:
            remedy = "remove it; a required <Choices> beside Pairwise can force an answer"
            yield Finding(line_of(control), f"Pairwise ignores {', '.join(useless)}", remedy)


@rule(
    "pairwise-order",
    "warning",
    summary="The objects that Pairwise compares stand in the order of its toName.",
    why="`left` in an export is the first name in toName. Shown the other way round, left is what annotators see on the right.",
    bad=page("answer1,answer2", "answer2,answer1"),
    good=PAGE,
)
def _pairwise_order(config: Config) -> Iterator[Finding]:
    places = {element.get("name"): place for place, element in enumerate(config.elements)}
    for control in _pairwise(config):
        targets = _targets(control)
        if len(targets) == 2 and all(name in places for name in targets) and places[targets[0]] > places[targets[1]]:
            problem = f'left will mean "{targets[0]}", which stands behind "{targets[1]}"'
            yield Finding(line_of(control), problem, f'write toName="{targets[1]},{targets[0]}" or move the objects')


@rule(
    "target-missing",
    "error",
    summary="Every name in toName is that of an object.",
    why="Without its object a control is not shown, or what it stores belongs to nothing.",
    bad=page("answer1,answer2", "answer1,answer3"),
    good=PAGE,
)
def _target_missing(config: Config) -> Iterator[Finding]:
    known = ", ".join(config.objects) or "none"
    for control in config.controls:
        for target in dict.fromkeys(_targets(control)):
            if target not in config.names:
                problem = f'toName names "{target}", which no object has (there are: {known})'
                yield Finding(line_of(control), problem, "correct the name", guess(target, config.objects))


@rule(
    "target-unselectable",
    "error",
    summary="Pairwise compares objects that take a click: Text, inline HyperText, Paragraphs, Image, Audio, Video, TimeSeries.",
    why="Others cannot be chosen; a HyperText that is not inline is a page of its own, which swallows the click.",
    bad=page('<Text name="answer2"', '<Markdown name="answer2"'),
    good=PAGE,
)
def _target_unselectable(config: Config) -> Iterator[Finding]:
    for control in _pairwise(config):
        for target in _targets(control):
            found = config.names.get(target)
            if found is None:
                continue
            if found.tag == "HyperText" and found.get("inline") != "true":
                yield Finding(
                    line_of(control), f'"{target}" is a <HyperText> that swallows the click', 'give it inline="true"'
                )
            elif found.tag not in SELECTABLE_TAGS:
                yield Finding(
                    line_of(control), f'"{target}" is a <{found.tag}>, which takes no click', "compare <Text> instead"
                )


@rule(
    "rating-two-objects",
    "error",
    summary="A Rating rates one object.",
    why="Over two the stars can be given, and nothing is stored.",
    bad=page("</View>", '  <Rating name="stars" toName="answer1,answer2"/>\n</View>'),
    good=page(
        "</View>", '  <Rating name="stars1" toName="answer1"/>\n  <Rating name="stars2" toName="answer2"/>\n</View>'
    ),
)
def _rating_two(config: Config) -> Iterator[Finding]:
    for control in config.controls:
        if control.tag == "Rating" and len(_targets(control)) > 1:
            problem = (
                f'one Rating over {len(_targets(control))} objects, toName="{control.get("toName")}", stores nothing'
            )
            yield Finding(line_of(control), problem, "give each object its own <Rating>")
