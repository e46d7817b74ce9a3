"""Rules about tags, attributes, names and values."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.validation.config import Config, line_of
from lsplugin.validation.examples import PAGE, page, page_with
from lsplugin.validation.rule import Finding, rule
from lsplugin.validation.vocabulary import SINCE, vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_XINCLUDE = "{http://www.w3.org/2001/XInclude}"
_INSIDE = {"Choice": {"Choices", "Choice", "Taxonomy"}, "Bucket": {"Ranker"}, "Panel": {"Collapse"}}
"""Tags that mean nothing but inside these."""


def guess(written: str, known: Iterable[str]) -> str | None:
    """Guess what was meant; None when nothing is near."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(written.lower(), list(lower), n=1, cutoff=0.7)
    return lower[close[0]] if close else None


@rule(
    "root-view",
    "error",
    summary="The outermost tag is `<View>`.",
    why="The editor builds the page from the outermost View and shows an error for any other tag.",
    bad=PAGE.replace("View>", "Collapse>"),
    good=PAGE,
)
def _root(config: Config) -> Iterator[Finding]:
    if config.root.tag != "View":
        yield Finding(
            line_of(config.root), f"the outermost tag is <{config.root.tag}>", "put everything into one <View>"
        )


@rule(
    "xinclude",
    "error",
    summary="A config includes no other files.",
    why="Neither server nor editor resolves XInclude, and a server that did would read files for whoever writes configs.",
    bad=page_with('<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="more.xml"/>'),
    good=PAGE,
)
def _xinclude(config: Config) -> Iterator[Finding]:
    for element in config.elements:
        if str(element.tag).startswith(_XINCLUDE):
            yield Finding(line_of(element), "an XInclude, which nothing resolves", "paste what it would include")


@rule(
    "processing-instruction",
    "error",
    summary="A config has no processing instructions.",
    why="The editor reads a config as tags alone; `<?xml-stylesheet ...?>` and its like are lost or break it.",
    bad='<?xml-stylesheet href="style.css"?>\n' + PAGE,
    good=PAGE,
)
def _processing_instruction(config: Config) -> Iterator[Finding]:
    before = config.root.itersiblings(etree.PI, preceding=True)
    for found in [*before, *config.root.iter(etree.PI), *config.root.itersiblings(etree.PI)]:
        yield Finding(
            line_of(found),
            f"a processing instruction, {etree.tostring(found, with_tail=False).decode()[:60]}",
            "remove it; CSS belongs in <Style>",
        )


