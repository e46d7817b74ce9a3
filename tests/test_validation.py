"""The validator: rules that explain themselves, repairs that change nothing else, and no input that makes it raise."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.validation import RULES, has_errors, validate
from lsplugin.validation.examples import PAGE
from lsplugin.validation.fix import FIXED, fix
from lsplugin.validation.vocabulary import FILE, extract, vocabulary
from tests.helpers import GOOD_CONFIG, complaint, run_cli, unavailable

REPOSITORY = Path(__file__).resolve().parent.parent
ABOUT_TASKS = [rule.id for rule in RULES.values() if rule.shows == "task"]


def found_in(example: str, rule: str) -> list[str]:
    """Ids of what is wrong with a rule's example."""
    if rule in ABOUT_TASKS:
        return [issue.rule for issue in validate(PAGE, tasks=[json.loads(example)])]
    return [issue.rule for issue in validate(example, server_version="1.20" if rule == "tag-too-new" else None)]


@pytest.mark.parametrize("rule", RULES)
def test_the_examples_of_a_rule_break_it_and_keep_it(rule: str) -> None:
    assert set(found_in(RULES[rule].bad, rule)) == {rule}
    assert found_in(RULES[rule].good, rule) == []


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_says_what_must_hold_and_why(rule: str) -> None:
    assert RULES[rule].summary.endswith(".")
    assert RULES[rule].why.endswith(".")
    shown = run_cli(["lsplugin", "rules", rule])
    assert shown.code == 0
    for part in (RULES[rule].summary, RULES[rule].why, "Bad:", "Good:"):
        assert part in shown.stdout


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    """`lsplugin rules --markdown > docs/rules.md` writes it anew."""
    assert (REPOSITORY / "docs" / "rules.md").read_text() == run_cli(["lsplugin", "rules", "--markdown"]).stdout
    listed = run_cli(["lsplugin", "rules"]).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(RULES)
    assert complaint(["lsplugin", "rules", "none"]).startswith("there is no rule none; there are: ")


def test_a_good_config_is_clean() -> None:
    assert validate(GOOD_CONFIG) == []
    assert validate("\ufeff\n  " + GOOD_CONFIG) == []
    assert validate(GOOD_CONFIG.encode()) == []


def test_all_issues_come_at_once_in_the_order_of_lines() -> None:
    config = GOOD_CONFIG.replace('value="$prompt"', 'value="prompt"').replace("answer1,answer2", "answer1, answer3")
    assert [(issue.line, issue.rule) for issue in validate(config)] == [
        (2, "value-constant"),
        (3, "pairwise-spaces"),
        (3, "target-missing"),
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("<Pairwize ", "<Pairwise>"),
        ("<Pairwse ", "<Pairwise>"),
        ("<Compare ", None),
    ],
)
def test_what_was_probably_meant_is_suggested(written: str, meant: str | None) -> None:
    (issue,) = (issue for issue in validate(GOOD_CONFIG.replace("<Pairwise ", written)) if issue.rule == "tag-unknown")
    assert issue.suggestion == meant
    assert (f"did you mean {meant}?" in issue.message) == (meant is not None)


def test_names_in_comments_are_not_names() -> None:
    assert validate(GOOD_CONFIG.replace("  <Pairwise", '  <!-- <Text name="answer1"/> -->\n  <Pairwise')) == []


def test_the_shape_of_the_public_tutorials_deserves_warnings_but_works() -> None:
    """A rule for everything, one for the body, white on a light blue and on a light green, nothing that has to be chosen."""
    config = """<View>
  <Style>
    * { margin: 0; } body { font-family: sans-serif; }
    .prompt { background-color: #0084ff; color: #ffffff; }
    .box { background-color: rgba(44, 62, 80, 0.9); color: #ffffff; }
    .lsf-richtext__line:hover { background: unset; }
    .box .lsf-object { padding: 20px }
  </Style>
  <View className="prompt"><Text name="prompt" value="$prompt" /></View>
  <Pairwise name="pw" toName="answer1,answer2" selectionStyle="background-color: #27ae60; border: 2px solid #2ecc71" />
  <View className="box"><Text name="answer1" value="$answer1" /></View>
  <View className="box"><Text name="answer2" value="$answer2" /></View>
</View>
"""
    issues = validate(config)
    assert not has_errors(issues)
    rules = [issue.rule for issue in issues]
    assert rules.count("css-global") >= 2
    assert rules.count("css-contrast") == 2
    assert "no-forced-choice" in rules


