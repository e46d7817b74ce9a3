"""What people call equal becomes a pair with probability one half, where it is asked for, and disagreement does not."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.aggregate import METHODS
from lsplugin.cli_pairs import TIES
from lsplugin.formats import FORMATS
from lsplugin.judged import Accounting
from lsplugin.pairs import aggregated_pairs, pairs_from_export
from lsplugin.preferences import read_pairs
from tests.helpers import complaint, pairwise_result, read_lines, run_cli, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from lsplugin.preferences import Pair

# Of a tie the answer with the smaller digest is called chosen. `printf 'p\0three' | b2sum` begins with 8876, that of two with
# b12a, that of one with ee70: so it is three before two before one.


def choice(value: str, name: str = "verdict") -> dict[str, Any]:
    return {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": [value]}}


def says(what: str, who: int = 4, **more: Any) -> dict[str, Any]:
    """An annotation: left, right, tie or both-bad."""
    result = [*pairwise_result(what), choice("better")] if what in {"left", "right"} else [choice(what)]
    return {"id": 1, "completed_by": who, "result": result} | more


def task(number: int, *annotations: dict[str, Any], texts: tuple[str, ...] = ("one", "two"), **more: Any) -> Any:
    data = {"prompt": "p"} | {f"answer{place}": text for place, text in enumerate(texts, start=1)}
    return {"id": number, "data": data, "annotations": list(annotations)} | more


def convert(*tasks: dict[str, Any], ties: bool = True) -> tuple[list[Pair], Accounting]:
    accounting = Accounting()
    return list(pairs_from_export(tasks, accounting, ties=ties)), accounting


def aggregate(*tasks: dict[str, Any], method: str = "majority", ties: bool = True) -> tuple[list[Pair], Accounting]:
    accounting = Accounting()
    return list(aggregated_pairs(lambda: tasks, accounting, method, ties=ties)), accounting


def is_tie(pair: Pair) -> bool:
    return pair.meta.get("verdict") == "tie"


EXPORT = (
    task(
        1,
        says(
            "tie", id=11, lead_time=2.5, result=[*pairwise_result("left"), choice("tie"), choice("left", "criterion-x")]
        ),
        meta={"models": {"answer1": "m", "answer2": "n"}},
    ),
    task(2, says("both-bad")),
    task(3, says("left"), says("right", 5)),
    task(4, says("tie"), texts=("same", "same")),
    task(5, says("tie", was_cancelled=True)),
)


def test_an_export_worked_by_hand() -> None:
    pairs, accounting = convert(*EXPORT)
    assert [(pair.chosen, pair.rejected, pair.probability) for pair in pairs] == [
        ("two", "one", 0.5), ("one", "two", None), ("two", "one", None)
    ]  # fmt: skip
    assert pairs[0].to_dict() == {
        "prompt": "p",
        "chosen": "two",
        "rejected": "one",
        "probability": 0.5,  # no margin, no weight
        "meta": {
            "task": 1,
            "annotation": 11,
            "annotator": 4,
            "lead_time": 2.5,
            "answers": {"chosen": "answer2", "rejected": "answer1"},
            "models": {"chosen": "n", "rejected": "m"},
            "criteria": {"x": "rejected"},  # left, "one", is better in x
            "verdict": "tie",  # and no side
        },
    }
    assert accounting.to_dict() == {
        "tasks": 5,
        "unlabelled": 0,
        "annotations": 6,
        "used": 3,
        "dropped": {"both answers are bad": 1, "both answers are identical": 1, "skipped by the annotator": 1},
        "pairs": 3,
        "ties": 2,
        "rewrites": 0,
    }
    before, without = convert(*EXPORT, ties=False)
    assert before == pairs[1:]
    assert without.dropped == {"a tie": 2, "both answers are bad": 1, "skipped by the annotator": 1}


def test_a_tie_is_the_same_on_whatever_sides_and_neither_side_model_or_length_is_preferred() -> None:
    chosen = []
    for number in range(400):
        texts = f"short {number}", f"a longer answer {number}"
        [plain], _ = convert(task(1, says("tie"), texts=texts))
        [swapped], _ = convert(task(1, says("tie"), texts=texts[::-1], meta={"order": ["answer2", "answer1"]}))
        assert (plain.chosen, plain.rejected, plain.meta) == (swapped.chosen, swapped.rejected, swapped.meta)
        chosen.append(plain.chosen == texts[0])
    assert 160 < sum(chosen) < 240  # of a fair coin's 400 throws, four standard deviations around 200


def ranked(tiers: dict[str, list[str]], *more: dict[str, Any]) -> dict[str, Any]:
    ranker = {"from_name": "ranking", "to_name": "items", "type": "ranker", "value": {"ranker": {"_": []} | tiers}}
    items = [{"id": f"answer{place}"} for place in (1, 2, 3)]
    made = task(1, says("tie", result=[ranker, *more]), texts=("one", "two", "three"))
    made["data"]["items"] = items
    return dict(made)


@pytest.mark.parametrize(
    ("made", "preferred", "level"),
    [
        (ranked({"tier1": ["answer1", "answer3"], "tier2": ["answer2"]}), ["one>two", "three>two"], ["three=one"]),
        (ranked({"tier1": ["answer1", "answer2", "answer3"]}), [], ["three=two", "three=one", "two=one"]),
        (ranked({"_": ["answer3"], "tier2": ["answer1", "answer2"]}), [], ["two=one"]),  # three was not sorted
        (ranked({"tier1": ["answer1"], "tier2": ["answer2"], "tier3": ["answer3"]}), ["one>two", "one>three", "two>three"], []),
        (ranked({"tier1": ["answer1"]}, choice("tie")), [], ["three=two", "three=one", "two=one"]),
        (ranked({"tier1": ["answer1", "answer2"]}, choice("both-bad")), [], []),
    ],
)  # fmt: skip
def test_a_tier_is_a_tie_of_every_two_in_it(made: dict[str, Any], preferred: list[str], level: list[str]) -> None:
    for pairs, accounting in (convert(made), aggregate(made)):
        assert sorted(f"{p.chosen}>{p.rejected}" for p in pairs if not is_tie(p)) == sorted(preferred)
        assert sorted(f"{p.chosen}={p.rejected}" for p in pairs if is_tie(p)) == sorted(level)
        assert all(pair.probability == 0.5 for pair in pairs if is_tie(pair))
        assert accounting.used == bool(preferred + level)
        assert accounting.pairs == len(preferred + level)


def test_a_tie_has_neither_strength_nor_margin() -> None:
    """Where a ranking's annotation names a strength, or where stars were given: both are of what differs."""
    made = ranked({"tier1": ["answer1", "answer3"], "tier2": ["answer2"]}, choice("much"))
    *preferred, tie = convert(made)[0]
    assert [(pair.margin, pair.meta["strength"]) for pair in preferred] == [(1.0, "much")] * 2
    assert (tie.margin, tie.meta.get("strength")) == (None, None)
    stars = [
        {"from_name": f"overall_answer{place}", "type": "rating", "value": {"rating": count}}
        for place, count in enumerate((4, 2, 4), start=1)
    ]
    for method in (convert, aggregate):
        pairs, _ = method(task(1, says("tie", result=stars), texts=("one", "two", "three")))
        found = {(p.chosen, p.rejected): (p.margin, is_tie(p)) for p in pairs}
        assert found == {("one", "two"): (0.5, False), ("three", "two"): (0.5, False), ("three", "one"): (None, True)}


