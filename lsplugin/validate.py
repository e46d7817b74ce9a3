"""Find what is wrong with a preference config before an annotator does.

Label Studio accepts configs that its editor cannot show, and stores labels that nobody can read back. `validate` parses the
config as the tree that it is, asks every rule below, and reports all issues at once, each with its line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tinycss2
from lxml import etree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Severity = Literal["error", "warning"]

OBJECT_TAGS = frozenset(
    {"Text", "HyperText", "Paragraphs", "Image", "Audio", "Video", "TimeSeries", "List", "Table", "Pdf", "Markdown"}
)
"""Tags that display task data under a name."""

SELECTABLE_TAGS = frozenset({"Text", "HyperText", "Paragraphs", "Image", "Audio", "Video", "TimeSeries"})
"""Objects that a Pairwise can compare: they take its click."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        rule: stable id of the rule, such as `pairwise-targets`.
        severity: `error` where the editor would not work or a label would be lost; `warning` for what is merely unwise.
        line: line in the config, from 1.
        message: what was expected, what came, what to do.
    """

    rule: str
    severity: Severity
    line: int
    message: str


def validate(xml: str) -> list[Issue]:
    """Check a labeling config; return every issue, in the order of its lines. Never raises on any text.

    Args:
        xml: the config as text.
    """
    if issue := _forbidden_prolog(xml):
        return [issue]
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(xml.encode("utf-8", "surrogatepass"), parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        return [Issue("xml-syntax", "error", max(line, 1), f"not well-formed XML: {error.msg} (column {column})")]
    issues = [issue for check in _CHECKS for issue in check(root)]
    return sorted(issues, key=lambda issue: (issue.line, issue.severity, issue.rule))


def has_errors(issues: list[Issue]) -> bool:
    """Say whether any issue would break the editor or lose a label."""
    return any(issue.severity == "error" for issue in issues)


def _forbidden_prolog(xml: str) -> Issue | None:
    """Refuse what must not even be parsed: an empty text, a declaration (Label Studio answers 500), a DOCTYPE."""
    text = xml.lstrip("\ufeff \t\r\n")
    if not text:
        return Issue("xml-syntax", "error", 1, "expected a labeling config, found an empty text")
    if text.startswith("<?xml"):
        return Issue(
            "xml-declaration",
            "error",
            1,
            "Label Studio cannot read a config with an XML declaration: remove the <?xml ...?> line",
        )
    head, _, _ = text.partition("<!DOCTYPE")
    if head != text:
        return Issue(
            "doctype",
            "error",
            xml.count("\n", 0, xml.find("<!DOCTYPE")) + 1,
            "Label Studio refuses a DOCTYPE: remove it",
        )
    return None


def _tags(root: etree._Element) -> Iterator[etree._Element]:
    return (element for element in root.iter() if isinstance(element.tag, str))


def _line(element: etree._Element) -> int:
    line: int | None = element.sourceline  # type: ignore[assignment]
    return line or 1


def _root_tag(root: etree._Element) -> Iterator[Issue]:
    if root.tag != "View":
        yield Issue("root-view", "error", _line(root), f"the outermost tag must be <View>, found <{root.tag}>")


def _names(root: etree._Element) -> Iterator[Issue]:
    seen: dict[str, int] = {}
    for element in _tags(root):
        name = element.get("name")
        if element.tag in OBJECT_TAGS | {"Pairwise"} and not name:
            yield Issue(
                "name-missing",
                "error",
                _line(element),
                f"<{element.tag}> needs a name: without one its labels cannot be stored",
            )
        if name and name in seen:
            yield Issue(
                "name-duplicate",
                "error",
                _line(element),
                f'the name "{name}" is taken on line {seen[name]}: choose another',
            )
        elif name:
            seen[name] = _line(element)


def _values(root: etree._Element) -> Iterator[Issue]:
    for element in _tags(root):
        value = element.get("value")
        if element.tag in OBJECT_TAGS and not value:
            yield Issue(
                "value-missing", "error", _line(element), f'<{element.tag}> shows nothing: give it value="$field"'
            )
        elif element.tag in OBJECT_TAGS and value is not None and "$" not in value:
            yield Issue(
                "value-constant",
                "error",
                _line(element),
                f'value="{value}" shows the same text in every task: write value="${value}" to show the field {value}',
            )


def _pairwise(root: etree._Element) -> Iterator[Issue]:
    objects = {element.get("name"): element for element in _tags(root) if element.tag in OBJECT_TAGS}
    controls = [element for element in _tags(root) if element.tag == "Pairwise"]
    if not any(element.get("toName") for element in _tags(root)):
        yield Issue(
            "no-control", "error", _line(root), "nothing to label with: add a control such as <Pairwise> to the config"
        )
    for control in controls:
        yield from _pairwise_targets(control, objects)
        useless = [name for name in control.attrib if name in _IGNORED_ON_PAIRWISE]
        if useless:
            yield Issue(
                "pairwise-ignored",
                "warning",
                _line(control),
                f"Pairwise ignores {', '.join(map(str, useless))}: remove it; it does not do what its name says",
            )


_IGNORED_ON_PAIRWISE = frozenset({"required", "requiredMessage", "hotkey", "visibleWhen", "leftClass", "rightClass"})


def _pairwise_targets(control: etree._Element, objects: dict[str | None, etree._Element]) -> Iterator[Issue]:
    line = _line(control)
    to_name = control.get("toName", "")
    targets = to_name.split(",")
    if any(target != target.strip() for target in targets):
        yield Issue(
            "pairwise-spaces",
            "error",
            line,
            f'toName="{to_name}": remove the spaces; Label Studio takes them as part of a name',
        )
    targets = [target.strip() for target in targets if target.strip()]
    if len(targets) != 2:
        yield Issue(
            "pairwise-targets",
            "error",
            line,
            f'Pairwise compares exactly two objects, toName="{to_name}" names {len(targets)}: write toName="answer1,answer2"',
        )
    elif targets[0] == targets[1]:
        yield Issue(
            "pairwise-targets",
            "error",
            line,
            f'Pairwise compares "{targets[0]}" with itself: name two different objects',
        )
    for target in dict.fromkeys(targets):
        if target not in objects:
            known = ", ".join(sorted(str(name) for name in objects if name)) or "none"
            yield Issue(
                "target-missing",
                "error",
                line,
                f'toName names "{target}", which no object has; the objects are: {known}',
            )
        elif objects[target].tag not in SELECTABLE_TAGS:
            yield Issue(
                "target-unselectable",
                "error",
                line,
                f'"{target}" is a <{objects[target].tag}>, which takes no click: compare <Text> objects instead',
            )


def _style(root: etree._Element) -> Iterator[Issue]:
    for style in root.iter("Style"):
        first_line = _line(style)
        for rule in tinycss2.parse_stylesheet(style.text or "", skip_comments=True, skip_whitespace=True):
            line = first_line + rule.source_line - 1
            if rule.type == "error":
                yield Issue("css-syntax", "warning", line, f"this CSS does not parse: {rule.message}")
            elif rule.type == "at-rule" and rule.lower_at_keyword == "import":
                yield Issue(
                    "css-foreign",
                    "error",
                    line,
                    "@import loads CSS from elsewhere into every annotator's browser: paste the rules",
                )
                continue
            elif rule.type == "qualified-rule":
                yield from _selectors(rule, line)
            yield from _foreign_urls(rule, line)


def _selectors(rule: tinycss2.ast.QualifiedRule, line: int) -> Iterator[Issue]:
    if any(part.type == "literal" and part.value == ">" for part in rule.prelude):
        yield Issue(
            "css-escaped",
            "warning",
            line,
            "Style text reaches the browser escaped, `>` as `&gt;`, and this rule is lost: use a descendant selector",
        )
    for selector in tinycss2.serialize(rule.prelude).split(","):
        words = selector.split()
        if words and words[0].lower() in {"*", "body", "html", ":root"}:
            yield Issue(
                "css-global",
                "warning",
                line,
                f"`{selector.strip()}` restyles all of Label Studio, not this template alone: start the rule at a class of yours",
            )


def _foreign_urls(node: object, line: int) -> Iterator[Issue]:
    """Walk a CSS node for url(...) that leaves the page."""
    for part in [*(getattr(node, "prelude", None) or []), *(getattr(node, "content", None) or [])]:
        arguments = getattr(part, "arguments", None) or []
        address = getattr(part, "value", "") if getattr(part, "type", "") == "url" else ""
        if getattr(part, "lower_name", "") == "url":
            address = "".join(str(getattr(argument, "value", "")) for argument in arguments)
        if address and not address.startswith(("data:", "#")):
            yield Issue(
                "css-foreign",
                "error",
                line,
                f"url({address}) makes every annotator's browser call another address: use a data: URL",
            )
        yield from _foreign_urls(part, line)


def _sample_data(root: etree._Element) -> Iterator[Issue]:
    """Check the `<!-- {"data": ...} -->` comment that Label Studio's preview reads."""
    comments = [*root.itersiblings(etree.Comment), *root.iter(etree.Comment)]
    for comment in comments:
        text = (comment.text or "").strip()
        if not text.startswith("{"):
            continue
        try:
            sample = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Issue(
                "sample-data", "warning", _line(comment), f"the sample task in this comment is not JSON: {error}"
            )
            continue
        data = sample.get("data") if isinstance(sample, dict) else None
        if not isinstance(data, dict):
            continue
        missing = [name for name in variables(root) if name not in data]
        if missing:
            yield Issue(
                "sample-data",
                "warning",
                _line(comment),
                f"the sample task lacks {', '.join(missing)}: add it for the preview",
            )


def variables(root: etree._Element) -> list[str]:
    """Names of the task fields that a config displays: the x of every value="$x", in document order."""
    found = [
        value[1:]
        for element in _tags(root)
        for value in [element.get("value") or ""]
        if element.tag in OBJECT_TAGS and value.startswith("$")
    ]
    return list(dict.fromkeys(found))


_CHECKS: tuple[Callable[[etree._Element], Iterator[Issue]], ...] = (
    _root_tag,
    _names,
    _values,
    _pairwise,
    _style,
    _sample_data,
)