BROKEN_UPSTREAM = {
    "ranking-and-scoring/pairwise-regression": "rating-two-objects",
    "ranking-and-scoring/document-retrieval": "choice-duplicate",
    "computer-vision/pdf_ocr": "tag-unknown",
    **{
        f"chat/{name}": "tag-enterprise"
        for name in ("chat_eval", "chat_llm_eval", "chat_red_team", "chat_rlhf", "chatbot")
    },
    # These work, and have every annotator's browser call another server.
    "ranking-and-scoring/serp-ranking": "css-foreign, html-unsafe",
    "community-contributions/two-level-sentiment-analysis-of-x-twitter-posts": "css-foreign",
}
"""Templates that come with Label Studio 1.23 and have errors; docs/builtin_templates.md says more."""


def test_no_error_in_any_template_of_label_studio_that_works() -> None:
    import yaml

    found = importlib.util.find_spec("label_studio")
    if found is None or not found.submodule_search_locations:
        unavailable("label-studio is not installed")
    folder = Path(next(iter(found.submodule_search_locations))) / "annotation_templates"
    files = [file for file in folder.rglob("config.yml") if file.parent.parent.name != "lsplugin"]
    assert len(files) > 60
    errors = {}
    for file in files:
        issues = validate(yaml.safe_load(file.read_text(encoding="utf-8"))["config"])
        if rules := sorted({issue.rule for issue in issues if issue.severity == "error"}):
            errors[file.parent.relative_to(folder).as_posix()] = ", ".join(rules)
    assert errors == BROKEN_UPSTREAM


def test_the_vocabulary_is_that_of_the_installed_label_studio() -> None:
    found = importlib.util.find_spec("web")
    if found is None or not found.submodule_search_locations:
        unavailable("label-studio is not installed")
    kept = json.loads(FILE.read_text())
    bundle = Path(next(iter(found.submodule_search_locations))) / "dist" / "apps" / "labelstudio"
    if json.loads((bundle / "version.json").read_text())["commit"] != kept["bundle"]["commit"]:
        pytest.skip(f"another editor is installed than {kept['label_studio']}'s")
    assert extract(bundle) == {name: kept[name] for name in ("tags", "registered")}
    assert vocabulary().attributes("Choices")["choice"] == ["single", "single-radio", "multiple"]
    assert {"pairwise", "ranker"} <= vocabulary().registered
    assert "chat" not in vocabulary().registered


@pytest.mark.parametrize("rule", FIXED)
def test_repairs(rule: str) -> None:
    broken = RULES[rule].bad
    assert [issue for issue in validate(fix(broken, fields=["answer1"])) if issue.rule == rule] == []


def test_repairs_leave_everything_else_as_it_is() -> None:
    broken = """<?xml version="1.0"?>
<!-- a comment -->
<View   className = 'x' >
  <text name="prompt" value="$prompt" />
  <Pairwise
      name="c" toname="answer1, answer2" required="true"
  ></Pairwise>
  <Text name="answer1"   value="answer1"/>
  <Text name='answer2'   value='$answer2'>&#160;</Text> <!-- toName="a, b" -->
  <HyperText name="h"><text>html</text></HyperText>
</View>
<!-- {"data": {"prompt": "é", "answer1": "a > b", "answer2": "<"}} -->
"""
    assert (
        fix(broken)
        == """<!-- a comment -->
<View   className = 'x' >
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="c" toName="answer1,answer2"></Pairwise>
  <Text name="answer1" value="$answer1"/>
  <Text name='answer2'   value='$answer2'>&#160;</Text> <!-- toName="a, b" -->
  <HyperText name="h"><text>html</text></HyperText>
</View>
<!-- {"data": {"prompt": "é", "answer1": "a > b", "answer2": "<"}} -->
"""
    )
    assert fix(fix(broken)) == fix(broken)
    assert fix(GOOD_CONFIG) == GOOD_CONFIG
    assert fix("<View>") == "<View>"


