"""Answers of several models to the same prompts become comparisons of the models."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.dataset import read_dataset
from lsplugin.errors import LspluginError
from lsplugin.merge import merge
from lsplugin.project import prepared
from lsplugin.render import render
from lsplugin.template import Spec
from tests.helpers import complaint, run_cli, write_json, write_lines


def row(prompt: object, *answers: str, model: str | None = None, **meta: Any) -> dict[str, Any]:
    """Give a row as `ppo generate` writes it."""
    fields = {f"answer{number}": text for number, text in enumerate(answers, start=1)}
    models = {"models": dict.fromkeys(fields, model)} if model else {}
    return {"prompt": prompt, **fields, "meta": models | meta}


def files(folder: Path, **rows: list[dict[str, Any]]) -> list[Path]:
    return [write_json(folder / f"{name}.json", list(found)) for name, found in rows.items()]


def test_two_files_of_one_answer_each_are_a_b_comparisons(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        one=[row("p", "p of base", model="runs/base"), row("q", "q of base", model="runs/base")],
        two=[row("q", "q of tuned", model="runs/tuned"), row("p", "p of tuned", model="runs/tuned")],
    )
    models = {"answer1": "runs/base", "answer2": "runs/tuned"}
    made = merge(paths)
    assert made.tasks == [
        {"prompt": "p", "answer1": "p of base", "answer2": "p of tuned", "meta": {"models": models}},
        {"prompt": "q", "answer1": "q of base", "answer2": "q of tuned", "meta": {"models": models}},
    ]
    assert (made.rows, made.dropped) == (2, Counter())


def test_all_answers_of_all_files_follow_each_other(tmp_path: Path) -> None:
    paths = files(tmp_path, a=[row("p", "1", "2")], b=[row("p", "3", model="m")], c=[row("p", "4", "5")])
    [task] = merge(paths).tasks
    assert [task[f"answer{number}"] for number in range(1, 6)] == ["1", "2", "3", "4", "5"]
    assert list(task["meta"]["models"].values()) == ["a", "a", "m", "c", "c"]
    [task] = merge(paths, one_each=True).tasks
    assert task == {
        "prompt": "p", "answer1": "1", "answer2": "3", "answer3": "4",
        "meta": {"models": {"answer1": "a", "answer2": "m", "answer3": "c"}},
    }  # fmt: skip
    [task] = merge(paths, one_each=True, names=["x", "y", "z"]).tasks
    assert list(task["meta"]["models"].values()) == ["x", "y", "z"]


def test_answers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    twelve = {f"answer{number}": str(number) for number in (10, 2, 1, 12, 3, 4, 5, 6, 7, 8, 9, 11)}
    paths = files(tmp_path, a=[{"prompt": "p", **twelve, "answer1_html": "<p>1</p>"}], b=[row("p", "13")])
    [task] = merge(paths).tasks
    assert [task[name] for name in task if name.startswith("answer")] == [str(number) for number in range(1, 14)]


def test_a_prompt_that_occurs_again_is_joined_in_order(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        a=[row("p", "a1"), row("q", "a2"), row("p", "a3"), row("p", "a4")],
        b=[row("p", "b1"), row("p", "b2"), row("q", "b3")],
    )
    made = merge(paths)
    found = [(task["prompt"], task["answer1"], task["answer2"]) for task in made.tasks]
    assert found == [("p", "a1", "b1"), ("q", "a2", "b3"), ("p", "a3", "b2")]
    assert made.rows == 4
    assert made.dropped == {f"not in {paths[1]}": 1}


def test_what_cannot_be_compared_is_dropped_with_a_reason(tmp_path: Path) -> None:
    paths = files(
        tmp_path,
        a=[row("same", "x", "y"), row("only a", "1"), row("empty", " "), row("p", "1"), row("a and b", "1")],
        b=[row("same", "z"), row("only b", "2"), row("empty", "2"), row("p", "2"), row("a and b", "2")],
        c=[row("same", "y\n"), row("empty", "3"), row("p", "3"), row("only c", "3")],
    )
    made = merge(paths)
    a, b, c = paths
    assert [task["prompt"] for task in made.tasks] == ["p"]
    assert made.rows == 7
    assert made.dropped == {
        "the answers are identical": 1,
        "an answer is empty": 1,
        f"not in {b}, {c}": 1,
        f"not in {a}, {c}": 1,
        f"not in {a}, {b}": 1,
        f"not in {c}": 1,
    }


def test_conversations_and_what_all_files_say_alike_are_kept(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "Why?"},
    ]
    swapped = [dict(reversed(turn.items())) for turn in turns]
    paths = files(
        tmp_path,
        a=[row("p", "1", messages=turns, cost=1) | {"topic": "x", "length": 1}, row(turns, "2")],
        b=[row("p", "3", messages=turns, cost=2) | {"topic": "x", "length": 2}, row(swapped, "4")],
    )
    one, two = merge(paths).tasks
    assert one["meta"] == {"models": {"answer1": "a", "answer2": "b"}, "messages": turns}
    assert one.keys() - {"prompt", "answer1", "answer2", "meta"} == {"topic"}
    assert (two["prompt"], two["answer1"], two["answer2"]) == (turns, "2", "4")
    made = write_json(tmp_path / "made.json", [two])
    prepared(read_dataset(made), render(Spec(chat=True)), path=made)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([row("p", "1", model="m")], [], r"a.json and .*b.json: expected answers of different models, found 'm' in both; "),
        ([row("p", "1")], ["--names", "x"], "--names x: expected 2 names, one a file"),
        ([row("p", "1")], ["--names", "x,"], "--names x,: expected 2 names, one a file"),
        ([row("p", "1")], ["--names", "x, x"], "found 'x' in both"),
        ([row("p", "1"), row("p")], [], r"a.json, row 2: expected an answer, `answer1`, found only prompt"),
        ([{"prompt": "p", "answer1": 3}], [], r"a.json, row 1: expected `answer1` to be text, found the number 3"),
        ([{"answer1": "a"}], [], r"a.json, row 1: expected `prompt` to be text or a list of .*, found nothing"),
        ([row("p", "1") | {"meta": {"models": "m"}}], [], r"row 1: expected `meta.models` to name each .* found the text 'm'"),
        ([row("other", "1")], [], r"joined by prompt: expected answers to compare, found none in 2 prompts \(not in .*: 1; not"),
        ([], [], "a.json: no tasks in it"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(rows: list[dict[str, Any]], options: list[str], said: str, tmp_path: Path) -> None:
    a, b = files(tmp_path, a=rows, b=[row("p", "2", model="m")])
    command: list[str | Path] = ["lsplugin", "dataset", "merge", a, b, "-o", tmp_path / "made.json", *options]
    assert re.search(said, complaint(command))
    assert not (tmp_path / "made.json").exists()


def test_one_file_or_one_that_would_be_lost(tmp_path: Path) -> None:
    a, b = files(tmp_path, a=[row("p", "1")], b=[row("p", "2")])
    assert "expected two datasets or more to merge, found 1" in complaint(["lsplugin", "dataset", "merge", a])
    before = a.read_text()
    said = complaint(["lsplugin", "dataset", "merge", a, b, "-o", a])
    assert said.endswith("a.json: expected a file to write, found one that is read; name another with -o")
    assert a.read_text() == before


def test_files_of_one_name_in_two_folders_need_names(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(write_lines(tmp_path / folder / "dataset.jsonl", [row("p", folder)]))
    with pytest.raises(LspluginError, match="found 'dataset' in both"):
        merge(paths)
    assert len(merge(paths, names=["a", "b"]).tasks) == 1


ROWS = st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("xyz")), min_size=1, max_size=8)


@given(st.lists(ROWS, min_size=2, max_size=4))
def test_every_prompt_is_a_task_or_counted(
    tmp_path_factory: pytest.TempPathFactory, found: list[list[tuple[str, str]]]
) -> None:
    """The n-th answers to a prompt meet, wherever they stand; as many are counted as the file has that asks it most often."""
    folder = tmp_path_factory.mktemp("merge")
    paths = [
        write_json(folder / f"{number}.json", [row(*pair) for pair in pairs]) for number, pairs in enumerate(found)
    ]
    made = merge(paths)
    lists: list[dict[str, list[str]]] = [defaultdict(list) for _ in found]
    for answers, pairs in zip(lists, found, strict=True):
        for prompt, answer in pairs:
            answers[prompt].append(answer)
    joined = [
        (prompt, texts) for prompt in "pqr" for texts in zip(*(answers[prompt] for answers in lists), strict=False)
    ]
    expected = [(prompt, texts) for prompt, texts in joined if len(set(texts)) == len(texts)]
    names = [f"answer{number}" for number in range(1, len(found) + 1)]
    assert sorted((task["prompt"], tuple(task[name] for name in names)) for task in made.tasks) == sorted(expected)
    assert made.rows == sum(max(len(answers[prompt]) for answers in lists) for prompt in "pqr")
    assert made.rows == len(made.tasks) + made.dropped.total()
    assert made.dropped["the answers are identical"] == len(joined) - len(expected)


def test_what_two_models_generate_is_compared(tiny_causal: Path, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"The coffee, {number}:"} for number in range(5)])
    for name, seed in (("base", "1"), ("tuned", "2")):
        out = tmp_path / f"{name}.json"
        command: list[str | Path] = [
            "ppo",
            "generate",
            "--policy",
            tiny_causal,
            "--prompts",
            prompts,
            "--seed",
            seed,
            "-o",
            out,
        ]
        assert run_cli([*command, "--max-new-tokens", "8", "--accelerator", "cpu"]).code == 0
    command = [
        "lsplugin",
        "dataset",
        "merge",
        tmp_path / "base.json",
        tmp_path / "tuned.json",
        "-o",
        tmp_path / "ab.json",
    ]
    assert f"found {str(tiny_causal)!r} in both" in complaint(command)
    result = run_cli([*command, "--one-each", "--names", "base, tuned"])
    assert result.code == 0, result.stderr
    assert re.search(r"joined by prompt\ntasks +5\nprompts +5\nwrote .*ab.json: 5 tasks\n", result.stderr)
    made = json.loads((tmp_path / "ab.json").read_text(encoding="utf-8"))
    assert [task["meta"]["models"] for task in made] == [{"answer1": "base", "answer2": "tuned"}] * 5
    for number, name in enumerate(("base", "tuned"), start=1):
        known = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert [task[f"answer{number}"] for task in made] == [one["answer1"] for one in known]
    assert len(prepared(read_dataset(tmp_path / "ab.json"), render(), path="ab.json")) == 5
