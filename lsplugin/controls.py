"""The controls beside the comparison: ties, strength, reasons, criteria, rewrites, flags, instructions.

Pairwise can be left without a choice and knows no tie. Its companion, the required row `verdict`, says what the click means:

    better, slightly, clearly, much   the clicked answer is better, by so much
    tie, both-bad                     no preference, whatever was clicked
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.answers import ANSWER_CLASS, letter
from lsplugin.errors import LspluginError
from lsplugin.files import read_text
from lsplugin.markup import attributes_of, element, shown_text
from lsplugin.template import CONTROL, slug

if TYPE_CHECKING:
    from lxml import etree

    from lsplugin.template import Spec

VERDICT = "verdict"
CRITERION = "criterion-"
REWRITE = "rewrite_answer"
STRENGTHS = {"slightly": "Slightly better", "clearly": "Clearly better", "much": "Much better"}
"""How much better, weakest first: what is stored -> what is shown."""

FLAGS = {"unsafe": "Unsafe or harmful", "needs-expert": "Needs an expert"}
"""Flags: what is stored -> what is shown."""


def add(root: etree._Element, spec: Spec) -> None:
    """Add to a skeleton what the spec asks besides the comparison.

    Raises:
        LspluginError: an option that this template has no place for.
    """
    _set_verdicts(root, spec)
    if spec.criteria:
        _add_criteria(root, spec)
    if spec.rewrite:
        _add_rewrites(root, spec)
    if spec.reasons:
        choices = {slug(label): label for label in spec.reasons}
        root.append(_control("Why?", _choices("reasons", choices, choice="multiple")))
    if spec.reason:
        root.append(_control("Why? In your own words.", _text_area("reason", "prompt", "The reason for your choice")))
    if spec.flag:
        root.append(_control("Anything wrong with this task?", _choices("flags", FLAGS, choice="multiple")))
    if spec.instructions is not None:
        root.insert(0, _instructions(read_text(spec.instructions)))


def _set_verdicts(root: etree._Element, spec: Spec) -> None:
    """Fill the row of verdicts: the template's `verdict`, or the scale itself."""
    row = root.find(f".//Choices[@name='{VERDICT}']")
    if row is None:
        row = root.find(f".//Choices[@name='{CONTROL}']")
    if not spec.tie:
        _drop_tie(row, spec)
    if spec.strength:
        _add_strengths(row, spec)
    if spec.both_bad:
        if row is None:
            raise _no_place("--both-bad", spec)
        label = "Both are bad" if spec.answers == 2 else "All are bad"
        row.append(element("Choice", value=label, alias="both-bad"))
    if row is None:
        return
    if [choice.get("alias") for choice in row] == ["better"]:  # nothing to say that the click does not
        _remove(row)
        return
    for number, choice in enumerate(row, start=1):
        choice.set("hotkey", str(number))


def _drop_tie(row: etree._Element | None, spec: Spec) -> None:
    tie = row.find("Choice[@alias='tie']") if row is not None else None
    if row is None or tie is None:
        raise _no_place("--no-tie", spec)
    row.remove(tie)


def _add_strengths(row: etree._Element | None, spec: Spec) -> None:
    if row is not None and row.find("Choice[@alias='left-much']") is not None:
        return  # a scale asks for the strength already
    better = row.find("Choice[@alias='better']") if row is not None else None
    if row is None or better is None:
        raise _no_place("--strength", spec)
    for alias, label in STRENGTHS.items():
        better.addprevious(element("Choice", value=label, alias=alias))
    row.remove(better)


def _add_criteria(root: etree._Element, spec: Spec) -> None:
    """Ask each criterion on its own: with stars where the template rates, else by a row over the answers."""
    stars = [view for view in root.iter("View") if view.find("Rating") is not None]
    if stars:
        for view in stars:
            _add_stars(view, spec.criteria)
        return
    for label in spec.criteria:
        message = shown_text(f"Say which answer is better: {label}.", "--criteria")
        row = _choices(CRITERION + slug(label), _sides(root, spec), required="true", requiredMessage=message)
        root.append(_control(f"Better in this respect: {label}", row))


