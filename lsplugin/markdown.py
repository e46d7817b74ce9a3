"""Markdown as HTML that is safe to show inside an annotator's page."""

from __future__ import annotations

from functools import cache

import nh3
from markdown_it import MarkdownIt

_INLINE = {"a", "b", "br", "code", "del", "em", "i", "s", "strong"}
_BLOCKS = {"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "ul"}
_TABLES = {"table", "tbody", "td", "th", "thead", "tr"}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "td": {"align"}, "th": {"align"}}
_SCHEMES = {"http", "https", "mailto"}


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def to_html(text: str) -> str:
    """Render CommonMark, tables and strikethrough to sanitised HTML.

    HTML in the text is shown as text. Images are left out: loading one would tell its server who labels what, and when. Links
    open in a tab of their own.

    Args:
        text: Markdown.
    """
    html: str = _parser().render(text)
    return nh3.clean(
        html,
        tags=_INLINE | _BLOCKS | _TABLES,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
