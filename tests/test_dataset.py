"""Datasets are checked as a whole before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lxml import etree

from lsplugin.dataset import Task, check_tasks, read_dataset
from lsplugin.errors import LspluginError
from tests.helpers import GOOD_CONFIG, write_json, write_lines

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = etree.fromstring(GOOD_CONFIG)
ROW = {"prompt": "p", "answer1": "a", "answer2": "b"}


def test_json_and_jsonl_in_both_shapes_give_the_same_tasks(tmp_path: Path) -> None:
    meta = {"models": {"answer1": "m1"}}
    flat, own = {**ROW, "meta": meta}, {"data": ROW, "meta": meta}
    for path in (write_json(tmp_path / "a.json", [flat, own]), write_lines(tmp_path / "a.jsonl", [flat, own])):
        assert read_dataset(path) == [Task(ROW, meta, 1), Task(ROW, meta, 2)]


def test_meta_is_never_displayed_data(tmp_path: Path) -> None:
    (task,) = read_dataset(write_json(tmp_path / "a.json", [{**ROW, "meta": {"models": {}}, "note": "kept"}]))
    assert task.to_dict() == {"data": {**ROW, "note": "kept"}, "meta": {"models": {}}}


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    rows = [
        ROW,
        {"prompt": "p", "answer1": "a"},
        {**ROW, "answer2": "  "},
        {**ROW, "answer1": 7},
        {**ROW, "answer2": "a"},
        {**ROW, "prompt": None},
        {**ROW, "prompt": ["p"]},
        {"prompt": "p"},
    ]
    tasks = read_dataset(write_json(tmp_path / "d.json", rows))
    with pytest.raises(LspluginError) as caught:
        check_tasks(tasks, CONFIG, path="d.json")
    said = str(caught.value)
    assert said.startswith(
        "d.json: 7 bad rows, nothing was sent: row 2: `answer2` is missing (it has prompt, answer1); row 3: "
    )
    assert "row 3: `answer2` should be text, found an empty text" in said
    assert "row 4: `answer1` should be text, found the number 7" in said
    assert "row 5: the answers are identical" in said
    assert "row 6: `prompt` should be text, found nothing" in said
    assert said.endswith("and 2 more")


def test_half_a_character_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    tasks = read_dataset(write_json(tmp_path / "d.json", [ROW]))
    with pytest.raises(LspluginError, match="row 1: `answer2` holds half a character"):
        check_tasks([Task({**tasks[0].data, "answer2": "half \ud83d"}, {}, 1)], CONFIG, path="d.json")


def test_a_good_dataset_passes(tmp_path: Path) -> None:
    tasks = read_dataset(write_json(tmp_path / "d.json", [ROW, {**ROW, "answer2": "ö 😀 <b>"}]))
    check_tasks(tasks, CONFIG, path="d.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "expected a list of tasks, found an object"),
        ("[]", "no tasks in it"),
        ("[1]", "row 1: expected an object with the task's fields, found the number 1"),
        ('[{"prompt": "p", "meta": 3}]', "row 1: expected `meta` to be an object"),
        ('[\n{"prompt": "p"},\n{"prompt" "q"}\n]', "line 3: expected JSON"),
    ],
)
def test_what_is_no_dataset_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(LspluginError) as caught:
        read_dataset(tmp_path / "d.json")
    assert said in str(caught.value)