def _sides(root: etree._Element, spec: Spec) -> dict[str, str]:
    """Give what a criterion may find better: left or right where two answers stand still, else a box by its letter."""
    if spec.answers == 2 and root.find(".//Ranker") is None:
        return {"left": "Left", "tie": "About the same", "right": "Right"}
    boxes = {letter(index): f"Answer {letter(index)}" for index in range(spec.answers)}
    return boxes | {"tie": "About the same"}


def _add_stars(view: etree._Element, criteria: tuple[str, ...]) -> None:
    """Replace an answer's overall rating by one for each criterion."""
    rating = view.find("Rating")
    assert rating is not None
    target, parent = rating.get("toName", ""), view.getparent()
    assert parent is not None
    place = parent.index(view)
    parent.remove(view)
    for index, label in enumerate(criteria):
        attributes = attributes_of(rating)
        attributes["name"] = f"{slug(label)}_{target}"
        attributes["requiredMessage"] = shown_text(f"Rate every answer: {label}.", "--criteria")
        title = element("Header", value=shown_text(label, "--criteria"), size="6")
        parent.insert(
            place + index, element("View", title, element("Rating", **attributes), className="lsplugin-stars")
        )


def _add_rewrites(root: etree._Element, spec: Spec) -> None:
    """Under each answer a folded copy of it to edit; stored unedited it means: not rewritten."""
    for number, field in enumerate(spec.fields, start=1):
        name = f"answer{number}"
        area = _text_area(f"{REWRITE}{number}", name, "", value=f"${field}")
        box = next(
            (view for view in root.find(f".//*[@name='{name}']").iterancestors("View") if _is_box(view)),  # type: ignore[union-attr]
            None,
        )
        if box is None:
            raise _no_place("--rewrite", spec)
        box.append(element("Collapse", element("Panel", area, value="Edit into a better answer")))


def _is_box(view: etree._Element) -> bool:
    return ANSWER_CLASS in view.get("className", "").split()


def _control(title: str, control: etree._Element) -> etree._Element:
    header = element("Header", value=shown_text(title, "title"), size="5")
    return element("View", header, control, className="lsplugin-control")


def _choices(name: str, choices: dict[str, str], *, choice: str = "single-radio", **attributes: str) -> etree._Element:
    """Make a row of choices: what is stored (alias) -> what is shown."""
    options = [element("Choice", value=label, alias=alias) for alias, label in choices.items()]
    return element("Choices", *options, name=name, toName="prompt", choice=choice, showInline="true", **attributes)


def _text_area(name: str, target: str, placeholder: str, **attributes: str) -> etree._Element:
    """Make a text field whose content is stored on submit, without a button to press first."""
    if placeholder:
        attributes["placeholder"] = placeholder
    return element(
        "TextArea",
        name=name,
        toName=target,
        rows="4",
        maxSubmissions="1",
        editable="true",
        showSubmitButton="false",
        **attributes,
    )


def _instructions(text: str) -> etree._Element:
    """Show instructions folded above the task; HTML in them is sanitised, and `$` is no variable."""
    from lsplugin.markdown import to_html

    html = to_html(text).strip().replace("$", "&#36;")
    shown = element("HyperText", name="instructions", value=html, inline="true")
    panel = element("Panel", shown, value="Instructions")
    return element("View", element("Collapse", panel), className="lsplugin-instructions")


def _remove(row: etree._Element) -> None:
    """Remove a control with the View that holds nothing else."""
    view = row.getparent()
    assert view is not None
    view.remove(row)
    if len(view) == 0 and (parent := view.getparent()) is not None:
        parent.remove(view)


def _no_place(option: str, spec: Spec) -> LspluginError:
    return LspluginError(
        f"{option}: the template {spec.folder.name} has no place for it; leave it out or take another --template"
    )
