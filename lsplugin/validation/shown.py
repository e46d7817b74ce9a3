"""Rules about what is shown: the tasks' data, the sample task of the preview, HTML."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.markup import OBJECT_TAGS, attributes_of
from lsplugin.validation.config import Config, in_html, line_of, variables
from lsplugin.validation.examples import PAGE, page_with
from lsplugin.validation.rule import Finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

_GOOD_ROW = '{"prompt": "Why is the sky blue?", "answer1": "Because of scattering.", "answer2": "Nobody knows."}'
_MODELS = r"(?:gpt-?\d[\w.-]*|chatgpt|claude|llama[ -]?\d[\w.]*|mistral|mixtral|gemini|gemma|qwen[\w.]*|deepseek|pythia|vicuna)"
_NAMES_A_MODEL = re.compile(
    rf"\W*(?:(?:as|i am|i'm|answer (?:by|of|from)|model)\W+)?(?:an? )?{_MODELS}\b\s*[:,.)\]-]", re.IGNORECASE
)
"""A text that begins with who wrote it: `GPT-4: ...`, `As ChatGPT, ...`."""

_ACTIVE = frozenset({"script", "iframe", "object", "embed", "form", "link", "meta", "base", "svg", "style"})


def _shown(config: Config) -> list[tuple[etree._Element, str]]:
    """Every object that shows a field, the first of each field, with the field's name."""
    found: dict[str, etree._Element] = {}
    for element in config.elements:
        value = element.get("value") or ""
        if element.tag in OBJECT_TAGS and re.fullmatch(r"\$\w+", value):
            found.setdefault(value[1:], element)
    return [(element, field) for field, element in found.items()]


@rule(
    "task-field-missing",
    "error",
    summary="Every task has every field that the config shows.",
    why="The server refuses the import, and names neither task nor file.",
    bad='{"prompt": "Why is the sky blue?", "answer1": "Because of scattering."}',
    good=_GOOD_ROW,
    shows="task",
)
def _missing(config: Config) -> Iterator[Finding]:
    for row, task in enumerate(config.tasks, start=1):
        for element, field in _shown(config):
            if field not in task:
                has = ", ".join(task) or "no fields"
                yield Finding(line_of(element), f"the task has no field {field} (it has {has})", "add it", row=row)


@rule(
    "task-field-empty",
    "error",
    summary="No field that is shown is empty.",
    why="The server imports it, and an annotator is asked about nothing.",
    bad='{"prompt": "Why is the sky blue?", "answer1": "Because of scattering.", "answer2": ""}',
    good=_GOOD_ROW,
    shows="task",
)
def _empty(config: Config) -> Iterator[Finding]:
    for row, task in enumerate(config.tasks, start=1):
        for element, field in _shown(config):
            value = task.get(field, "missing")
            if value is None or value == [] or (isinstance(value, str) and not value.strip()):
                what = "null" if value is None else "empty"
                yield Finding(
                    line_of(element), f"the field {field} is {what}", "fill it, or leave the task out", row=row
                )


def _wrong_type(element: etree._Element, value: object) -> str | None:
    """Say what a field should be when it is something else."""
    if element.tag == "List":
        good = isinstance(value, list) and all(isinstance(item, dict) and "id" in item for item in value)
        return None if good else 'a list of items, each {"id": ..., "title": ...}'
    if element.tag == "Paragraphs" and element.get("valueType") != "url":
        keys = (element.get("nameKey") or "author", element.get("textKey") or "text")
        good = isinstance(value, list) and all(isinstance(item, dict) and keys[1] in item for item in value)
        return None if good else f'a list of messages, each {{"{keys[0]}": ..., "{keys[1]}": ...}}'
    if element.tag in {"Text", "HyperText"} and not isinstance(value, str | int | float):
        return "text"
    return None


@rule(
    "task-field-type",
    "error",
    summary="Every field is what its tag shows: text, a list of messages, a list of items.",
    why="The editor shows `[object Object]`, or an error.",
    bad='{"prompt": "Why is the sky blue?", "answer1": {"text": "Because of scattering."}, "answer2": "Nobody knows."}',
    good=_GOOD_ROW,
    shows="task",
)
def _type(config: Config) -> Iterator[Finding]:
    for row, task in enumerate(config.tasks, start=1):
        for element, field in _shown(config):
            value = task.get(field)
            if value is not None and value != [] and (wanted := _wrong_type(element, value)):
                problem = f"the field {field} is {_kind(value)}, and <{element.tag}> shows {wanted}"
                yield Finding(line_of(element), problem, "change it in the dataset", row=row)


def _kind(value: object) -> str:
    return {str: "text", dict: "an object", list: "a list", bool: "true or false"}.get(type(value), "a number")


