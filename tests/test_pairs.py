"""Annotations become pairs, and every one of them is accounted for."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.errors import LspluginError
from lsplugin.export import read_export
from lsplugin.interface import Interface
from lsplugin.judged import Accounting
from lsplugin.labels import read_labels
from lsplugin.pairs import aggregated_pairs, pairs_from_export
from lsplugin.triage import disputed
from tests.helpers import GOOD_CONFIG, pairwise_result, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = {"prompt": "p", "answer1": "one", "answer2": "two"}


def annotation(result: object, **more: Any) -> dict[str, Any]:
    return {"id": 1, "completed_by": 4, "result": result, "was_cancelled": False, **more}


def task(*annotations: dict[str, Any], data: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": data or DATA, "annotations": list(annotations), **more}


def convert(*tasks: dict[str, Any], **options: Any) -> tuple[list[Any], Accounting]:
    accounting = Accounting()
    return list(pairs_from_export(tasks, accounting, **options)), accounting


def test_an_export_worked_by_hand() -> None:
    pairs, accounting = convert(
        task(annotation(pairwise_result("left"), id=11, lead_time=2.5), meta={"models": {"answer1": "m"}}),
        task(
            annotation(pairwise_result("right")),
            annotation(pairwise_result("left"), completed_by={"id": 5, "email": "a@b.c"}),
        ),
        task(annotation(pairwise_result("left"), was_cancelled=True), annotation([])),
        task(annotation([{"type": "textarea", "from_name": "reason", "value": {"text": ["because"]}}])),
        task(annotation(pairwise_result("left")), data={**DATA, "answer2": "one"}),
        task(),
    )
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        ("p", "one", "two"), ("p", "two", "one"), ("p", "one", "two")
    ]  # fmt: skip
    assert pairs[0].meta == {
        "task": 7,
        "annotation": 11,
        "annotator": 4,
        "chosen_side": "left",
        "lead_time": 2.5,
        "answers": {"chosen": "answer1", "rejected": "answer2"},
        "models": {"chosen": "m", "rejected": None},
    }
    assert [pair.meta["annotator"] for pair in pairs] == [4, 4, 5]
    assert accounting.to_dict() == {
        "tasks": 6,
        "unlabelled": 1,
        "annotations": 7,
        "used": 3,
        "pairs": 3,
        "ties": 0,
        "rewrites": 0,
        "dropped": {
            "both answers are identical": 1,
            "no comparison among its results": 1,
            "skipped by the annotator": 1,
            "submitted without a choice": 1,
        },
    }


KINDS = st.sampled_from(["left", "right", "skip", "empty", "banana", "other"])


def of_kind(kind: str) -> dict[str, Any]:
    if kind in {"skip", "empty"}:
        return annotation([], was_cancelled=kind == "skip")
    return annotation([{"type": "rating", "value": {}}] if kind == "other" else pairwise_result(kind))


@given(st.lists(st.lists(KINDS, max_size=4), max_size=6))
def test_counts_in_are_counts_out_for_any_mixture(kinds: list[list[str]]) -> None:
    pairs, accounting = convert(*(task(*map(of_kind, row)) for row in kinds), skip_bad=True)
    flat = [kind for row in kinds for kind in row]
    assert accounting.annotations == len(flat) == len(pairs) + accounting.dropped.total()
    assert len(pairs) == sum(kind in {"left", "right"} for kind in flat)
    assert accounting.dropped["not understood"] == flat.count("banana")
    assert accounting.unlabelled == sum(not row for row in kinds)


@given(st.lists(st.sampled_from(["left", "right"]), max_size=5), st.text(min_size=1), st.text(min_size=1))
def test_swapping_the_sides_changes_nothing(sides: list[str], one: str, two: str) -> None:
    def pairs(*, swapped: bool) -> list[tuple[str, str]]:
        answers = (two, one) if swapped else (one, two)
        chosen = [{"left": "right", "right": "left"}[side] if swapped else side for side in sides]
        data = {"prompt": "p", "answer1": answers[0], "answer2": answers[1]}
        found, _ = convert(task(*(annotation(pairwise_result(side)) for side in chosen), data=data))
        return [(pair.chosen, pair.rejected) for pair in found]

    assert pairs(swapped=True) == pairs(swapped=False)


@pytest.mark.parametrize("value", ["banana", None, "none"])
def test_unknown_values_stop_with_the_task(value: str | None) -> None:
    bad = task(annotation([{"type": "pairwise", "value": {"selected": value}}]))
    with pytest.raises(LspluginError, match=r"task 7: expected the comparison to be left or right, found .*--skip-bad"):
        convert(bad)
    assert convert(bad, skip_bad=True)[1].dropped == {"not understood": 1}


def test_missing_fields_name_what_there_is() -> None:
    with pytest.raises(
        LspluginError, match=r"task 7: the field `answer1` is missing \(it has prompt, left\); .*--config"
    ):
        convert(task(annotation(pairwise_result("left")), data={"prompt": "p", "left": "x"}))


def test_other_names_come_from_the_config() -> None:
    config = (
        GOOD_CONFIG.replace("comparison", "pw")
        .replace('"$answer', '"$text')
        .replace("answer1,answer2", "answer2,answer1")
    )
    interface = Interface.from_config(config)
    assert (interface.prompt, interface.answers, interface.control) == ("prompt", ("text2", "text1"), "pw")
    assert (interface.controls or {})["pw"] == "Pairwise"
    data = {"prompt": "p", "text1": "one", "text2": "two"}
    two_controls = [*pairwise_result("right", "other"), *pairwise_result("left", "pw")]
    pairs, _ = convert(task(annotation(two_controls), data=data), interface=interface)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("two", "one")]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("<View/>", "no <Pairwise>"),
        (GOOD_CONFIG.replace("answer1,answer2", "answer1,nothing"), "does not name two objects"),
        (GOOD_CONFIG.replace('  <Text name="prompt" value="$prompt"/>\n', ""), "displays no prompt"),
    ],
)
def test_configs_that_make_no_pairs_are_refused(config: str, said: str) -> None:
    with pytest.raises(LspluginError, match=said):
        Interface.from_config(config)


class TestReading:
    def test_tasks_come_one_at_a_time(self, tmp_path: Path) -> None:
        """What is broken after the first task is not looked at before the second is asked for."""
        first = write_json(tmp_path / "e.json", [task()]).read_text().removesuffix("]")
        (tmp_path / "e.json").write_text(first + ", " + " " * 200_000 + "broken]")
        tasks = read_export(tmp_path / "e.json")
        assert next(tasks)["id"] == 7
        with pytest.raises(LspluginError, match="line 1: expected JSON"):
            next(tasks)

    def test_any_text_is_read_back(self, tmp_path: Path) -> None:
        data = {"prompt": 'a\n\n"b" \\ 😀 שלום \u2028', "answer1": "", "answer2": "\t"}
        (found,) = read_export(write_json(tmp_path / "e.json", [task(data=data)]))
        assert found["data"] == data

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "line 1: expected JSON"),
            ('{"id": 1}', "expected a list of tasks"),
            ("[1]", "task 1: expected a task with its `data`, found the number 1"),
            ('[{"id": 1}]', "task 1: expected a task with its `data`"),
            ('[{"data": {}},\n{"data": }]', "line 2: expected JSON"),
            ('[{"data": {}}', "line 1: expected JSON"),
        ],
    )
    def test_what_is_no_export_is_named(self, content: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "e.json").write_text(content)
        with pytest.raises(LspluginError, match=said):
            list(read_export(tmp_path / "e.json"))

    def test_a_csv_like_row_without_annotations_is_explained(self) -> None:
        with pytest.raises(LspluginError, match="export as JSON"):
            convert({"id": 7, "data": DATA})


def verdict(*chosen: str, name: str = "verdict") -> dict[str, Any]:
    return {"from_name": name, "to_name": "prompt", "type": "choices", "value": {"choices": list(chosen)}}


@pytest.mark.parametrize(
    ("result", "becomes"),
    [
        ([*pairwise_result("left"), verdict("better")], ("left", None)),
        ([*pairwise_result("right"), verdict("much")], ("right", "much")),
        ([*pairwise_result("left"), verdict("tie")], "a tie"),  # a side and a tie: the verdict counts
        ([*pairwise_result("left"), verdict("both-bad")], "both answers are bad"),
        ([verdict("tie")], "a tie"),
        ([verdict("better")], "a verdict without a side"),
        ([verdict("left-clearly", name="comparison")], ("left", "clearly")),
        ([verdict("right-slightly", name="comparison")], ("right", "slightly")),
        ([verdict("tie", name="comparison")], "a tie"),
        ([verdict("both-bad", name="comparison")], "both answers are bad"),
        ([verdict("a", name="reasons")], "no comparison among its results"),
    ],
)
def test_what_a_verdict_or_a_scale_means(result: list[dict[str, Any]], becomes: object) -> None:
    task = {
        "id": 1,
        "data": {"prompt": "p", "answer1": "a", "answer2": "b"},
        "annotations": [{"id": 2, "result": result}],
    }
    accounting = Accounting()
    pairs = list(pairs_from_export([task], accounting))
    if isinstance(becomes, str):
        assert pairs == []
        assert dict(accounting.dropped) == {becomes: 1}
        return
    (pair,) = pairs
    assert (pair.meta["chosen_side"], pair.meta.get("strength")) == becomes
    assert pair.chosen == {"left": "a", "right": "b"}[pair.meta["chosen_side"]]


@pytest.mark.parametrize("value", ["Left", "left-", "left-very", "worse"])
def test_choices_that_no_template_offers_are_refused_with_the_task(value: str) -> None:
    for name in ("comparison", "verdict"):
        task = {
            "id": 7,
            "data": {"prompt": "p", "answer1": "a", "answer2": "b"},
            "annotations": [{"id": 2, "result": [verdict(value, name=name)]}],
        }
        if (name, value) == ("comparison", "left-"):
            continue
        with pytest.raises(LspluginError, match=r"task 7: expected the (verdict|comparison) to be"):
            list(pairs_from_export([task], Accounting()))


def test_fields_of_rendered_configs() -> None:
    from lsplugin.render import render
    from lsplugin.template import Spec

    found = Interface.from_config(render(Spec(markdown=True, chat=True)))
    assert (found.prompt, found.answers, found.control) == ("prompt", ("answer1", "answer2"), "comparison")
    assert found.lists == ("prompt",)
    other = Spec(template="scale", prompt_field="q", answer_fields=("x", "y"))
    found = Interface.from_config(render(other))
    assert (found.prompt, found.answers, found.control) == ("q", ("x", "y"), "comparison")
    assert found.controls == {"comparison": "Choices"}


def ranking(order: object, name: str = "ranking") -> dict[str, Any]:
    return {"from_name": name, "to_name": "items", "type": "ranker", "value": {"ranker": order}}


def stars(name: str, count: float) -> dict[str, Any]:
    return {"from_name": name, "to_name": name.rpartition("_")[2], "type": "rating", "value": {"rating": count}}


# Boxes A, B, C show what the dataset called answer3, answer1, answer2.
RANKED = {
    "prompt": "p",
    "answer1": "three",
    "answer2": "one",
    "answer3": "two",
    "items": [{"id": "answer3"}, {"id": "answer1"}, {"id": "answer2"}],
}


@pytest.mark.parametrize(
    ("order", "pairs", "ties"),
    [
        (
            {"_": [], "tier1": ["answer3"], "tier2": ["answer1"], "tier3": ["answer2"]},
            ["three>one", "three>two", "one>two"],
            0,
        ),
        ({"_": [], "tier1": ["answer2"], "tier2": ["answer1", "answer3"], "tier3": []}, ["two>one", "two>three"], 1),
        ({"_": ["answer1"], "tier3": ["answer2"], "tier1": ["answer3"]}, ["three>two"], 0),  # one was not sorted
        ({"rank": ["answer1", "answer2", "answer3"]}, ["one>two", "one>three", "two>three"], 0),
        (["answer2", "answer1", "answer3"], ["two>one", "two>three", "one>three"], 0),  # as older versions stored it
    ],
)
def test_tiers_become_a_pair_for_every_two_answers_that_are_not_level(
    order: object, pairs: list[str], ties: int
) -> None:
    found, accounting = convert(task(annotation([ranking(order), verdict("ranked")]), data=RANKED))
    assert sorted(f"{pair.chosen}>{pair.rejected}" for pair in found) == sorted(pairs)
    assert (accounting.used, accounting.pairs, accounting.ties) == (1, len(pairs), ties)


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([ranking({"rank": ["answer3", "answer1", "answer2"]})], "a ranking left as it was shown"),
        ([ranking({"_": ["answer3", "answer1", "answer2"]}), verdict("ranked")], "fewer than two answers were sorted"),
        ([ranking({"tier1": ["answer1"]}), verdict("tie")], "a tie"),
        ([ranking({"tier1": ["answer1"]}), verdict("both-bad")], "all answers are bad"),
        ([ranking({"tier1": ["answer1", "answer2", "answer3"]}), verdict("ranked")], "a tie"),
        ([stars("overall_answer1", 3), stars("overall_answer2", 3), stars("overall_answer3", 3)], "a tie"),
        ([stars("a_answer1", 3), stars("b_answer1", 3), stars("a_answer2", 1)], "not every answer was rated"),
    ],
)
def test_rankings_and_ratings_that_prefer_nothing(results: list[dict[str, Any]], reason: str) -> None:
    found, accounting = convert(task(annotation(results), data=RANKED))
    assert found == []
    assert dict(accounting.dropped) == {reason: 1}


def test_stars_place_answers_by_their_mean_over_the_criteria() -> None:
    given = [stars("a_answer1", 5), stars("b_answer1", 1), stars("a_answer2", 3), stars("b_answer2", 3)]
    given += [stars("a_answer3", 4), stars("b_answer3", 4)]
    data = {"prompt": "p", "answer1": "one", "answer2": "two", "answer3": "three"}
    found, accounting = convert(task(annotation(given), data=data))
    assert sorted(f"{pair.chosen}>{pair.rejected}" for pair in found) == ["three>one", "three>two"]
    assert accounting.ties == 1


def test_tiers_of_another_config_have_the_order_of_its_buckets() -> None:
    config = """<View><Text name="q" value="$q"/><List name="l" value="$hits"/>
    <Ranker name="r" toName="l"><Bucket name="good"/><Bucket name="bad"/></Ranker></View>"""
    data = {"q": "p", "hits": [{"id": "x", "body": "text x"}, {"id": "y", "body": "text y"}]}
    done = task(annotation([ranking({"bad": ["x"], "good": ["y"]}, "r")]), data=data)
    found, _ = convert(done, interface=Interface.from_config(config))
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found] == [("p", "text y", "text x")]
    with pytest.raises(LspluginError, match=r"task 7: nobody knows which of the tiers bad, good is best; .*--config"):
        convert(task(annotation([ranking({"bad": ["answer1"], "good": ["answer2"]})]), data=RANKED))
    with pytest.raises(LspluginError, match="task 7: the ranking names answer9"):
        convert(task(annotation([ranking({"tier1": ["answer9"], "tier2": ["answer1"]})]), data=RANKED))


RESULTS = st.lists(
    st.one_of(
        st.sampled_from(["left", "right"]).map(lambda side: pairwise_result(side)[0]),
        st.sampled_from(["better", "tie", "both-bad", "much"]).map(verdict),
        st.sampled_from(["left-much", "right-slightly", "tie"]).map(lambda value: verdict(value, name="comparison")),
        st.permutations(["answer1", "answer2", "answer3"]).map(
            lambda ids: ranking({"tier1": ids[:1], "tier2": ids[1:]})
        ),
        st.tuples(st.integers(1, 3), st.integers(1, 5)).map(lambda star: stars(f"overall_answer{star[0]}", star[1])),
    ),
    max_size=3,
)


@given(st.lists(st.tuples(RESULTS, st.booleans())))
def test_any_mixture_of_annotations_is_accounted_for(mixture: list[tuple[list[dict[str, Any]], bool]]) -> None:
    tasks = [task(annotation(results, was_cancelled=skipped), data=RANKED) for results, skipped in mixture]
    found, accounting = convert(*tasks, skip_bad=True)
    assert accounting.annotations == len(mixture) == accounting.used + sum(accounting.dropped.values())
    assert accounting.pairs == len(found)


@given(RESULTS)
def test_how_a_ranking_was_shuffled_changes_nothing(results: list[dict[str, Any]]) -> None:
    """Another order of the boxes, told by the items: the same pairs."""
    other = RANKED | {"answer1": "one", "answer2": "two", "answer3": "three"}
    other |= {"items": [{"id": "answer1"}, {"id": "answer2"}, {"id": "answer3"}]}
    only = [found for found in results if found["type"] == "ranker"]
    made = [convert(task(annotation(only), data=data), skip_bad=True)[0] for data in (RANKED, other)]
    pairs = [{(pair.chosen, pair.rejected) for pair in found} for found in made]
    assert pairs[0] == pairs[1]


WHOLE = task(
    annotation(
        [
            *pairwise_result("left"),
            verdict("a", name="criterion-x"),
            verdict("r", name="reasons"),
            {"from_name": "rewrite_answer1", "type": "textarea", "value": {"text": ["n"]}},
        ],
        lead_time=3.0,
        created_at="2026-01-01T00:00:00Z",
    ),
    meta={
        "order": ["answer1", "answer2"],
        "models": {"answer1": "m"},
        "prelabel": {"shown": True, "answer": "answer1"},
    },
)
JUNK = [None, 0, -1, 1.5, True, "", "x", [], {}, [1], {"a": 1}, [None], ["x"], [["x"]], "\ud83d"]


READERS: list[Callable[[list[Any], bool], object]] = [
    lambda tasks, skip: list(pairs_from_export(tasks, Accounting(), skip_bad=skip)),
    lambda tasks, skip: list(aggregated_pairs(lambda: tasks, Accounting(), "majority", skip_bad=skip)),
    lambda tasks, skip: disputed(lambda: tasks, top=5, skip_bad=skip),
    lambda tasks, skip: read_labels(tasks, skip_bad=skip),
]


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value of JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inside for found in places(part, (*path, key)))]


@pytest.mark.parametrize("place", places(WHOLE)[1:], ids=lambda place: ".".join(map(str, place)))
def test_whatever_stands_anywhere_is_one_line_or_is_read(place: tuple[Any, ...]) -> None:
    for junk in JUNK:
        broken = copy.deepcopy(WHOLE)
        inside: Any = broken
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = junk
        if not isinstance(broken["data"], dict):
            continue  # the reader of exports refuses it
        for skip_bad in (True, False):
            for read in READERS:
                with contextlib.suppress(LspluginError):
                    read([broken, WHOLE], skip_bad)
