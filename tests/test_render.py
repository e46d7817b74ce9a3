"""Rendered configs: valid, safe for any text, and with the names that existing datasets use."""

from __future__ import annotations

import json

import pytest
import tinycss2
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from lsplugin.errors import LspluginError
from lsplugin.render import render, sample_task
from lsplugin.template import Spec, theme_names
from lsplugin.validate import validate

XML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=60)


def parse(config: str) -> etree._Element:
    return etree.fromstring(config)


def comment_data(config: str) -> object:
    """Read the sample task as Label Studio does: the JSON of the comment behind the root."""
    (comment,) = parse(config).itersiblings(etree.Comment)
    return json.loads(comment.text or "")["data"]


def test_names_are_those_of_existing_datasets() -> None:
    root = parse(render())
    (control,) = root.iter("Pairwise")
    assert (control.get("name"), control.get("toName")) == ("comparison", "answer1,answer2")
    texts = {element.get("name"): element.get("value") for element in root.iter("Text")}
    assert texts == {"prompt": "$prompt", "answer1": "$answer1", "answer2": "$answer2"}


def test_answers_stand_in_the_order_of_to_name() -> None:
    names = [element.get("name") for element in parse(render()).iter("Text")]
    assert names == ["prompt", "answer1", "answer2"]


def test_no_declaration_and_no_issue() -> None:
    config = render()
    assert not config.startswith("<?xml")
    assert validate(config) == []


@pytest.mark.parametrize("theme", theme_names())
def test_every_rule_of_a_theme_starts_at_the_template_and_survives_the_editor(theme: str) -> None:
    (style,) = parse(render(Spec(theme=theme))).iter("Style")

    def selectors(rules: list[object]) -> list[str]:
        found: list[str] = []
        for rule in rules:
            if getattr(rule, "type", "") == "at-rule":
                inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)  # type: ignore[attr-defined]
                found += selectors(inner)
            else:
                assert rule.type == "qualified-rule"  # type: ignore[attr-defined]
                found += tinycss2.serialize(rule.prelude).split(",")  # type: ignore[attr-defined]
        return found

    found = selectors(tinycss2.parse_stylesheet(style.text, skip_comments=True, skip_whitespace=True))
    assert len(found) > 5
    for selector in found:
        assert selector.strip().split()[0] == ".lsplugin"
        assert ">" not in selector  # the editor would receive it as &gt;


@given(question=XML_TEXT)
def test_any_question_survives_unchanged(question: str) -> None:
    config = render(Spec(question=question))
    (header,) = parse(config).iter("Header")
    assert header.get("value") == question
    assert [issue for issue in validate(config) if issue.severity == "error"] == []


@given(prompt=st.text(), answer=st.text(st.sampled_from("-><!&\"'\\\n\u0000\ud83dé😀עברית")))
def test_any_sample_task_survives_in_the_comment(prompt: str, answer: str) -> None:
    sample = {"prompt": prompt, "answer1": answer, "answer2": "--> <!-- --- ]]>"}
    config = render(sample=sample)
    assert comment_data(config) == sample
    assert validate(config) == []


def test_sample_task_is_the_comment_of_the_config() -> None:
    assert comment_data(render()) == sample_task()
    assert set(sample_task()) == {"prompt", "answer1", "answer2"}


def test_control_characters_in_a_question_are_refused() -> None:
    with pytest.raises(LspluginError, match="control characters"):
        render(Spec(question="a\x00b"))


@pytest.mark.parametrize("answers", [0, 1, 3, 4])
def test_other_numbers_of_answers_are_explained(answers: int) -> None:
    with pytest.raises(LspluginError, match=rf"--answers {answers}: Pairwise compares exactly two"):
        Spec(answers=answers)


@pytest.mark.parametrize("theme", ["none", "../themes/default", ""])
def test_unknown_themes_are_named_beside_the_known_ones(theme: str) -> None:
    with pytest.raises(LspluginError, match=r"there are: .*default"):
        Spec(theme=theme)
