"""What a config displays and a row does not have is derived; Markdown becomes HTML that can do no harm."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from lxml import html as lxml_html

from lsplugin.dataset import Task, check_tasks
from lsplugin.errors import LspluginError
from lsplugin.markdown import to_html
from lsplugin.prepare import answer_fields, displayed, prepare
from lsplugin.render import build
from lsplugin.template import Spec

ROW = {"prompt": "p", "answer1": "*a*", "answer2": "b", "answer3": "c"}


def prepared(spec: Spec, row: dict[str, Any], **how: Any) -> dict[str, Any]:
    return prepare(row, build(spec), **how)


def test_a_plain_config_takes_rows_as_they_are() -> None:
    assert prepared(Spec(), ROW) == ROW


def test_markdown_gets_html_beside_the_text_unless_the_row_has_its_own() -> None:
    row = {"prompt": "p", "answer1": "*a*", "answer2": "b", "answer2_html": "mine"}
    assert prepared(Spec(markdown=True), row) == row | {"answer1_html": "<p><em>a</em></p>\n"}


def test_a_plain_prompt_becomes_a_conversation_of_one_message() -> None:
    messages = [{"role": "user", "content": "p"}]
    assert prepared(Spec(chat=True), {"prompt": "p"})["prompt"] == messages
    assert prepared(Spec(chat=True), {"prompt": messages})["prompt"] == messages


def test_the_items_of_a_ranking_are_called_as_the_dataset_calls_the_answers() -> None:
    order = ["answer3", "answer1", "answer2"]
    items = prepared(Spec(answers=3), ROW, order=order)["items"]
    assert items == [{"id": name, "title": f"Answer {box}"} for name, box in zip(order, "ABC", strict=True)]
    assert [item["id"] for item in prepared(Spec(answers=3), ROW)["items"]] == ["answer1", "answer2", "answer3"]


def test_prepared_rows_pass_the_check_and_faulty_ones_are_named() -> None:
    root = build(Spec(answers=3, markdown=True, chat=True))
    check_tasks([Task(prepare(ROW, root))], root, path="d.json")
    for change, said in (
        ({"answer2": None}, "`answer2` should be text, found nothing"),
        ({"answer2": " "}, "`answer2` should be text"),
        ({"answer3": "b"}, "answers are identical"),
        ({"prompt": []}, "`prompt` should be a list of messages"),
        ({"prompt": [{"role": "user", "content": "\ud83d"}]}, "holds half a character"),
        ({"items": "x"}, "`items` should be a list of items"),
    ):
        with pytest.raises(LspluginError, match=re.escape(said)):
            check_tasks([Task(prepare(ROW | change, root), row=4)], root, path="d.json")


def test_displayed_fields_and_answers_of_any_config() -> None:
    root = etree.fromstring(
        '<View><Text name="q" value="$question"/><Pairwise name="c" toName="right,left"/>'
        '<Text name="left" value="$a"/><Text name="right" value="$b"/></View>'
    )
    assert displayed(root) == {"question": "Text", "a": "Text", "b": "Text"}
    assert answer_fields(root) == ["b", "a"]
    assert answer_fields(build(Spec(answers=10))) == [f"answer{number}" for number in range(1, 11)]


def test_markdown_of_the_kinds_that_models_write() -> None:
    html = to_html(
        "# T\n\n1. one\n2. **two**\n\n```python\nx < 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[l](https://e.org)"
    )
    assert "<h1>T</h1>" in html
    assert "<li><strong>two</strong></li>" in html
    assert "<pre><code>x &lt; 1\n</code></pre>" in html
    assert "<td>1</td>" in html
    assert '<a href="https://e.org" target="_blank" rel="noopener noreferrer nofollow">l</a>' in html


ATTACKS = [
    *(
        "<script>alert(1)</script>",
        "![x](https://evil.example/p.png)",
        "[x](javascript:alert(1))",
        "<img src=x onerror=y>",
    ),
    *(
        "<iframe src=//e>",
        "[x](data:text/html,y)",
        "<a onclick=x>",
        "<style>*{}</style>",
        "`",
        "|",
        "\n",
        "> ",
        "<",
        "&lt;",
    ),
]


@given(st.lists(st.one_of(st.sampled_from(ATTACKS), st.text(max_size=10))))
def test_no_markdown_brings_code_or_loads_anything(parts: list[str]) -> None:
    text = "".join(parts).encode("utf-8", "replace").decode()
    html = to_html(text)
    if not html.strip():
        return
    for element in lxml_html.fragment_fromstring(html, create_parent=True).iter():
        assert element.tag not in {"script", "img", "iframe", "style", "object", "svg", "form"}
        for name, value in element.attrib.items():
            assert name in {"href", "title", "target", "rel", "start", "align"}
            assert name != "href" or not str(value).lower().startswith(("javascript:", "data:"))
