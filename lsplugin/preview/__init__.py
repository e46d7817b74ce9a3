"""One self-contained HTML page that shows what annotators will see, for people without a server.

The config's tree becomes a tree of HTML with the class names that the editor uses, so that the config's own Style applies. Texts
cannot become markup, the page's policy lets nothing be loaded from anywhere, and nothing is stored.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import tinycss2
from lxml import etree

from lsplugin.markup import element
from lsplugin.preview.tags import Renderer, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    script, css = (files(__name__).joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    style = "\n".join([css, *(_as_shown(text_of(found)) for found in root.iter("Style"))])
    shown = tasks[:MOST_TASKS]
    cut = f" The first {len(shown)} of {len(tasks)} tasks." if len(shown) < len(tasks) else ""
    body = element(
        "body",
        _text(
            "p",
            "Preview: this is what annotators see in Label Studio. Nothing is stored." + cut,
            role="note",
            id="banner",
        ),
        _bar(len(shown)),
        element("main", *(_section(root, task, number) for number, task in enumerate(shown, start=1))),
        _text("script", _inside(script)),
    )
    digest = base64.b64encode(hashlib.sha256(_inside(script).encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _text("title", "Preview of a labeling config"),
        _text("style", _inside(style)),
    )
    page = element("html", head, body, **{"lang": "en", "data-color-scheme": "light"})
    return "<!DOCTYPE html>\n" + etree.tostring(page, encoding="unicode", method="html") + "\n"


def _section(root: etree._Element, task: dict[str, Any], number: int) -> etree._Element:
    made = element("section", Renderer(root, task).html(), **{"class": "lsf-main-view", "aria-label": f"Task {number}"})
    if number > 1:
        made.set("hidden", "")
    return made


def _bar(count: int) -> etree._Element:
    """Make the row of buttons: which task, and light or dark."""
    return element(
        "nav",
        _text("button", "Previous", type="button", id="previous"),
        _text("output", f"1 of {count}", id="place"),
        _text("button", "Next", type="button", id="next"),
        _text("button", "Light or dark", type="button", id="scheme"),
    )


def _text(tag: str, text: str, **attributes: str) -> etree._Element:
    made = element(tag, **attributes)
    made.text = text
    return made


def _inside(text: str) -> str:
    r"""Keep a style or script from ending its own tag: `</` becomes `<\/`, which means the same in a script's strings."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _as_shown(css: str) -> str:
    """Drop the rules that the editor loses: those with `>` in their selector, which reaches it as `&gt;`."""
    kept: str = tinycss2.serialize(list(_kept(tinycss2.parse_stylesheet(css))))
    return kept


def _kept(rules: Iterable[Any]) -> Iterable[Any]:
    for rule in rules:
        if rule.type == "qualified-rule" and any(part.type == "literal" and part.value == ">" for part in rule.prelude):
            continue
        if rule.type == "at-rule" and rule.lower_at_keyword == "media" and rule.content is not None:
            rule.content = list(_kept(tinycss2.parse_rule_list(rule.content)))
        if rule.type != "error":
            yield rule