def test_the_command_says_ok_or_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.xml").write_text(GOOD_CONFIG)
    Path("warned.xml").write_text(GOOD_CONFIG.replace("<Pairwise ", '<Pairwise required="true" '))
    Path("bad.xml").write_text(GOOD_CONFIG.replace("answer1,answer2", "answer1"))
    assert run_cli(["lsplugin", "validate", "good.xml"])[:2] == (0, "good.xml: ok\n")
    code, out, _ = run_cli(["lsplugin", "validate", "warned.xml"])
    assert code == 0
    assert out.startswith("warned.xml:3: warning: ")
    assert out.endswith("warned.xml: ok, with 1 warning\n")
    assert run_cli(["lsplugin", "validate", "warned.xml", "--strict"]).code == 1
    code, out, _ = run_cli(["lsplugin", "validate", "bad.xml"])
    assert code == 1
    assert out.startswith("bad.xml:3: error: Pairwise compares exactly two objects")
    assert run_cli(["lsplugin", "validate", "none.xml"]) == (2, "", "error: none.xml: no such file\n")
    assert run_cli(["lsplugin", "validate", str(tmp_path)]).code == 2
    missing = run_cli(["lsplugin", "validate", "good.xml", "--tasks", "none.json"])
    assert missing == (2, "", "error: none.json: no such file\n")
    assert "expected numbers and dots" in complaint(["lsplugin", "validate", "good.xml", "--server-version", "new"])


def test_the_command_reports_as_json_and_checks_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.xml").write_text(GOOD_CONFIG)
    rows = [{"prompt": "p", "answer1": "a", "answer2": "b"}, {"prompt": "p", "answer1": "a"}]
    Path("d.json").write_text(json.dumps(rows))
    code, out, _ = run_cli(["lsplugin", "validate", "c.xml", "--tasks", "d.json", "--json"])
    assert code == 1
    (issue,) = json.loads(out)
    assert (issue["rule"], issue["severity"], issue["line"], issue["row"]) == ("task-field-missing", "error", 5, 2)
    assert issue["message"].startswith("row 2: the task has no field answer2")
    # What a push would derive is no fault: HTML of an answer, the items of a ranking.
    run_cli(["lsplugin", "render", "--answers", "3", "--markdown", "--chat", "-o", "r.xml"])
    Path("d.json").write_text(json.dumps([{"prompt": "p", "answer1": "a", "answer2": "b", "answer3": "c"}]))
    assert run_cli(["lsplugin", "validate", "r.xml", "--tasks", "d.json", "--strict"]).code == 0


def test_the_command_repairs_and_shows_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = GOOD_CONFIG.replace("answer1,answer2", "answer1, answer2").replace('value="$prompt"', 'value="prompt"')
    Path("c.xml").write_text(broken)
    Path("d.json").write_text(json.dumps([{"prompt": "p", "answer1": "a", "answer2": "b"}]))
    code, out, _ = run_cli(["lsplugin", "validate", "c.xml", "--fix", "--tasks", "d.json"])
    assert code == 0
    assert Path("c.xml").read_text() == GOOD_CONFIG
    changed = [line for line in out.splitlines() if line.startswith(("-  ", "+  "))]
    assert [line[0] for line in changed] == ["-", "-", "+", "+"]
    piped = subprocess.run(
        [sys.executable, "-m", "lsplugin", "validate", "-", "--fix"],
        input=broken,
        capture_output=True,
        text=True,
        check=False,
    )
    assert piped.returncode == 1  # without the tasks nobody knows that prompt is a field
    assert piped.stdout == broken.replace("answer1, answer2", "answer1,answer2")
    assert "-:2: error:" in piped.stderr


