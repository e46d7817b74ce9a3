"""Rules about style sheets as such: that the browser reads them whole, that they stay in the template and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree

from lsplugin.validation.config import line_of
from lsplugin.validation.css_selector import is_scoped
from lsplugin.validation.css_sheet import inline, sheets
from lsplugin.validation.rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsplugin.validation.config import Config

_PAGE = """<View className="mine">
  <Style>
    {css}
  </Style>
  <Text name="prompt" value="$prompt"/>
  <Choices name="verdict" toName="prompt" choice="single-radio" required="true">
    <Choice value="Helpful"/>
    <Choice value="Not helpful"/>
  </Choices>
</View>
"""


def example(css: str) -> str:
    """Give a small complete config with one rule of CSS, for the explanations of rules."""
    return _PAGE.replace("{css}", css)


def _faults(config: Config, rule_id: str, remedy: str) -> Iterator[Finding]:
    parsed = [*sheets(config), *(sheet for _, _, sheet in inline(config))]
    for fault in dict.fromkeys(fault for sheet in parsed for fault in sheet.faults):
        if fault.rule == rule_id:
            yield Finding(fault.line, fault.problem, remedy)


@rule(
    "css-syntax",
    "warning",
    summary="CSS in Style, style and selectionStyle parses.",
    why="A browser skips what it cannot read without a word: a declaration, or a rule with all that it says.",
    bad=example(".mine { padding 8px; }"),
    good=example(".mine { padding: 8px; }"),
)
def _syntax(config: Config) -> Iterator[Finding]:
    yield from _faults(config, "css-syntax", "write it as `name: value;`, rules as `.class { ... }`")


@rule(
    "css-unbalanced",
    "error",
    summary="Every brace, bracket, quote and comment in a Style is opened and closed.",
    why="From a brace left open on, the browser takes the rest of the style for a part of that rule and drops it; a brace too "
    "many takes the next rule with it. Annotators then see the answers without their layout.",
    bad=example(".mine { padding: 8px; .mine p { margin: 0; }"),
    good=example(".mine { padding: 8px; } .mine p { margin: 0; }"),
)
def _unbalanced(config: Config) -> Iterator[Finding]:
    yield from _faults(config, "css-unbalanced", "close each `{`, `(`, quote and `/*` once, where it ends")


@rule(
    "css-escaped",
    "warning",
    summary="CSS in a Style needs no `<`, `>` or `&`, no CDATA section and no tags.",
    why="The editor puts the text of a Style into the page escaped, `>` as `&gt;`: a rule with a child combinator or comparison "
    "never applies, and nesting by `&` means something else. A CDATA section or a tag inside empties the whole Style.",
    bad=example(".mine > p { margin: 0; }"),
    good=example(".mine p { margin: 0; }"),
)
def _escaped(config: Config) -> Iterator[Finding]:
    remedy = "write it without: a descendant selector (a space) for `>`, min-width for `>=`, the full selector for `&`"
    yield from _faults(config, "css-escaped", remedy)
    with_cdata = _styles_with_cdata(config) if "<![CDATA[" in config.text else set()
    for number, style in enumerate(config.styles):
        if number in with_cdata:
            yield Finding(line_of(style), "a CDATA section empties this Style", "write the CSS as plain text")
        if any(isinstance(child.tag, str) for child in style):
            yield Finding(line_of(style), "a tag inside empties this Style", "keep nothing but CSS in it")


def _styles_with_cdata(config: Config) -> set[int]:
    """Give the positions of Styles that hold a CDATA section, which a parser drops unless told to keep it."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, strip_cdata=False)
    try:
        root = etree.fromstring(config.text.encode("utf-8", "surrogatepass"), parser)
    except (etree.XMLSyntaxError, ValueError):
        return set()
    styles = (etree.tostring(style, encoding="unicode", with_tail=False) for style in root.iter("Style"))
    return {number for number, text in enumerate(styles) if "<![CDATA[" in text}


@rule(
    "css-global",
    "warning",
    summary="Each selector starts at a class of the template's own.",
    why="A Style holds for the whole page: `*`, `body`, a bare `p` or `.lsf-...` restyles Label Studio's own menus too.",
    bad=example(".mine { padding: 8px; } p { margin: 0; }"),
    good=example(".mine p { margin: 0; }"),
)
def _global(config: Config) -> Iterator[Finding]:
    ids = frozenset(value for element in config.elements if (value := element.get("idAttr")))
    for sheet in sheets(config):
        for block in sheet.blocks:
            for selector in block.selectors:
                if not is_scoped(selector, ids):
                    yield Finding(
                        selector.line,
                        f"`{selector.text}` reaches beyond this template into all of Label Studio",
                        "start the selector at a class of this config",
                    )


@rule(
    "css-foreign",
    "error",
    summary="CSS loads nothing from other servers.",
    why="Each annotator's browser would call that address: it tells a stranger who labels when, and breaks where it is blocked.",
    bad=example(".mine { background: url(https://example.org/paper.png); }"),
    good=example(".mine { background: url(data:image/gif;base64,R0lGODlhAQABAAAAACw=); }"),
)
def _foreign(config: Config) -> Iterator[Finding]:
    yield from _faults(config, "css-foreign", "paste the rules or the picture itself, as a data: URL")