@rule(
    "tag-unknown",
    "error",
    summary="Every tag is one that Label Studio knows.",
    why="The server accepts any tag; the editor answers `Not expecting tag` and shows nothing of the task.",
    bad=page("<Pairwise ", "<Pairwize "),
    good=PAGE,
)
def _tag_unknown(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    for element in config.own:
        tag = str(element.tag)
        if tag not in known.tags and tag.lower() not in known.registered:
            near = guess(tag, known.tags)
            remedy = "correct it" if near else "show text with <Text> or <Header>, and lay out with <View>"
            yield Finding(line_of(element), f"<{tag}> is no tag of Label Studio", remedy, f"<{near}>" if near else None)


@rule(
    "tag-case",
    "warning",
    summary="Tags are written as documented: `<TextArea>`, not `<Textarea>`.",
    why="The editor reads any case; exporters, the SDK and people searching for the tag do not.",
    bad=page("<Pairwise ", "<pairwise "),
    good=PAGE,
)
def _tag_case(config: Config) -> Iterator[Finding]:
    for element, attribute, written in config.miscased:
        if attribute is None:
            yield Finding(line_of(element), f"<{written}>", f"write <{element.tag}>")


@rule(
    "tag-enterprise",
    "error",
    summary="Every tag is one that the open-source editor can show.",
    why="The server accepts Enterprise's tags; the open-source editor answers `Not expecting tag`.",
    bad=page_with('<Chat name="chat" value="$messages"/>'),
    good=page_with('<Paragraphs name="chat" value="$messages" layout="dialogue" nameKey="role" textKey="content"/>'),
)
def _tag_enterprise(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    for element in config.own:
        if element.tag in known.tags and str(element.tag).lower() not in known.registered:
            instead = "show conversations with <Paragraphs>" if element.tag == "Chat" else "remove it"
            yield Finding(line_of(element), f"<{element.tag}> is not in the open-source editor", instead)


@rule(
    "tag-too-new",
    "error",
    summary="Every tag is in the Label Studio that the config is meant for (`--server-version`).",
    why="An older editor answers `Not expecting tag`.",
    bad=page_with("<!-- for 1.20 -->", '<Markdown value="Read **both**."/>'),
    good=page_with('<Header value="Read both."/>'),
)
def _tag_too_new(config: Config) -> Iterator[Finding]:
    if config.server_version is None:
        return
    for element in config.elements:
        since = SINCE.get(str(element.tag))
        if since is not None and config.server_version < since:
            first, asked = (".".join(map(str, number)) for number in (since, config.server_version))
            yield Finding(
                line_of(element), f"<{element.tag}> came with {first}, this is for {asked}", "update, or do without"
            )


@rule(
    "tag-misplaced",
    "error",
    summary="Choice stands in Choices, Bucket in Ranker, Panel in Collapse, and no Markdown in a Panel.",
    why="Elsewhere the editor answers `Not expecting tag` or shows nothing in their place.",
    bad=page_with('<Collapse><Panel value="Rules"><Markdown value="Read **both**."/></Panel></Collapse>'),
    good=page_with('<Collapse><Panel value="Rules"><Header value="Read both."/></Panel></Collapse>'),
)
def _tag_misplaced(config: Config) -> Iterator[Finding]:
    for element in config.own:
        parent = element.getparent()
        around = str(parent.tag) if parent is not None else "nothing"
        wanted = _INSIDE.get(str(element.tag))
        if wanted is not None and around not in wanted:
            places = " or ".join(f"<{tag}>" for tag in sorted(wanted))
            yield Finding(line_of(element), f"<{element.tag}> inside {around}", f"put it into {places}")
        elif element.tag == "Markdown" and any(above.tag == "Panel" for above in element.iterancestors()):
            yield Finding(
                line_of(element), "<Markdown> inside <Panel>, which the editor refuses", "use <Header> or <HyperText>"
            )


@rule(
    "attribute-unknown",
    "warning",
    summary="Every attribute is one that its tag has.",
    why="Nobody tells of an attribute that does nothing: the config looks right and behaves otherwise.",
    bad=page_with('<TextArea name="reason" toName="prompt" placehoder="Why?"/>'),
    good=page_with('<TextArea name="reason" toName="prompt" placeholder="Why?"/>'),
)
def _attribute_unknown(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    for element in config.own:
        tag = str(element.tag)
        if tag not in known.tags:
            continue
        attributes = known.attributes(tag)
        for name in map(str, element.attrib):
            if name not in attributes and not name.startswith("{"):
                near = guess(name, attributes)
                others = [other for other, own in known.tags.items() if name in own]
                owner = f"; it belongs to <{others[0]}>" if others and not near else ""
                yield Finding(line_of(element), f"<{tag}> has no attribute {name}{owner}", "correct or remove it", near)


@rule(
    "attribute-case",
    "warning",
    summary="Attributes are written as documented: `toName`, not `toname`.",
    why="The editor reads any case; server, exporters and SDK look for the documented one.",
    bad=page("requ", "Requ"),
    good=PAGE,
)
def _attribute_case(config: Config) -> Iterator[Finding]:
    for element, attribute, written in config.miscased:
        if attribute is not None:
            yield Finding(line_of(element), f"{written} on <{element.tag}>", f"write {attribute}")


def _fits(value: str, kind: Any) -> bool:  # noqa: ANN401 - a type of the schema
    if isinstance(kind, list):
        return value.lower() in kind or bool({"string", *(["number"] if _is_number(value) else [])} & set(kind))
    return kind not in {"number", "int", "float"} or _is_number(value)


def _is_number(value: str) -> bool:
    try:
        float(value.removesuffix("px").removesuffix("%"))
    except ValueError:
        return False
    return True


@rule(
    "attribute-value",
    "error",
    summary="Attributes have values that they can have: `true`, a number, one of a list.",
    why="The editor shows an error, or takes another value without a word: a `required` of neither forces nothing.",
    bad=page('choice="single-radio"', 'choice="one"'),
    good=PAGE,
)
def _attribute_value(config: Config) -> Iterator[Finding]:
    known = vocabulary()
    for element in config.own:
        for name, kind in known.tags.get(str(element.tag), {}).items():
            value = element.get(name)
            if value is None or "$" in value or _fits(value, kind):
                continue
            wanted = f"one of {', '.join(kind)}" if isinstance(kind, list) else "a number"
            near = guess(value, kind) if isinstance(kind, list) else None
            yield Finding(line_of(element), f'{name}="{value}" on <{element.tag}>', f"write {wanted}", near)
