"""Controls of a config -> HTML with the editor's class names; page.js makes them work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.preview.elements import box, inline_style, leaf, safe_html, with_marks
from lsplugin.preview.values import as_text

if TYPE_CHECKING:
    from lsplugin.preview.tags import Renderer

_MOST_STARS = 100
_STAR = "512,120 633,366 904,405 708,596 754,866 512,739 270,866 316,596 120,405 391,366"
_STAR_SIZES = {"small": "15", "medium": "25", "large": "40"}


def choices(show: Renderer, found: etree._Element) -> etree._Element:
    """Make a group of choices: a list, a row, or a menu."""
    layout = {"true": "inline", "false": "vertical"}.get(
        found.get("showInline") or "", found.get("layout") or "vertical"
    )
    name = found.get("name") or "choices"
    made = box(f"lsf-choices lsf-choices_layout_{layout}")
    with_marks(made, data_choices=name, role="group", aria_label=name)
    if found.get("choice") != "multiple":
        made.set("data-single", "")
    if layout != "select":
        made.extend(show.children(found))
        return made
    menu = etree.SubElement(made, "select", {"class": "preview-menu", "aria-label": name})
    if found.get("choice") == "multiple":
        menu.set("multiple", "")
    else:
        menu.append(leaf("option", "", value=""))
    for option in found.iter("Choice"):
        label = show.filled(option.get("value"))
        menu.append(leaf("option", label, data_value=label, data_alias=option.get("alias") or ""))
    return made


def choice(show: Renderer, found: etree._Element) -> etree._Element:
    """Make one choice: a box or a button to tick, and those below it."""
    control = next(found.iterancestors("Choices"), found.getparent())
    assert control is not None  # a config without errors has no Choice elsewhere
    kind = "radio" if control.get("choice") == "single-radio" else "checkbox"
    layout = "inline" if control.get("showInline") == "true" or control.get("layout") == "inline" else "vertical"
    below = list(found.iterchildren("Choice")) if control.get("allowNested") == "true" else []
    label, key = show.filled(found.get("value")), found.get("hotkey") or ""
    tick = leaf("input", "", f"ant-{kind}-input", type=kind, name=label, data_key=key.lower())
    with_marks(tick, data_value=label, data_alias=found.get("alias") or "")
    if found.get("selected") == "true":
        tick.set("checked", "")
    text = safe_html(found.get("html") or "", "") if found.get("html") else leaf("span", label)
    text.tag = "span"
    hinted = box("", text, *([leaf("sup", f"[{key}]", "lsf-hint")] if key else []), tag="span")
    if found.get("hint"):
        hinted.set("title", found.get("hint") or "")
    mark = box(f"ant-{kind}", tick, box(f"ant-{kind}-inner", tag="span"), tag="span")
    wrapper = box(f"ant-{kind}-wrapper lsf-choice__checkbox", mark, hinted, tag="label")
    item = box("lsf-choice__item", wrapper, style=inline_style(found.get("style")))
    made = box(f"lsf-choice lsf-choice_layout_{layout} lsf-choice_{'notLeaf' if below else 'leaf'}", item)
    if below:
        made.append(box("lsf-choice__children", *(choice(show, child) for child in below)))
    return made


def rating(_: Renderer, found: etree._Element) -> etree._Element:
    """Make a row of stars."""
    written = found.get("maxRating") or "5"
    count = min(int(written[:4]), _MOST_STARS) if written.isdecimal() else 5
    size = _STAR_SIZES.get(found.get("size") or "medium", "25")
    row = box("ant-rate", tag="ul")
    with_marks(row, role="radiogroup", tabindex="0", aria_label=found.get("name") or "rating")
    row.set("data-key", (found.get("hotkey") or "").lower())
    for number in range(1, count + 1):
        halves = [box(f"ant-rate-star-{half}", _star(size)) for half in ("first", "second")]
        star = with_marks(box("", *halves), role="radio", aria_checked="false", aria_label=f"{number} of {count}")
        row.append(box("ant-rate-star ant-rate-star-zero", star, tag="li"))
    return box("", row)


def _star(size: str) -> etree._Element:
    drawing = etree.Element("svg", {"viewBox": "64 64 896 896", "width": size, "height": size, "aria-hidden": "true"})
    etree.SubElement(drawing, "polygon", {"points": _STAR})
    return box("anticon anticon-star", drawing, tag="span")


def ranker(show: Renderer, found: etree._Element) -> etree._Element:
    """Make cards to put in order, or into buckets."""
    shown = next((part for part in show.root.iter("List") if part.get("name") == found.get("toName")), found)
    return board(show, shown, found)


def board(
    show: Renderer, found: etree._Element, control: etree._Element | None = None, *, fixed: bool = False
) -> etree._Element:
    """Make the cards of a List, in a column of its own or in its Ranker's default bucket, and the other buckets."""
    items = show.value(found)
    cards = [_card(item, fixed=fixed) for item in (items if isinstance(items, list) else []) if isinstance(item, dict)]
    buckets = list(control.iterchildren("Bucket")) if control is not None else []
    start = next((bucket for bucket in buckets if bucket.get("default") == "true"), None)
    columns = [] if start is not None else [_column(found.get("title") or "", cards)]
    columns += [_column(bucket.get("title") or "", cards if bucket is start else []) for bucket in buckets]
    return box("board--preview", *columns)


