"""Spec -> lxml tree -> labeling config. Markup is never glued from strings: lxml is the one place that escapes."""

from __future__ import annotations

import json
from typing import Any

from lxml import etree

from lsplugin.errors import LspluginError
from lsplugin.files import read_json, read_text
from lsplugin.template import Spec


def render(spec: Spec | None = None, *, sample: dict[str, Any] | None = None) -> str:
    """Render a Label Studio labeling config, with its theme in a Style tag and a sample task in the closing comment.

    Args:
        spec: what to ask; the default is two answers side by side.
        sample: the task that Label Studio shows in its preview; the template's own when None.

    Returns:
        XML text without a declaration (Label Studio answers 500 to one), ending in a newline.
    """
    spec = spec or Spec()
    root = build(spec)
    text = etree.tostring(root, encoding="unicode", pretty_print=True)
    return text + _sample_comment(sample if sample is not None else sample_task(spec))


def build(spec: Spec) -> etree._Element:
    """Build the config's tree: the skeleton, with the theme as its first child and the spec's texts filled in."""
    root = etree.fromstring(read_text(spec.skeleton), etree.XMLParser(resolve_entities=False, no_network=True))
    style = etree.Element("Style")
    style.text = "\n" + read_text(spec.stylesheet)
    style.tail = root.text
    root.insert(0, style)
    if spec.question is not None:
        _set_question(root, spec.question)
    return root


def sample_task(spec: Spec | None = None) -> dict[str, Any]:
    """Give the template's sample task: the fields that its config displays."""
    sample: dict[str, Any] = read_json((spec or Spec()).sample)
    return sample


def _set_question(root: etree._Element, question: str) -> None:
    header = root.find(".//Header")
    if header is None:
        raise LspluginError("this template has no Header to put the question in")
    try:
        header.set("value", question)
    except ValueError:
        raise LspluginError("--question: control characters cannot stand in XML; remove them") from None


def _sample_comment(sample: dict[str, Any]) -> str:
    r"""Make the comment `<!-- {"data": {...}} -->` safe for any text.

    XML comments end at `--`; every hyphen after a hyphen is written as the JSON escape \u002d, which reads back equal. Control
    characters and lone surrogates are escaped by JSON itself.
    """
    data = json.dumps({"data": sample}, ensure_ascii=True, indent=2)
    return f"<!-- {data.replace('--', '-' + chr(92) + 'u002d')} -->\n"
