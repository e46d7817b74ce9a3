"""One self-contained HTML page that shows what annotators will see, for people without a server.

The config's tree becomes a tree of HTML with the class names that the editor uses, so that the config's own Style applies. Texts
cannot become markup, the page's policy lets nothing be loaded from anywhere, and nothing is stored.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.preview.elements import box, leaf, with_marks
from lsplugin.preview.tags import Renderer, text_of
from lsplugin.validation.document import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_TASKS = 50
"""Tasks in one page; the page says when there are more."""


def preview(config: str, tasks: Sequence[dict[str, Any]]) -> str:
    """Make the page.

    Args:
        config: a labeling config without errors.
        tasks: data of the tasks, with every field that it displays; the first `MOST_TASKS` are shown.

    Returns:
        HTML that needs no other file and no network.
    """
    root = load(config, tasks=(), server_version=None).root
    script, css = (files(__name__).joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    styles = [css, *(_as_shown(text_of(found)) for found in root.iter("Style"))]
    shown = tasks[:MOST_TASKS]
    cut = f" The first {len(shown)} of {len(tasks)} tasks." if len(shown) < len(tasks) else ""
    required = " A star * marks what must be answered." if root.find(".//*[@required='true']") is not None else ""
    told = "Preview: this is what annotators see in Label Studio. Nothing is stored." + cut + required
    main = box("", *(_section(root, task, number) for number, task in enumerate(shown, start=1)), tag="main")
    body = box(
        "",
        box("preview-bar", leaf("p", told, role="note", id="banner"), _buttons(len(shown)), tag="header"),
        main,
        *_forms(main),
        leaf("script", script),
        tag="body",
    )
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digests([script])}",
            f"style-src {_digests(styles)}",
            f"style-src-elem {_digests(styles)}",
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            "form-action 'none'",
            "base-uri 'none'",
        ]
    )
    head = box(
        "",
        leaf("meta", "", charset="utf-8"),
        leaf("meta", "", http_equiv="Content-Security-Policy", content=policy),
        leaf("meta", "", name="viewport", content="width=device-width, initial-scale=1"),
        leaf("title", "Preview of a labeling config"),
        *(leaf("style", style) for style in styles),
        tag="head",
    )
    page = with_marks(box("", head, body, tag="html"), lang="en", data_color_scheme="light")
    return "<!DOCTYPE html>\n" + etree.tostring(page, encoding="unicode", method="html") + "\n"


def _section(root: etree._Element, task: dict[str, Any], number: int) -> etree._Element:
    made = box("lsf-main-view", Renderer(root, task).html(), tag="section")
    with_marks(made, aria_label=f"Task {number}", tabindex="-1")
    return with_marks(made, hidden="") if number > 1 else made


def _forms(main: etree._Element) -> Iterator[etree._Element]:
    """Give each group of choices a form of its own.

    The editor names an input by its label, and a browser lets only one radio button of a name be ticked in each form: without
    forms "About the same" could be said once in the whole page.
    """
    for number, group in enumerate(main.iterfind(".//*[@data-choices]")):
        name = f"choices-{number}"
        for field in group.iter("input"):
            field.set("form", name)
        yield leaf("form", "", id=name, hidden="")


def _buttons(count: int) -> etree._Element:
    """Make the row of buttons: which task, and light or dark."""
    made = box(
        "",
        leaf("button", "Previous", type="button", id="previous"),
        leaf("output", f"1 of {count}", id="place"),
        leaf("button", "Next", type="button", id="next"),
        leaf("button", "Dark", type="button", id="scheme", aria_pressed="false"),
        tag="nav",
    )
    return with_marks(made, aria_label="Tasks")


def _digests(sources: Iterable[str]) -> str:
    """Name what may run or apply by its hash, for the page's policy."""
    made = (base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources)
    return " ".join(f"'sha256-{digest}'" for digest in made)


def _as_shown(css: str) -> str:
    """Give a Style as the editor puts it into its page: escaped, so that a rule with `>` in its selector is lost there, too.

    That also keeps it from ending its own tag here.
    """
    return html.escape(css, quote=False).replace("\r\n", "\n").replace("\r", "\n")