def _column(title: str, cards: list[etree._Element]) -> etree._Element:
    heading = box("columnTitle--preview", leaf("h3", title, "typography-title-large--preview"))
    return box("column--preview htx-ranker-column", heading, box("dropArea--preview", *cards))


def _card(item: dict[str, Any], *, fixed: bool) -> etree._Element:
    made = box("item--preview htx-ranker-item")
    name = as_text(item.get("id"))
    with_marks(made, data_ranker_id=name)
    if not fixed:
        called = as_text(item.get("title")) or name
        with_marks(made, tabindex="0", draggable="true", role="button", aria_label=f"{called}: arrow keys move it")
    if item.get("title"):
        made.append(box("itemTitle--preview", leaf("h5", as_text(item["title"]), "typography-title-small--preview")))
    if item.get("body"):
        made.append(leaf("p", as_text(item["body"]), "itemLine--preview"))
    if item.get("html"):
        made.append(safe_html(as_text(item["html"]), "itemLine--preview"))
    made.append(leaf("p", name, "itemLine--preview"))
    return made


def text_area(show: Renderer, found: etree._Element) -> etree._Element:
    """Make a field for text, with what the config fills in."""
    rows, text = found.get("rows") or "1", as_text(show.value(found))
    name = found.get("name") or "text"
    if rows == "1":
        field = leaf("input", "", "ant-input is-search", type="text", value=text)
    else:
        field = leaf("textarea", "\n" + text, "ant-input is-search", rows=rows)  # HTML drops a first newline
    with_marks(field, name=name, aria_label=name, placeholder=found.get("placeholder") or "")
    made = box("lsf-text-area", field)
    if (found.get("showSubmitButton") or str(rows != "1").lower()) == "true":
        made.append(box("preview-add", leaf("button", "+ Add", type="button")))
    return made


def number(_: Renderer, found: etree._Element) -> etree._Element:
    """Make a field or a slider for a number."""
    slider = found.get("slider") == "true"
    field = leaf("input", "", type="range" if slider else "number", value=found.get("defaultValue") or "")
    with_marks(
        field, name=found.get("name") or "", aria_label=found.get("name") or "number", step=found.get("step") or "1"
    )
    for limit in ("min", "max"):
        if found.get(limit):
            field.set(limit, found.get(limit) or "")
    shown = [leaf("output", found.get("defaultValue") or "")] if slider else []
    return box("lsf-number", field, *shown)
