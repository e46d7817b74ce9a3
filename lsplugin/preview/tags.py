"""Tags of a config -> HTML with the editor's class names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lxml import etree
from lxml import html as lxml_html

from lsplugin.markup import element

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = re.compile(r"\$([\w.\[\]{}]+)", re.ASCII)
_KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SILENT = {"Style", "Pairwise", "Bucket"}
"""Tags that show nothing of their own where they stand."""


def text_of(found: etree._Element) -> str:
    """Give the text inside a tag, without comments."""
    return (found.text or "") + "".join(child.tail or "" for child in found)


class Renderer:
    """Makes one task's HTML.

    Args:
        root: the config's tree.
        task: the task's data.
    """

    def __init__(self, root: etree._Element, task: dict[str, Any]) -> None:
        self.root, self.task = root, task
        self.compared: dict[str, tuple[etree._Element, str]] = {}
        for control in root.iter("Pairwise"):
            names = (control.get("toName") or "").split(",")
            self.compared |= {name: (control, side) for name, side in zip(names, ("left", "right"), strict=False)}
        self.ranked = {control.get("toName") for control in root.iter("Ranker")}
        taken = {(found.get("hotkey") or "").lower() for found in root.iter() if isinstance(found.tag, str)}
        self.free_keys = (key for key in _KEYS if key not in taken)

    def html(self) -> etree._Element:
        """Give the whole config."""
        return self._view(self.root)

    def _shown(self, found: etree._Element) -> Iterator[etree._Element]:
        if not isinstance(found.tag, str) or found.tag in _SILENT:
            return
        makers = {
            "View": self._view,
            "Header": self._header,
            "Text": self._text,
            "HyperText": self._hypertext,
            "Markdown": self._markdown,
            "Paragraphs": self._paragraphs,
            "Choices": self._choices,
            "Rating": self._rating,
            "Ranker": self._ranker,
            "TextArea": self._text_area,
            "Number": self._number,
            "Collapse": self._collapse,
        }
        if found.tag == "List" and found.get("name") in self.ranked:
            return  # its Ranker shows it
        maker = makers.get(found.tag)
        made = maker(found) if maker else _leaf("div", f"The preview does not show <{found.tag}>.", "preview-unknown")
        if found.get("visibleWhen") in {"choice-selected", "choice-unselected"}:
            made.set("data-when", str(found.get("visibleWhen")))
            made.set("data-when-tag", found.get("whenTagName") or "")
            made.set("data-when-choice", found.get("whenChoiceValue") or "")
        yield made

    def _children(self, found: etree._Element) -> list[etree._Element]:
        return [made for child in found for made in self._shown(child)]

    def _filled(self, text: str) -> str:
        """Put the task's fields in place of `$field`, as the editor does in everything that it shows."""
        return _VARIABLE.sub(lambda found: str(self.task.get(found[1], "")), text)

    def _value(self, found: etree._Element) -> Any:  # noqa: ANN401 - whatever the task holds
        value = found.get("value") or ""
        if value.startswith("$") and value[1:] in self.task:
            return self.task[value[1:]]
        return self._filled(value)

    def _view(self, found: etree._Element) -> etree._Element:
        return _box(found.get("className") or "", *self._children(found), style=found.get("style"))

    def _header(self, found: etree._Element) -> etree._Element:
        return _leaf("h4", self._filled(found.get("value") or ""), style="margin: 10px 0;" + (found.get("style") or ""))

    def _text(self, found: etree._Element) -> etree._Element:
        lines = str(self._value(found)).split("\n")
        container = _box("lsf-richtext__container lsf-htx-richtext")
        for number, line in enumerate(lines):
            shown = _leaf("span", line, "lsf-richtext__line")
            shown.tail = "\n" if number < len(lines) - 1 else None
            container.append(shown)
        return self._comparable(found, container)

    def _hypertext(self, found: etree._Element) -> etree._Element:
        inside = "".join(etree.tostring(child, encoding="unicode") for child in found)
        source = str(self._value(found)) if found.get("value") else (found.text or "") + inside
        return self._comparable(found, _safe_html(source, "lsf-richtext__container lsf-htx-richtext"))

    def _comparable(self, found: etree._Element, container: etree._Element) -> etree._Element:
        """Wrap an object as the editor does: as one that a Pairwise compares, or as any other."""
        control, side = self.compared.get(found.get("name") or "", (None, ""))
        if control is None:
            return _box("lsf-object lsf-richtext", container)
        made = _box("cursor-pointer", container, style="border: 1px solid transparent; border-radius: 2px;")
        marks = {"role": "button", "tabindex": "0", "aria-pressed": "false", "data-side": side}
        marks |= {"data-pairwise": control.get("name") or "", "data-selection": control.get("selectionStyle") or ""}
        for name, value in marks.items():
            made.set(name, value)
        return made

    def _markdown(self, found: etree._Element) -> etree._Element:
        from lsplugin.markdown import to_html

        return _safe_html(to_html(self._filled(found.get("value") or text_of(found))), found.get("className") or "")

    def _paragraphs(self, found: etree._Element) -> etree._Element:
        messages = self._value(found)
        name_key, text_key = found.get("nameKey") or "author", found.get("textKey") or "text"
        made = _box("lsf-object lsf-paragraphs")
        for message in messages if isinstance(messages, list) else []:
            said = message if isinstance(message, dict) else {}
            name = _leaf("span", str(said.get(name_key, "")), "dialoguename--preview")
            text = _leaf("span", str(said.get(text_key, "")), "dialoguetext--preview")
            made.append(_box("phrase--preview", name, text))
        return self._comparable(found, made) if found.get("name") in self.compared else made

    def _choices(self, found: etree._Element) -> etree._Element:
        kind = "radio" if found.get("choice") != "multiple" else "checkbox"
        inline = found.get("showInline") == "true" or found.get("layout") == "inline"
        made = _box("lsf-choices" + (" lsf-choices_layout_inline" if inline else ""))
        made.set("data-choices", found.get("name") or "")
        for choice in found.iter("Choice"):
            label = self._filled(choice.get("value") or "")
            key = choice.get("hotkey") or next(self.free_keys, "")
            stored = {"data-value": choice.get("value") or "", "data-alias": choice.get("alias") or ""}
            attributes = {"type": kind, "name": label, "class": f"ant-{kind}-input", "data-key": key.lower(), **stored}
            text = _leaf("span", label)
            if key:
                text.append(_leaf("sup", f"[{key}]", "lsf-hint"))
            tick = element("span", element("input", **attributes), **{"class": f"ant-{kind}"})
            wrapper = element("label", tick, text, **{"class": f"ant-{kind}-wrapper lsf-choice__checkbox"})
            made.append(_box("lsf-choice", wrapper))
        return _box("", made, _required(found)) if found.get("required") == "true" else made

    def _rating(self, found: etree._Element) -> etree._Element:
        stars = element(
            "ul", **{"class": "ant-rate", "role": "radiogroup", "aria-label": found.get("name") or "rating"}
        )
        count = found.get("maxRating") or "5"
        for number in range(1, (int(count) if count.isdigit() else 5) + 1):
            star = _leaf("button", "\u2606", "ant-rate-star-second", type="button")
            star.set("aria-label", f"{number} stars")
            stars.append(element("li", star, **{"class": "ant-rate-star ant-rate-star-zero"}))
        return _box("", stars, _required(found)) if found.get("required") == "true" else stars

    def _ranker(self, found: etree._Element) -> etree._Element:
        shown = self.root.find(f".//List[@name='{found.get('toName')}']")
        items = self._value(shown) if shown is not None else []
        title = shown.get("title") or "" if shown is not None else ""
        cards = [self._card(item) for item in items if isinstance(item, dict)]
        buckets = [_column(bucket.get("title") or bucket.get("name") or "") for bucket in found.iter("Bucket")]
        return _box("preview-board", _column(title, *cards), *buckets)

    def _card(self, item: dict[str, Any]) -> etree._Element:
        made = _box("htx-ranker-item")
        marks = {"tabindex": "0", "draggable": "true", "data-ranker-id": str(item.get("id", ""))}
        marks["aria-label"] = f"{item.get('title') or item.get('id')}: left and right arrow keys move it"
        for name, value in marks.items():
            made.set(name, _clean(value))
        made.extend(
            _leaf("h5" if key == "title" else "p", str(item[key])) for key in ("title", "body") if item.get(key)
        )
        made.append(_leaf("p", str(item.get("id", ""))))
        return made

    def _text_area(self, found: etree._Element) -> etree._Element:
        text = _leaf("textarea", str(self._value(found)), "ant-input", rows=found.get("rows") or "1")
        text.set("placeholder", self._filled(found.get("placeholder") or ""))
        text.set("name", found.get("name") or "")
        text.set("aria-label", found.get("name") or "text")
        return _box("lsf-text-area", text)

    def _number(self, found: etree._Element) -> etree._Element:
        return element("input", type="number", **{"aria-label": found.get("name") or "number"})

    def _collapse(self, found: etree._Element) -> etree._Element:
        made = _box("ant-collapse")
        for panel in found.iter("Panel"):
            summary = _leaf("summary", self._filled(panel.get("value") or ""), "ant-collapse-header")
            made.append(element("details", summary, *self._children(panel)))
        return made


