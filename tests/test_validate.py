"""Every rule of the validator catches its fault on its line, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.validate import has_errors, validate
from tests.helpers import GOOD_CONFIG


def config(*changes: tuple[str, str]) -> str:
    """The good config with some of its text replaced."""
    text = GOOD_CONFIG
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def style(css: str) -> str:
    return config(("<View>\n", f"<View>\n  <Style>\n{css}\n  </Style>\n"))


BAD = [
    ("xml-syntax", 6, config(("</View>\n", ""))),
    ("xml-syntax", 1, ""),
    ("xml-syntax", 2, config(('<Text name="prompt"', '<Text name=prompt"'))),
    ("xml-declaration", 1, '<?xml version="1.0" encoding="UTF-8"?>\n' + GOOD_CONFIG),
    ("doctype", 1, "<!DOCTYPE View>\n" + GOOD_CONFIG),
    ("root-view", 1, config(("View>", "Form>"))),
    ("name-missing", 2, config((' name="prompt"', ""))),
    (
        "name-duplicate",
        5,
        config(('<Text name="answer2"', '<Text name="answer1"'), ("answer1,answer2", "answer1,prompt")),
    ),
    ("value-missing", 2, config((' value="$prompt"', ""))),
    ("value-constant", 4, config(('value="$answer1"', 'value="answer1"'))),
    ("no-control", 1, config(('  <Pairwise name="comparison" toName="answer1,answer2"/>\n', ""))),
    ("pairwise-targets", 3, config(("answer1,answer2", "answer1,answer2,prompt"))),
    ("pairwise-targets", 3, config(("answer1,answer2", "answer1"))),
    ("pairwise-targets", 3, config(("answer1,answer2", "answer1,answer1"))),
    ("pairwise-spaces", 3, config(("answer1,answer2", "answer1, answer2"))),
    ("pairwise-ignored", 3, config(("<Pairwise ", '<Pairwise required="true" '))),
    ("target-missing", 3, config(("answer1,answer2", "answer1,answer3"))),
    ("target-unselectable", 3, config(('<Text name="answer2"', '<Markdown name="answer2"'))),
    ("css-syntax", 4, style("  .a { color: red; }\n  .b { color red }\n}}")),
    ("css-foreign", 3, style('  @import url("https://example.org/a.css");')),
    ("css-foreign", 3, style("  .a { background: url(http://example.org/a.png); }")),
    ("css-foreign", 3, style('  @media print { .a { background: url("//example.org/a.png"); } }')),
    ("css-global", 3, style("  * { margin: 0; }")),
    ("css-global", 4, style("  .a { margin: 0; }\n  body { margin: 0; }")),
    ("css-escaped", 3, style("  .a > .b { margin: 0; }")),
    ("sample-data", 7, GOOD_CONFIG + '<!-- {"data": {"prompt": "p", "answer1": "a"}} -->'),
    ("sample-data", 7, GOOD_CONFIG + '<!-- {"data": {"prompt": } -->'),
]
WARNINGS = {"pairwise-ignored", "css-syntax", "css-global", "css-escaped", "sample-data"}


@pytest.mark.parametrize(
    ("rule", "line", "text"), BAD, ids=[f"{rule}-{number}" for number, (rule, *_) in enumerate(BAD)]
)
def test_each_fault_is_found_on_its_line_and_nothing_else(rule: str, line: int, text: str) -> None:
    issues = validate(text)
    if rule == "css-syntax":  # a stray brace breaks what comes after it, too
        assert {issue.rule for issue in issues} == {rule}
        return
    assert [(issue.rule, issue.line) for issue in issues] == [(rule, line)]
    assert has_errors(issues) == (rule not in WARNINGS)
    assert "\n" not in issues[0].message


def test_every_rule_has_a_bad_example() -> None:
    import inspect
    import re

    import lsplugin.validate as module

    named = set(re.findall(r'Issue\(\s*"([a-z-]+)"', inspect.getsource(module)))
    assert named == {rule for rule, *_ in BAD}


def test_a_good_config_is_clean() -> None:
    assert validate(GOOD_CONFIG) == []
    assert validate("\n  " + GOOD_CONFIG) == []


def test_data_urls_are_the_pages_own() -> None:
    assert validate(style("  .a { background: url(data:image/png;base64,AAAA); fill: url(#b); }")) == []


def test_names_in_comments_are_not_names() -> None:
    assert validate(config(("  <Pairwise", '  <!-- <Text name="answer1"/> -->\n  <Pairwise'))) == []


def test_a_stylesheet_over_everything_deserves_warnings_but_works() -> None:
    """The shape of the public tutorial's template: a rule for everything, one for the body, a control with a name of its own."""
    issues = validate(
        style("  * { margin: 0; } body { font-family: sans-serif; } .box:hover { color: red; }").replace(
            '"comparison"', '"pw"'
        )
    )
    assert [issue.rule for issue in issues] == ["css-global", "css-global"]
    assert not has_errors(issues)


def test_all_issues_come_at_once_in_the_order_of_lines() -> None:
    issues = validate(config(('value="$prompt"', 'value="prompt"'), ("answer1,answer2", "answer1, answer3")))
    assert [issue.line for issue in issues] == [2, 3, 3]


def test_entities_are_not_resolved() -> None:
    bomb = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><View><Text name="x" value="&b;"/></View>'
    assert [issue.rule for issue in validate(bomb)] == ["doctype"]
    external = '<View><!-- c --><Text name="x" value="$x&undefined;"/></View>'
    assert [issue.rule for issue in validate(external)] == ["xml-syntax"]


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    assert validate(text)  # no text without a tag is a config


SOUP = [
    *(
        "<View>",
        "</View>",
        "<Style>",
        "</Style>",
        "<Pairwise",
        'toName="a,b"',
        "/>",
        "<!--",
        "-->",
        "<Text",
        'name="a"',
    ),
    *('value="$a"/>', "{", "}", "@import", "url(", "*", "&amp;", "]]>", "<?x?>", "\ud83d"),
]


@given(st.lists(st.sampled_from(SOUP)))
def test_no_soup_of_markup_makes_it_raise(parts: list[str]) -> None:
    for issue in validate(" ".join(parts)):
        assert issue.line >= 1
