"""Spec -> lxml tree -> labeling config. Markup is never glued from strings: lxml is the one place that escapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin import controls
from lsplugin.answers import set_answers
from lsplugin.errors import LspluginError
from lsplugin.files import read_json, read_text
from lsplugin.markup import element, safe_text, shown_text
from lsplugin.template import Spec, templates_folder

if TYPE_CHECKING:
    from pathlib import Path


def render(spec: Spec | None = None, *, sample: dict[str, Any] | None = None) -> str:
    """Render a Label Studio labeling config, with its theme in a Style tag and a sample task in the closing comment.

    Args:
        spec: what to ask; the default is two answers side by side.
        sample: the task that Label Studio shows in its preview; the template's own when None.

    Returns:
        XML text without a declaration (Label Studio answers 500 to one), ending in a newline.

    Raises:
        LspluginError: options that this template cannot hold, or a template, theme or CSS file with errors.
    """
    spec = spec or Spec()
    root = build(spec)
    etree.indent(root)
    text = etree.tostring(root, encoding="unicode") + "\n"
    text += _sample_comment(_shown(sample, root) if sample is not None else sample_task(spec))
    if spec.own_files:
        from lsplugin.check import check_config

        check_config(text, what=f"the config made of {spec.folder} and {spec.stylesheet}")
    return text


def build(spec: Spec) -> etree._Element:
    """Build the config's tree: the skeleton, with the answers, controls and texts of the spec, and its Style as first child.

    Raises:
        LspluginError: options that this template cannot hold, or a skeleton that is not XML.
    """
    skeleton = spec.folder / "config.xml"
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, remove_pis=True)
    try:
        root = etree.fromstring(read_text(skeleton).encode(), parser)
    except etree.XMLSyntaxError as error:
        raise LspluginError(f"{skeleton}: not well-formed XML: {error.msg}") from None
    set_answers(root, spec)
    controls.add(root, spec)
    if spec.question is not None:
        _set_question(root, spec.question)
    root.insert(0, _style(root, spec))
    return root


def sample_task(spec: Spec | None = None) -> dict[str, Any]:
    """Give a sample task with every field that the spec's config displays."""
    spec = spec or Spec()
    return _shown(_sample(spec), build(spec))


def _sample(spec: Spec) -> dict[str, Any]:
    """Give the template's sample under the spec's field names, with as many answers as the spec has."""
    path = spec.folder / "sample.json"
    sample: dict[str, Any] = dict(read_json(path)) if path.is_file() else {}
    renamed = {"prompt": spec.prompt_field}
    renamed |= {f"answer{number}": field for number, field in enumerate(spec.fields, start=1)}
    own = {name: value for name, value in sample.items() if name not in renamed and not _is_answer(name)}
    texts = {field: sample.get(name, f"Text of {name}.") for name, field in renamed.items()}
    return texts | own


def _is_answer(name: str) -> bool:
    return name.removeprefix("answer").isdigit()


def _shown(sample: dict[str, Any], root: etree._Element) -> dict[str, Any]:
    from lsplugin.prepare import prepare

    return prepare(sample, root)


def _style(root: etree._Element, spec: Spec) -> etree._Element:
    """Make the Style: the sheets of the classes that the config has, the template's own, the theme, the user's."""
    classes = {name for view in root.iter("View") for name in view.get("className", "").split()}
    shared = sorted((path for path in (templates_folder() / "css").glob("*.css") if path.stem in classes), key=_stem)
    own = [path for path in [spec.folder / "style.css"] if path.is_file()]
    sheets = [*shared, *own, spec.stylesheet, *spec.css]
    style = element("Style")
    style.text = "\n" + "".join(safe_text(read_text(sheet), str(sheet)).strip() + "\n" for sheet in sheets)
    return style


def _stem(path: Path) -> str:
    return path.stem  # the root class comes before those that refine it


def _set_question(root: etree._Element, question: str) -> None:
    header = next((found for found in root.iter("Header") if found.get("size") == "5"), root.find(".//Header"))
    if header is None:
        raise LspluginError("--question: this template has no Header to put the question in")
    header.set("value", shown_text(question, "--question"))


def _sample_comment(sample: dict[str, Any]) -> str:
    r"""Make the comment `<!-- {"data": {...}} -->` safe for any text.

    XML comments end at `--`; every hyphen after a hyphen is written as the JSON escape \u002d, which reads back equal. Control
    characters and lone surrogates are escaped by JSON itself.
    """
    data = json.dumps({"data": sample}, ensure_ascii=True, indent=2)
    return f"<!-- {data.replace('--', '-' + chr(92) + 'u002d')} -->\n"
