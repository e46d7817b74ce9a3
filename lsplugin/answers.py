"""The answers of a config: as many boxes as the spec says, under its field names, shown as text or Markdown."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from lsplugin.errors import LspluginError
from lsplugin.markup import attributes_of, element
from lsplugin.template import template_names

if TYPE_CHECKING:
    from lxml import etree

    from lsplugin.template import Spec

ANSWER_CLASS = "lsplugin-answer"
MARKDOWN_SUFFIX = "_html"
"""A field of this ending holds the sanitised HTML of the field before it."""


def letter(index: int) -> str:
    """Name of the index-th answer, from 0: A, B, C, ..."""
    return chr(ord("A") + index)


def set_answers(root: etree._Element, spec: Spec) -> None:
    """Give the skeleton as many answers as the spec has, each showing its field; set the prompt's field and kind.

    Raises:
        LspluginError: a template that compares another number of answers, or has no prompt or answers.
    """
    boxes = [box for box in root.iter("View") if ANSWER_CLASS in box.get("className", "").split()]
    if len(boxes) != spec.answers:
        _resize(root, boxes, spec)
    for number, field in enumerate(spec.fields, start=1):
        shown = _named(root, f"answer{number}", spec)
        shown.set("value", f"${field}")
        if spec.markdown:
            _as_markdown(shown, field)
    prompt = _named(root, "prompt", spec)
    prompt.set("value", f"${spec.prompt_field}")
    if spec.chat:
        _as_chat(prompt)
    if spec.markdown:
        root.set("className", f"{root.get('className', '')} lsplugin-markdown".strip())


def _named(root: etree._Element, name: str, spec: Spec) -> etree._Element:
    found: etree._Element | None = root.find(f".//*[@name='{name}']")
    if found is None:
        raise LspluginError(f"{spec.folder / 'config.xml'}: expected an object named {name}, found none")
    return found


def _resize(root: etree._Element, boxes: list[etree._Element], spec: Spec) -> None:
    """Make as many boxes as there are answers, each a copy of the first; tiers, too."""
    if root.find(".//Pairwise") is not None or root.find(".//Choice[@alias='left-much']") is not None:
        others = [name for name in template_names() if name in {"ranking", "rating"}]
        raise LspluginError(
            f"--answers {spec.answers}: the template {spec.folder.name} compares exactly two answers; "
            f"use --template {' or '.join(others)}, or make several two-answer tasks of one prompt"
        )
    if not boxes:
        raise LspluginError(
            f"{spec.folder / 'config.xml'}: expected a View of class {ANSWER_CLASS} for each answer, found none"
        )
    parent = boxes[0].getparent()
    assert parent is not None
    place = parent.index(boxes[0])
    for box in boxes:
        box.getparent().remove(box)  # type: ignore[union-attr]
    for index in range(spec.answers):
        parent.insert(place + index, _copy_of(boxes[0], index))
    ranker = root.find(".//Ranker")
    if ranker is not None:
        _set_tiers(ranker, spec.answers)


def _copy_of(box: etree._Element, index: int) -> etree._Element:
    """Copy the first answer's box for another answer: names, references and the letter change."""
    made = copy.deepcopy(box)
    for part in made.iter():
        for attribute, value in attributes_of(part).items():
            part.set(attribute, value.replace("answer1", f"answer{index + 1}"))
        if part.tag == "Header" and part.get("value") == "Answer A":
            part.set("value", f"Answer {letter(index)}")
    return made


def _set_tiers(ranker: etree._Element, count: int) -> None:
    """As many tiers as answers, so that a full order can be told; the first is the best."""
    for bucket in list(ranker):
        ranker.remove(bucket)
    titles = ["Best", *(str(number) for number in range(2, count + 1))]
    ranker.extend(element("Bucket", name=f"tier{number}", title=title) for number, title in enumerate(titles, start=1))


def _as_markdown(shown: etree._Element, field: str) -> None:
    """Show the sanitised HTML of an answer in place, and its raw text folded below."""
    name = shown.get("name", "")
    shown.tag = "HyperText"
    shown.set("value", f"${field}{MARKDOWN_SUFFIX}")
    shown.set("inline", "true")
    raw = element("Text", name=f"{name}_raw", value=f"${field}")
    shown.addnext(element("Collapse", element("Panel", raw, value="Raw text")))


def _as_chat(prompt: etree._Element) -> None:
    """Show the prompt as a conversation of `{"role", "content"}` messages."""
    prompt.tag = "Paragraphs"
    prompt.set("layout", "dialogue")
    prompt.set("nameKey", "role")
    prompt.set("textKey", "content")
    view = prompt.getparent()
    if view is not None and view.tag == "View":
        view.set("className", f"{view.get('className', '')} lsplugin-chat".strip())
