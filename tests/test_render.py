"""Rendered configs: valid, safe for any text, and with the names that existing datasets use."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tinycss2
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from lsplugin.errors import LspluginError
from lsplugin.markup import WORD_JOINER
from lsplugin.render import render, sample_task
from lsplugin.template import Spec, describe, slug, template_names, theme_names
from lsplugin.validation import validate
from tests.helpers import complaint, run_cli

GOOD = Path(__file__).parent / "configs" / "good"
XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1, max_size=60
).filter(str.strip)

OPTIONS: dict[str, Any] = {
    "tie": False,
    "strength": True,
    "both_bad": True,
    "reason": True,
    "reasons": ("Accurate", "Kind & clear"),
    "criteria": ("helpfulness", "harmlessness"),
    "rewrite": True,
    "flag": True,
    "chat": True,
    "markdown": True,
    "instructions": GOOD / "instructions.md",
    "question": "Which <one>?",
    "prompt_field": "question",
}
"""Every option that changes what a template asks or shows, with a value other than its default."""

NO_PLACE = {
    ("rating", "tie"),
    ("rating", "strength"),
    ("rating", "both_bad"),
    ("ranking", "strength"),
}
"""What makes no sense: stars know ties and bad answers, a ranking no strength."""


def specs() -> list[Spec]:
    """Every template x theme with every pair of options that makes sense."""
    pairs = [(), *itertools.combinations(OPTIONS, 1), *itertools.combinations(OPTIONS, 2)]
    return [
        Spec(
            answers=3 if template == "ranking" else 2, template=template, theme=theme, **{o: OPTIONS[o] for o in chosen}
        )
        for template in template_names()
        for chosen in pairs
        if not any((template, option) in NO_PLACE for option in chosen)
        # The pairs of options come under one theme, which changes CSS alone.
        for theme in (theme_names() if len(chosen) < 2 else ["default"])
    ]


def parse(config: str) -> etree._Element:
    return etree.fromstring(config)


def comment_data(config: str) -> Any:
    """Read the sample task as Label Studio does: the JSON of the comment behind the root."""
    (comment,) = parse(config).itersiblings(etree.Comment)
    return json.loads(comment.text or "")["data"]


def choices(config: str, name: str) -> dict[str | None, str | None]:
    """What a row stores -> what it shows."""
    row = parse(config).find(f".//Choices[@name='{name}']")
    assert row is not None
    return {choice.get("alias"): choice.get("value") for choice in row}


def test_names_are_those_of_existing_datasets() -> None:
    root = parse(render())
    (control,) = root.iter("Pairwise")
    assert (control.get("name"), control.get("toName")) == ("comparison", "answer1,answer2")
    texts = [(element.get("name"), element.get("value")) for element in root.iter("Text")]
    assert texts == [("prompt", "$prompt"), ("answer1", "$answer1"), ("answer2", "$answer2")]


@pytest.mark.parametrize("template", template_names())
def test_every_template_is_a_config_by_itself_with_a_line_about_it(template: str) -> None:
    from lsplugin.template import templates_folder

    skeleton = (templates_folder() / template / "config.xml").read_text()
    assert [issue for issue in validate(skeleton) if issue.severity == "error"] == []
    title, line = describe(template)
    assert title
    assert line.endswith(".")
    assert line in run_cli(["lsplugin", "templates"]).stdout


def test_every_template_and_theme_with_every_pair_of_options_is_valid_without_a_warning() -> None:
    found = {}
    for spec in specs():
        config = render(spec)
        assert not config.startswith("<?xml")
        sample = comment_data(config)
        assert sample == sample_task(spec)
        issues = validate(config, tasks=[sample])
        asked = parse(config).find(".//*[@required='true']") is not None
        if [issue.rule for issue in issues] != (
            [] if asked else ["no-forced-choice"]
        ):  # --no-tie alone asks nothing else
            found[spec] = issues
    assert found == {}
    assert len(specs()) > 250


@pytest.mark.parametrize(("template", "option"), sorted(NO_PLACE))
def test_what_makes_no_sense_is_refused(template: str, option: str) -> None:
    spec = Spec(answers=3 if template == "ranking" else 2, template=template, **{option: OPTIONS[option]})
    with pytest.raises(LspluginError, match=rf"the template {template} has no place for it"):
        render(spec)


@pytest.mark.parametrize("template", template_names())
def test_kept_examples_are_what_is_rendered(template: str) -> None:
    """`tests/configs/good` holds one config of each template with all that it can ask; REGENERATE=1 writes them anew."""
    import os

    chosen = {name: value for name, value in OPTIONS.items() if name != "tie" and (template, name) not in NO_PLACE}
    config = render(Spec(answers=3 if template == "ranking" else 2, template=template, **chosen))
    kept = GOOD / f"{template}.xml"
    if os.environ.get("REGENERATE"):
        kept.write_text(config)
    assert kept.read_text() == config


@pytest.mark.parametrize("theme", theme_names())
@pytest.mark.parametrize("template", template_names())
def test_every_rule_of_the_style_starts_at_the_template_and_survives_the_editor(theme: str, template: str) -> None:
    spec = Spec(answers=3 if template == "ranking" else 2, template=template, theme=theme, chat=True, markdown=True)
    (style,) = parse(render(spec)).iter("Style")

    def selectors(rules: list[Any]) -> list[str]:
        found: list[str] = []
        for rule in rules:
            if rule.type == "at-rule":
                inner = tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True)
                found += selectors(inner)
            else:
                assert rule.type == "qualified-rule"
                found.append(tinycss2.serialize(rule.prelude))
        return found

    found = selectors(tinycss2.parse_stylesheet(style.text, skip_comments=True, skip_whitespace=True))
    assert len(found) > 5
    for selector in found:
        assert selector.strip().startswith(".lsplugin")
        assert ">" not in selector  # the editor would receive it as &gt;


@given(question=XML_TEXT, reason=XML_TEXT, criterion=XML_TEXT)
def test_any_title_or_label_survives_unchanged(question: str, reason: str, criterion: str) -> None:
    config = render(Spec(question=question, reasons=(reason,), criteria=(criterion,)))
    headers = [str(header.get("value")).replace(WORD_JOINER, "") for header in parse(config).iter("Header")]
    assert headers[0] == question.replace(WORD_JOINER, "")
    assert f"Better in this respect: {criterion}".replace(WORD_JOINER, "") in headers
    assert list(choices(config, "reasons").values()) == [reason]
    assert validate(config) == []


@st.composite
def any_spec(draw: st.DrawFn) -> Spec:
    """A spec of any options that a template has a place for."""
    template = draw(st.sampled_from(template_names()))
    answers = draw(st.integers(2, 10)) if template in {"ranking", "rating"} else 2
    labels = st.lists(XML_TEXT, max_size=3, unique_by=slug).map(tuple)
    flags = ("tie", "strength", "both_bad", "reason", "rewrite", "flag", "chat", "markdown")
    chosen = {name: draw(st.booleans()) for name in flags if (template, name) not in NO_PLACE}
    theme, question = draw(st.sampled_from(theme_names())), draw(st.none() | XML_TEXT)
    return Spec(answers, template, theme, question=question, reasons=draw(labels), criteria=draw(labels), **chosen)


@given(spec=any_spec())
def test_any_spec_renders_a_config_that_is_clean(spec: Spec) -> None:
    config = render(spec)
    asked = parse(config).find(".//*[@required='true']") is not None
    assert [issue.rule for issue in validate(config, tasks=[sample_task(spec)])] == (
        [] if asked else ["no-forced-choice"]
    )


@given(prompt=st.text(), answer=st.text(st.sampled_from("-><!&\"'\\\n\u0000\ud83dé😀עברית")))
def test_any_sample_task_survives_in_the_comment(prompt: str, answer: str) -> None:
    sample = {"prompt": prompt, "answer1": answer, "answer2": "--> <!-- --- ]]>"}
    config = render(sample=sample)
    assert comment_data(config) == sample
    assert [issue for issue in validate(config) if issue.severity == "error"] == []


def test_dollars_in_what_is_shown_are_no_variables() -> None:
    """The editor replaces `$word` in titles by a field of the task; an invisible joiner keeps the dollar's text."""
    root = parse(render(Spec(question="Is $5 or $prompt better? $")))
    values = [str(header.get("value")) for header in root.iter("Header")]
    assert values == [f"Is ${WORD_JOINER}5 or ${WORD_JOINER}prompt better? $"]