VOTED = (
    task(1, says("tie", 1), says("tie", 2), texts=("one", "two")),
    task(2, says("tie", 3), texts=("two", "one")),  # the same answers with the sides swapped
    task(3, says("left", 1), says("right", 2), texts=("c", "d")),
    task(4, says("left", 1), says("right", 2), says("tie", 3), texts=("e", "f")),
    task(5, says("tie", 1), says("both-bad", 2), texts=("g", "h")),
    task(6, says("both-bad", 1), says("both-bad", 2), texts=("i", "j")),
    task(7, says("left", 1), says("tie", 2), texts=("k", "l")),
)


def test_what_everybody_calls_equal_is_a_tie_and_disagreement_is_not() -> None:
    pairs, accounting = aggregate(*VOTED)
    assert [(p.chosen, p.rejected, p.probability, p.weight, p.margin) for p in pairs] == [
        ("two", "one", 0.5, 3.0, None), ("k", "l", 0.75, 2.0, None)
    ]  # fmt: skip
    assert pairs[0].meta == {
        "task": 1,
        "answers": {"chosen": "answer2", "rejected": "answer1"},
        "votes": {"chosen": 0, "rejected": 0, "tie": 3},
        "annotators": ["1", "2", "3"],
        "verdict": "tie",
    }
    assert accounting.to_dict() == {
        "tasks": 7,
        "unlabelled": 0,
        "annotations": 14,
        "used": 5,  # three ties, and two votes on the last task
        "dropped": {"a tie that others did not see": 2, "annotators evenly split": 4, "both answers are bad": 3},
        "pairs": 2,
        "ties": 6,
        "rewrites": 0,
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_same_ties_beside_the_same_preferences(method: str) -> None:
    """Bradley and Terry's model may decide a split item by its scores; a tie it leaves alone."""
    pairs, _ = aggregate(*VOTED, method=method)
    assert [(p.chosen, p.rejected, p.probability) for p in pairs if is_tie(p)] == [("two", "one", 0.5)]
    assert [p for p in pairs if not is_tie(p)] == aggregate(*VOTED, method=method, ties=False)[0]


SAID = st.sampled_from(["left", "right", "tie", "both-bad"])


@given(st.lists(st.lists(st.tuples(SAID, st.integers(1, 3)), max_size=4), max_size=6), st.sampled_from(["", *METHODS]))
def test_ties_are_added_and_nothing_else_changes(tasks: list[list[tuple[str, int]]], method: str) -> None:
    made = [task(n, *(says(*said) for said in found), texts=(f"a{n}", f"b{n}")) for n, found in enumerate(tasks)]
    run = partial(aggregate, *made, method=method) if method else partial(convert, *made)
    pairs, accounting = run(ties=True)
    before, without = run(ties=False)
    assert [pair for pair in pairs if not is_tie(pair)] == before
    assert accounting.annotations == sum(map(len, tasks)) == accounting.used + accounting.dropped.total()
    assert (accounting.pairs, accounting.ties) == (len(pairs), without.ties)
    level = [n for n, said in enumerate(tasks) if said and {what for what, _ in said} == {"tie"}]
    spoken = sum(what == "tie" for said in tasks for what, _ in said)
    assert sum(map(is_tie, pairs)) == (len(level) if method else spoken)
    if method:
        assert accounting.used - without.used == sum(len(tasks[n]) for n in level)


class TestTheCommand:
    def test_ties_are_written_and_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_json(tmp_path / "e.json", EXPORT)
        done = run_cli(["lsplugin", "pairs", "e.json", "--ties", "--counts", "c.json"])
        assert done.code == 0
        assert [row.split()[-1] for row in done.stderr.splitlines() if "of them: ties" in row] == ["1"]
        assert [(p.chosen, p.probability) for p in read_pairs("pairs.jsonl")] == [
            ("two", 0.5), ("one", None), ("two", None)
        ]  # fmt: skip
        counts = json.loads((tmp_path / "c.json").read_text())
        assert counts["annotations"] == counts["used"] + sum(counts["dropped"].values()) == 6
        without = run_cli(["lsplugin", "pairs", "e.json"])
        assert "of them: ties" not in without.stderr
        assert len(read_lines(tmp_path / "pairs.jsonl")) == 2

    def test_a_split_and_a_method_take_them_along(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_json(tmp_path / "e.json", VOTED)
        command = ["lsplugin", "pairs", "e.json", "--ties", "--aggregate", "majority", "--split", "0.5,0.5"]
        assert run_cli(command).code == 0
        rows = [row for part in ("train", "test") for row in read_lines(tmp_path / f"pairs.{part}.jsonl")]
        assert [(row["chosen"], row["probability"], row["weight"]) for row in rows] == [
            ("two", 0.5, 3.0), ("k", 0.75, 2.0)
        ]  # fmt: skip

    @pytest.mark.parametrize("form", FORMATS)
    def test_formats_that_would_show_a_preference_refuse(
        self, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A row may come of a tie where it says that it is one, or where it says nothing of its answers."""
        monkeypatch.chdir(tmp_path)
        write_json(tmp_path / "e.json", [EXPORT[0]])
        command = ["lsplugin", "pairs", "e.json", "--ties", "--format", form]
        if form in TIES:
            assert run_cli(command).code == 0
            (row,) = read_lines(tmp_path / "pairs.jsonl")
            assert row.get("probability") == 0.5 or set(row) == {"prompt"}
            return
        assert complaint(command).startswith(f"--ties with --format {form}: its rows hold no probability")
        assert not (tmp_path / "pairs.jsonl").exists()
