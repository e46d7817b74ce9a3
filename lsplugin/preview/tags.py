"""Tags of a config -> HTML with the editor's class names: what is laid out, and what is shown of a task."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.preview import controls
from lsplugin.preview.elements import box, inline_style, leaf, safe_html, with_marks
from lsplugin.preview.values import as_text, expanded, filled, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SILENT = {"Style", "Pairwise", "Bucket"}
"""Tags that show nothing of their own where they stand."""
_HEADERS = {
    1: ("h1", "display-small"),
    2: ("h2", "headline-large"),
    3: ("h2", "headline-small"),
    4: ("h3", "title-large"),
    5: ("h4", "title-medium"),
}
_COMPARED = "cursor-pointer hover:bg-primary-emphasis-subtle transition-colors rounded-sm"


def text_of(found: etree._Element) -> str:
    """Give the text inside a tag, without comments."""
    return (found.text or "") + "".join(child.tail or "" for child in found)


class Renderer:
    """Makes one task's HTML.

    Args:
        root: the config's tree, its tags and attributes in the documented case.
        task: the task's data.
    """

    def __init__(self, root: etree._Element, task: Mapping[str, Any]) -> None:
        self.root, self.task = expanded(root, task), task
        self.compared: dict[str, tuple[etree._Element, str]] = {}
        for control in self.root.iter("Pairwise"):
            names = (control.get("toName") or "").split(",")
            self.compared |= {name: (control, side) for name, side in zip(names, ("left", "right"), strict=False)}
        self.ranked = {control.get("toName") for control in self.root.iter("Ranker")}

    def html(self) -> etree._Element:
        """Give the whole config."""
        return box("", *self.shown(self.root))

    def shown(self, found: etree._Element) -> list[etree._Element]:
        """Give what one tag shows: nothing, or one element."""
        if not isinstance(found.tag, str) or found.tag in _SILENT:
            return []
        if found.tag == "List" and found.get("name") in self.ranked:
            return []  # its Ranker shows it
        if reason := _beyond(found):
            return [leaf("div", reason, "preview-unknown")]
        made = _MAKERS[found.tag](self, found)
        if found.get("required") == "true":
            with_marks(made, data_required="", title="Required. " + (found.get("requiredMessage") or ""))
        when = found.get("visibleWhen") or ("choice-value" if found.get("whenChoiceValue") else "")
        if when in {"choice-selected", "choice-unselected", "choice-value"}:
            tag, choice = found.get("whenTagName") or "", found.get("whenChoiceValue") or ""
            with_marks(made, data_when=when, data_when_tag=tag, data_when_choice=choice)
        return [made]

    def children(self, found: etree._Element) -> list[etree._Element]:
        """Give what the tags inside a tag show."""
        return [made for child in found for made in self.shown(child)]

    def filled(self, text: str | None) -> str:
        """Put the task's fields into a text."""
        return filled(text or "", self.task)

    def value(self, found: etree._Element) -> Any:  # noqa: ANN401 - whatever the task holds
        """Give what a tag's `value` names."""
        return value_of(found.get("value") or "", self.task)

    def comparable(self, found: etree._Element, plain: str, *children: etree._Element) -> etree._Element:
        """Wrap an object as the editor does: as one that a Pairwise compares, or as any other, with the classes `plain`."""
        control, side = self.compared.get(found.get("name") or "", (None, ""))
        if control is None:
            return box(plain, *children)
        made = box(_COMPARED, *children)
        with_marks(made, role="button", tabindex="0", aria_pressed="false", data_side=side)
        with_marks(made, data_pairwise=control.get("name") or "")
        if control.get("selectionStyle"):
            with_marks(made, data_selection=inline_style(control.get("selectionStyle")))
        return made


def _beyond(found: etree._Element) -> str:
    """Say why the preview cannot show a tag; empty when it can."""
    if found.tag not in _MAKERS:
        return f"The preview does not show <{found.tag}>."
    if found.get("visibleWhen") == "region-selected" or found.get("perRegion") == "true":
        return f"<{found.tag}> appears when a region is selected, which the preview cannot do."
    if found.get("valueType") == "url":
        return f"<{found.tag}> loads its text from an address, which the preview does not."
    return ""