def test_entities_expand_to_nothing() -> None:
    bomb = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><View><Text name="x" value="&b;"/></View>'
    assert [issue.rule for issue in validate(bomb)] == ["doctype"]
    assert [issue.rule for issue in validate("<!-- <!DOCTYPE x> -->\n" + GOOD_CONFIG)] == []


def test_identical_answers_are_found_under_every_template() -> None:
    from lsplugin.render import render
    from lsplugin.template import Spec

    row = {"prompt": "p", "answer1": "a", "answer2": "b", "answer3": "b"}
    for template in ("ranking", "rating"):
        config = render(Spec(answers=3, template=template, markdown=True))
        shown = (
            row | {f"answer{n}_html": f"<p>{row[f'answer{n}']}</p>" for n in (1, 2, 3)} | {"items": [{"id": "answer1"}]}
        )
        (issue,) = validate(config, tasks=[shown])
        assert (issue.rule, issue.row) == ("task-answers-identical", 1)
    scale = [row | {"answer2": "a"}, row]
    assert [issue.row for issue in validate(render(Spec(template="scale")), tasks=scale)] == [1]


def test_what_is_huge_or_deep_is_refused_at_once() -> None:
    assert [issue.rule for issue in validate("<View>" + " " * 2_000_000 + "</View>")] == ["oversized"]
    assert [issue.rule for issue in validate("<View>" * 10_000)] == ["xml-syntax"]
    assert validate("<View><Style>" + "{" * 10_000 + "</Style></View>")
    assert validate("<View><Style>" + "a{" * 2_000 + "</Style></View>")
    assert validate("<View><Style>.a:has(" + ":is(" * 500 + "</Style></View>")


@given(st.one_of(st.binary(), st.text()))
def test_no_input_makes_it_raise(data: str | bytes) -> None:
    assert validate(data)  # none of these is a config


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
        ">",
    ),
    *(
        'value="$a"/>',
        "{",
        "}",
        "@import",
        "url(",
        "*",
        "&amp;",
        "]]>",
        "<?x?>",
        "\ud83d",
        '<HyperText name="h">',
        "</HyperText>",
    ),
    *(
        "<Choices",
        "<Choice",
        'alias="x"',
        'hotkey="1"',
        'whenTagName="q"',
        "<svg onload='x'>",
        '<!-- {"data": 1} -->',
        "&nbsp;",
    ),
    *(
        'style="color:red;background:#',
        'selectionStyle="',
        '"',
        "--x: var(--x)",
        ".a:has(",
        "<List",
        "<Ranker",
        "<Bucket",
    ),
]


@given(
    st.lists(st.sampled_from(SOUP)),
    st.lists(st.dictionaries(st.sampled_from("ab"), st.none() | st.text() | st.integers())),
)
def test_no_soup_of_markup_makes_it_raise(parts: list[str], tasks: list[dict[str, Any]]) -> None:
    text = " ".join(parts)
    for issue in validate(text, tasks=tasks):
        assert issue.line >= 1
        assert "\n" not in issue.message
    fix(text.encode("utf-8", "replace").decode())


@given(st.lists(st.sampled_from(SOUP)))
def test_no_soup_inside_a_view_makes_it_raise(parts: list[str]) -> None:
    inside = f"<View>{' '.join(parts)}<Style>{''.join(parts)}</Style></View>"
    validate(inside)
    validate(GOOD_CONFIG, tasks=[{part: part for part in parts}])


def test_importing_it_is_light() -> None:
    code = "import sys, lsplugin.validation; sys.exit('label_studio_sdk' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0
