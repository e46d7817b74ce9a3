"""Elements of the page: the one way to make them, so that any text of a task is safe in them."""

from __future__ import annotations

import re

import nh3
from lxml import etree
from lxml import html as lxml_html

_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_STYLES = {"color", "background-color", "font-style", "font-weight", "text-align", "text-decoration", "white-space"}


def clean(text: str) -> str:
    """Replace what no HTML can hold."""
    return _UNSHOWABLE.sub("\ufffd", text)


def leaf(tag: str, text: str, class_: str = "", **attributes: str) -> etree._Element:
    """Make an element that holds text alone."""
    made = with_marks(etree.Element(tag), **attributes)
    if class_:
        made.set("class", class_)
    made.text = clean(text)
    return made


def box(class_: str, *children: etree._Element, tag: str = "div", style: str = "") -> etree._Element:
    """Make an element that holds others."""
    made = etree.Element(tag)
    if class_:
        made.set("class", class_)
    if style:
        made.set("style", style)
    made.extend(children)
    return made


def with_marks(made: etree._Element, **marks: str) -> etree._Element:
    """Set attributes; `data_side` is written `data-side`."""
    for name, value in marks.items():
        made.set(name.replace("_", "-"), clean(value))
    return made


def inline_style(written: str | None) -> str:
    """Give a `style` as the editor applies it: cut at each semicolon, without what it marks as important."""
    parts = [part.partition(":") for part in (written or "").split(";")]
    return "; ".join(
        f"{name.strip()}: {value.strip()}" for name, _, value in parts if value.strip() and "!important" not in value
    )


def _without_data_links(tag: str, name: str, value: str) -> str | None:
    return None if tag == "a" and name == "href" and value.strip().lower().startswith("data:") else value


def safe_html(source: str, class_: str) -> etree._Element:
    """Sanitise HTML, and put it into a tree; pictures from elsewhere become their description."""
    cleaned = nh3.clean(
        clean(source),
        attributes=nh3.ALLOWED_ATTRIBUTES | {"*": {"class", "style"}},
        filter_style_properties=_STYLES,
        link_rel="noopener noreferrer",
        url_schemes={"http", "https", "mailto", "data"},
        attribute_filter=_without_data_links,
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    made: etree._Element = lxml_html.fragment_fromstring(cleaned, create_parent="div")
    for image in list(made.iter("img")):
        if not str(image.get("src") or "").startswith("data:"):
            tail = image.tail
            shown = f"[picture: {image.get('alt') or image.get('src') or ''}]"
            image.clear()
            image.tag, image.text, image.tail = "span", shown, tail
    made.set("class", class_)
    return made