def test_control_characters_are_refused() -> None:
    with pytest.raises(LspluginError, match="control characters"):
        render(Spec(question="a\x00b"))


@pytest.mark.parametrize("answers", [0, 1, 11])
def test_impossible_numbers_of_answers_are_refused(answers: int) -> None:
    with pytest.raises(LspluginError, match=rf"--answers {answers}: a task compares 2 to 10"):
        Spec(answers=answers)


@pytest.mark.parametrize("template", ["pairwise", "scale"])
def test_pairwise_over_more_answers_is_explained(template: str) -> None:
    with pytest.raises(LspluginError, match=r"compares exactly two answers; use --template ranking or rating"):
        render(Spec(answers=4, template=template))


@pytest.mark.parametrize("answers", [3, 10])
def test_more_answers_are_ranked_in_as_many_tiers(answers: int) -> None:
    root = parse(render(Spec(answers=answers)))
    names = [f"answer{number}" for number in range(1, answers + 1)]
    assert [text.get("name") for text in root.iter("Text")] == ["prompt", *names]
    assert len(list(root.iter("Bucket"))) == answers
    headers = [header.get("value") for header in root.iter("Header")]
    assert headers[:answers] == [f"Answer {letter}" for letter in "ABCDEFGHIJ"[:answers]]


def test_stars_for_each_answer_and_criterion() -> None:
    root = parse(render(Spec(answers=3, template="rating", criteria=("Helpful", "Follows instructions"))))
    found = [(rating.get("name"), rating.get("toName"), rating.get("required")) for rating in root.iter("Rating")]
    assert found == [
        (f"{criterion}_answer{number}", f"answer{number}", "true")
        for number in (1, 2, 3)
        for criterion in ("helpful", "follows-instructions")
    ]


