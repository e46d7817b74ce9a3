"""Rules about choices, keys, conditions, and whether an annotator has to choose at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.validation.config import Config, line_of
from lsplugin.validation.examples import PAGE, page, page_with
from lsplugin.validation.rule import Finding, rule
from lsplugin.validation.structure import guess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml import etree

_OPTIONS = {"Choice", "Label"}


def _options(control: etree._Element) -> list[etree._Element]:
    return [option for option in control.iter(*_OPTIONS) if option is not control]


def _repeated(config: Config, attribute: str) -> Iterator[tuple[etree._Element, str, int]]:
    """Yield options whose attribute another option beside them has, with its line."""
    for control in config.own:
        seen: dict[str, int] = {}
        for option in control:
            value = option.get(attribute) if option.tag in _OPTIONS else None
            if not value:
                continue
            if value in seen:
                yield option, value, seen[value]
            seen.setdefault(value, line_of(option))


@rule(
    "choice-duplicate",
    "error",
    summary="The choices of a control have different values.",
    why="Choosing one of two that are called the same chooses both, or the other.",
    bad=page('value="About the same"', 'value="The one I clicked is better"'),
    good=PAGE,
)
def _choice_duplicate(config: Config) -> Iterator[Finding]:
    for option, value, line in _repeated(config, "value"):
        yield Finding(line_of(option), f'the choice "{value}" is there on line {line} already', "rename or remove one")


@rule(
    "alias-duplicate",
    "error",
    summary="The choices of a control have different aliases.",
    why="The alias is what is stored: two choices with one alias cannot be told apart in the export.",
    bad=page('alias="tie"', 'alias="better"'),
    good=PAGE,
)
def _alias_duplicate(config: Config) -> Iterator[Finding]:
    for option, alias, line in _repeated(config, "alias"):
        yield Finding(line_of(option), f'the alias "{alias}" is taken on line {line}', "choose another")


@rule(
    "hotkey-duplicate",
    "error",
    summary="Every key does one thing.",
    why="Of two controls with one key the last wins, so a keystroke labels something else than its hint says.",
    bad=page('hotkey="2"', 'hotkey="1"'),
    good=PAGE,
)
def _hotkey_duplicate(config: Config) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for element in config.own:
        for key in (element.get("hotkey") or "").lower().split(","):
            if not (key := key.strip()):
                continue
            if key in seen:
                yield Finding(line_of(element), f'the key "{key}" is taken on line {seen[key]}', "choose another")
            seen.setdefault(key, line_of(element))


@rule(
    "choice-value-missing",
    "error",
    summary="Every choice has a value, what annotators read.",
    why="Without one there is a button that says nothing, and what it stores says nothing, either.",
    bad=page(' value="About the same"'),
    good=PAGE,
)
def _choice_value(config: Config) -> Iterator[Finding]:
    for element in config.own:
        if element.tag == "Choice" and not element.get("value") and not element.get("html"):
            yield Finding(line_of(element), "a <Choice> without a value", 'give it one, such as value="About the same"')


@rule(
    "when-dangling",
    "error",
    summary="whenTagName and whenChoiceValue name a control and a choice that are there.",
    why="A condition about nothing is never true: what depends on it is never shown.",
    bad=page_with(
        '<View visibleWhen="choice-selected" whenTagName="verdikt">',
        '  <TextArea name="reason" toName="prompt"/>',
        "</View>",
    ),
    good=page_with(
        '<View visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="tie">',
        '  <TextArea name="reason" toName="prompt"/>',
        "</View>",
    ),
)
def _when(config: Config) -> Iterator[Finding]:
    for element in config.own:
        tag_name, wanted = element.get("whenTagName"), element.get("whenChoiceValue")
        control = config.names.get(tag_name or "")
        if tag_name and control is None:
            problem = f'whenTagName="{tag_name}" names no control'
            yield Finding(line_of(element), problem, "correct the name", guess(tag_name, config.names))
            continue
        controls = [control] if control is not None else [found for found in config.own if found.tag == "Choices"]
        if (
            not wanted
            or any(found.get("value") for found in controls)
            or any(found.get("apiUrl") for found in controls)
        ):
            continue  # choices that come with the task are not known here
        offered = {
            str(option.get(name)) for found in controls for option in _options(found) for name in ("value", "alias")
        }
        for value in wanted.split(","):
            if value.strip() not in offered:
                problem = f'whenChoiceValue="{value.strip()}" is no choice of {tag_name or "any control"}'
                yield Finding(line_of(element), problem, "correct the value", guess(value.strip(), offered - {"None"}))


@rule(
    "no-forced-choice",
    "warning",
    summary="Something has to be chosen before a task can be submitted.",
    why="Pairwise and Ranker cannot be required. Without a required control beside them, Ctrl+Enter submits nothing, and counts.",
    bad=page(' required="true"'),
    good=PAGE,
)
def _no_forced_choice(config: Config) -> Iterator[Finding]:
    controls = [
        e for e in config.controls if e.tag in {"Pairwise", "Ranker", "Choices", "Rating"} and not e.get("perRegion")
    ]
    required = any(
        (element.get("required") or "").lower() == "true" for element in config.elements if element.tag != "Pairwise"
    )
    if controls and not required:
        remedy = 'give a control required="true"; beside <Pairwise> or <Ranker> add a required <Choices> (`lsplugin render` does)'
        yield Finding(line_of(controls[0]), "nothing forces an annotator to choose", remedy)