def _clean(text: str) -> str:
    """Replace what no HTML can hold."""
    return _UNSHOWABLE.sub("\ufffd", text)


def _leaf(tag: str, text: str, class_: str = "", **attributes: str) -> etree._Element:
    made = element(tag, **attributes)
    if class_:
        made.set("class", class_)
    made.text = _clean(text)
    return made


def _box(class_: str, *children: etree._Element, style: str | None = None) -> etree._Element:
    made = element("div", *children)
    if class_:
        made.set("class", class_)
    if style:
        made.set("style", style)
    return made


def _column(title: str, *cards: etree._Element) -> etree._Element:
    return _box("htx-ranker-column", _leaf("h3", title), _box("preview-drop", *cards))


def _required(found: etree._Element) -> etree._Element:
    return _leaf("p", "An answer is required here.", "preview-required", title=found.get("requiredMessage") or "")


def _safe_html(source: str, class_: str) -> etree._Element:
    """Sanitise HTML, and put it into a tree."""
    import nh3

    cleaned = nh3.clean(
        _clean(source), attributes=nh3.ALLOWED_ATTRIBUTES | {"*": {"class"}}, link_rel="noopener noreferrer"
    )
    made: etree._Element = lxml_html.fragment_fromstring(cleaned, create_parent="div")
    for image in list(made.iter("img")):
        if not str(image.get("src") or "").startswith("data:"):
            image.tag, image.text = "span", f"[picture: {image.get('alt') or image.get('src') or ''}]"
    made.set("class", class_)
    return made