def _view(show: Renderer, found: etree._Element) -> etree._Element:
    inline = "display: inline-block; margin-right: 15px" if found.get("display") == "inline" else ""
    style = inline_style(found.get("style")) or inline
    made = box(found.get("className") or "", *show.children(found), style=style)
    return with_marks(made, id=found.get("idAttr") or "") if found.get("idAttr") else made


def _header(show: Renderer, found: etree._Element) -> etree._Element:
    size = found.get("size") or "4"
    tag, look = _HEADERS[min(max(int(size[:4]), 1), 5) if size.isdecimal() else 4]
    underline = " underline" if found.get("underline") == "true" else ""
    style = inline_style(found.get("style")) or "margin: 10px 0"
    return leaf(tag, show.filled(found.get("value")), f"typography-{look}--preview{underline}", style=style)


def _text(show: Renderer, found: etree._Element) -> etree._Element:
    container = box("lsf-richtext__container lsf-htx-richtext")
    for number, line in enumerate(as_text(show.value(found)).replace("\r", "\n").split("\n")):
        if number:
            container.append(etree.Element("br"))
        container.append(leaf("span", line, "lsf-richtext__line"))
    return show.comparable(found, "lsf-object lsf-richtext", container)


def _hypertext(show: Renderer, found: etree._Element) -> etree._Element:
    inside = "".join(etree.tostring(child, encoding="unicode") for child in found)
    source = as_text(show.value(found)) if found.get("value") else (found.text or "") + inside
    container = safe_html(source, "lsf-richtext__container lsf-htx-richtext")
    return show.comparable(found, "lsf-object lsf-richtext", container)


def _markdown(show: Renderer, found: etree._Element) -> etree._Element:
    from lsplugin.markdown import to_html

    source = show.filled(found.get("value") or text_of(found))
    return safe_html(to_html(source), found.get("className") or "")


def _paragraphs(show: Renderer, found: etree._Element) -> etree._Element:
    messages = show.value(found)
    kind = "dialogue" if found.get("layout") == "dialogue" else ""
    phrases = []
    for message in messages if isinstance(messages, list) else []:
        said = message if isinstance(message, dict) else {}
        name = leaf("span", as_text(said.get(found.get("nameKey") or "author")), f"{kind}name--preview")
        time = leaf("span", "00:00:00 - 00:00:00", "time--preview")
        text = leaf("span", as_text(said.get(found.get("textKey") or "text")), f"{kind}text--preview")
        title = box("titleWrapper--preview", name, time, tag="span")
        phrases.append(box("phrase--preview", title, box("wrapperText--preview", text, tag="span")))
    return show.comparable(found, "lsf-object lsf-paragraphs", box("container--preview", *phrases))


def _collapse(show: Renderer, found: etree._Element) -> etree._Element:
    made = box("ant-collapse ant-collapse-borderless")
    alone = found.get("accordion") != "false"
    number = list(show.root.iter("Collapse")).index(found)
    for place, panel in enumerate(found.iterchildren("Panel"), start=1):
        title = leaf("span", show.filled(panel.get("value")) or f"Panel {place}", "ant-collapse-header-text")
        content = box("ant-collapse-content-box", *show.children(panel))
        item = box("ant-collapse-item", box("ant-collapse-header", title, tag="summary"), content, tag="details")
        if (panel.get("open") or found.get("open")) == "true" and not (
            alone and made.find("details[@open]") is not None
        ):
            item.set("open", "")
        if alone:
            item.set("data-accordion", str(number))
        made.append(item)
    return made


_MAKERS: dict[str, Callable[[Renderer, etree._Element], etree._Element]] = {
    "View": _view,
    "Header": _header,
    "Text": _text,
    "HyperText": _hypertext,
    "Markdown": _markdown,
    "Paragraphs": _paragraphs,
    "Collapse": _collapse,
    "Choices": controls.choices,
    "Choice": controls.choice,
    "Rating": controls.rating,
    "Ranker": controls.ranker,
    "List": partial(controls.board, fixed=True),
    "TextArea": controls.text_area,
    "Number": controls.number,
}