def test_the_verdict_says_what_a_click_cannot() -> None:
    assert list(choices(render(), "verdict")) == ["better", "tie"]
    assert list(choices(render(Spec(strength=True, both_bad=True)), "verdict")) == [
        *("slightly", "clearly", "much", "tie", "both-bad")
    ]
    assert parse(render(Spec(tie=False))).find(".//Choices") is None
    scale = choices(render(Spec(template="scale", both_bad=True)), "comparison")
    assert list(scale) == [
        *("left-much", "left-clearly", "left-slightly", "tie", "right-slightly", "right-clearly", "right-much"),
        "both-bad",
    ]
    assert "tie" not in choices(render(Spec(template="scale", tie=False)), "comparison")


def test_fields_of_another_dataset() -> None:
    spec = Spec(prompt_field="question", answer_fields=("good", "bad"), markdown=True)
    root = parse(render(spec))
    shown = {element.get("name"): element.get("value") for element in root.iter("Text", "HyperText")}
    assert shown == {
        "prompt": "$question",
        "answer1": "$good_html",
        "answer2": "$bad_html",
        "answer1_raw": "$good",
        "answer2_raw": "$bad",
    }
    assert set(sample_task(spec)) == {"question", "good", "bad", "good_html", "bad_html"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt_field": "a b"}, "letters A-Z, digits and _"),
        ({"prompt_field": "answer1"}, "given twice"),
        ({"answer_fields": ("a",)}, "--answers 2 needs as many --answer-field, 1 were given"),
        ({"theme": "none"}, "expected a CSS file or one of default"),
        ({"theme": "../themes/default"}, "expected a CSS file or one of default"),
        ({"template": "none"}, "expected a folder with a config.xml or one of pairwise"),
        ({"reasons": ("A", "a!")}, "read the same"),
        ({"criteria": ("",)}, "an empty name"),
    ],
)
def test_bad_settings_are_explained(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(LspluginError, match=said):
        Spec(**settings)


def test_templates_themes_and_css_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from lsplugin.template import templates_folder

    own = tmp_path / "mine"
    own.mkdir()
    skeleton = (templates_folder() / "pairwise" / "config.xml").read_text().replace("Which answer", "Which reply")
    (own / "config.xml").write_text(skeleton)
    (own / "style.css").write_text(".lsplugin .lsplugin-answer { border-width: 5px; }")
    (tmp_path / "t.css").write_text(".lsplugin { --lsplugin-gap: 2px; }")
    (tmp_path / "more.css").write_text(".lsplugin .lsplugin-prompt { border-left-width: 9px; }")
    command = ["lsplugin", "render", "--template", "mine", "--theme", "t.css", "--css", "more.css", "--strength"]
    config = run_cli([*command, "-o", "c.xml"])
    assert config.code == 0, config
    text = (tmp_path / "c.xml").read_text()
    assert "Which reply is better?" in text
    assert text.index("border-width: 5px") < text.index("--lsplugin-gap: 2px") < text.index("border-left-width: 9px")
    assert list(choices(text, "verdict")) == ["slightly", "clearly", "much", "tie"]

    (tmp_path / "t.css").write_text(".lsplugin { background: url(https://example.org/a.png); }")
    assert "is loaded from elsewhere" in complaint([*command, "-o", "d.xml"])
    assert not (tmp_path / "d.xml").exists()
    (own / "config.xml").write_text("<View>")
    assert "mine/config.xml: not well-formed XML" in complaint(command)
    (own / "config.xml").write_text('<View><Text name="prompt" value="$prompt"/></View>')
    assert "mine/config.xml: expected a View of class lsplugin-answer" in complaint(command)


def test_the_preview_shows_the_users_own_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "p", "answer1": "*a*", "answer2": "b"}
    (tmp_path / "one.json").write_text(json.dumps(row))
    (tmp_path / "set.json").write_text(json.dumps([row | {"meta": {"model1": "m"}}, row]))
    (tmp_path / "lines.jsonl").write_text(json.dumps(row) + "\n")
    for name in ("one.json", "set.json", "lines.jsonl"):
        shown = comment_data(run_cli(["lsplugin", "render", "--sample", name, "--markdown"]).stdout)
        assert shown == row | {"answer1_html": "<p><em>a</em></p>\n", "answer2_html": "<p>b</p>\n"}
    (tmp_path / "one.json").write_text(json.dumps({"prompt": "p"}))
    said = complaint(["lsplugin", "render", "--sample", "one.json"])
    assert said == "one.json: the sample lacks answer1, answer2 (it has prompt)"


def test_every_setting_is_an_option() -> None:
    shown = run_cli(["lsplugin", "render", "--help"]).stdout
    for setting in dataclasses.fields(Spec):
        name = "answer-field" if setting.name == "answer_fields" else setting.name.replace("_", "-")
        assert f"--{name}" in shown, setting.name