@rule(
    "task-answers-identical",
    "error",
    summary="The answers of a task differ.",
    why="Between two equal answers every choice is noise.",
    bad='{"prompt": "Why is the sky blue?", "answer1": "Nobody knows.", "answer2": "Nobody knows."}',
    good=_GOOD_ROW,
    shows="task",
)
def _identical(config: Config) -> Iterator[Finding]:
    for element, fields in _compared(config):
        for row, task in enumerate(config.tasks, start=1):
            texts = [task[field] for field in fields if isinstance(task.get(field), str) and task[field].strip()]
            if len(set(texts)) < len(texts):
                same = [field for field in fields if texts.count(task.get(field)) > 1]
                yield Finding(line_of(element), f"{' and '.join(same)} are identical", "leave the task out", row=row)


def _compared(config: Config) -> Iterator[tuple[etree._Element, list[str]]]:
    """Yield what compares, and the fields that it compares: each Pairwise; without one, the objects answer1, answer2, ..."""
    fields = {element.get("name") or "": field for element, field in _shown(config)}
    controls = [element for element in config.elements if element.tag == "Pairwise"]
    for control in controls:
        yield control, [fields[name] for name in (control.get("toName") or "").split(",") if name in fields]
    answers = [name for name in fields if name.removeprefix("answer").isdigit()]
    if not controls and answers:
        yield config.names[answers[0]], [fields[name] for name in answers]


@rule(
    "task-not-blind",
    "warning",
    summary="Nothing that is shown tells which model wrote an answer.",
    why="Annotators who know the model judge the model. Provenance belongs into the task's meta.",
    bad='{"prompt": "Why is the sky blue?", "answer1": "GPT-4: because of scattering.", "answer2": "Nobody knows."}',
    good=_GOOD_ROW,
    shows="task",
)
def _not_blind(config: Config) -> Iterator[Finding]:
    for element, field in _shown(config):
        if re.fullmatch(r"(?:\w+_)?model(?:_?name|_?id|_?\w)?", field, re.IGNORECASE):
            yield Finding(line_of(element), f"it shows the field {field}", "keep models in the task's meta")
            continue
        for row, task in enumerate(config.tasks, start=1):
            value = task.get(field)
            if field != "prompt" and isinstance(value, str) and (found := _NAMES_A_MODEL.match(value)):
                problem = f'the field {field} begins with who wrote it: "{found[0].strip()}"'
                yield Finding(line_of(element), problem, "cut it out of the answer", row=row)


@rule(
    "sample-data",
    "warning",
    summary="The sample task behind the config is JSON and has every field.",
    why="Label Studio's preview shows it; without it the preview is empty or invents texts.",
    bad=PAGE + '<!-- {"data": {"prompt": "Why?", "answer1": "Because."}} -->\n',
    good=PAGE + '<!-- {"data": {"prompt": "Why?", "answer1": "Because.", "answer2": "No."}} -->\n',
)
def _sample(config: Config) -> Iterator[Finding]:
    for comment in [*config.root.itersiblings(etree.Comment), *config.root.iter(etree.Comment)]:
        text = (comment.text or "").strip()
        if not text.startswith("{"):
            continue
        try:
            sample: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Finding(line_of(comment), f"the sample task is not JSON: {error}", "correct it")
            continue
        data = sample.get("data") if isinstance(sample, dict) else None
        missing = [name for name in variables(config.root) if name not in data] if isinstance(data, dict) else []
        if missing:
            yield Finding(line_of(comment), f"the sample task lacks {', '.join(missing)}", "add it for the preview")


def _dangers(html: etree._Element) -> Iterator[tuple[int, str]]:
    """Yield what in a tree of HTML runs code or loads from elsewhere."""
    for part in html.iter():
        if not isinstance(part.tag, str):
            continue
        if part.tag.lower() in _ACTIVE:
            yield line_of(part), f"<{part.tag}>"
        for name, value in attributes_of(part).items():
            text = value.strip().lower()
            if name.lower().startswith("on"):
                yield line_of(part), f"{name}="
            elif text.startswith(("javascript:", "vbscript:")) or (name in {"src", "srcset"} and "//" in text):
                yield line_of(part), f'{name}="{text[:40]}"'


@rule(
    "html-unsafe",
    "error",
    summary="HTML in a config runs no code and loads nothing from elsewhere.",
    why="It would run, or call out, in the browser of every annotator.",
    bad=page_with('<HyperText name="note"><b>Read</b><script>alert(1)</script></HyperText>'),
    good=page_with('<HyperText name="note"><b>Read</b></HyperText>'),
)
def _html(config: Config) -> Iterator[Finding]:
    for element in config.elements:
        if in_html(element):
            continue
        remedy = "remove it"
        if element.tag == "HyperText":
            for line, what in dict.fromkeys(found for child in element for found in _dangers(child)):
                yield Finding(line, f"{what} inside <HyperText>", remedy)
        for attribute in ("value", "html", "hint"):
            written = element.get(attribute) or ""
            if "<" in written:
                tree = _parsed(written)
                for what in dict.fromkeys(what for _, what in (_dangers(tree) if tree is not None else ())):
                    yield Finding(line_of(element), f"{what} in the {attribute} of <{element.tag}>", remedy)


def _parsed(html: str) -> etree._Element | None:
    try:
        return etree.fromstring(html, etree.HTMLParser(no_network=True))
    except (etree.XMLSyntaxError, ValueError):
        return None
