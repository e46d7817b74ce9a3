"""Which answer stands where, what is asked twice, what is known: drawn evenly, repeatably, and undone in the pairs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.dataset import Task, read_dataset
from lsplugin.errors import LspluginError
from lsplugin.interface import Interface
from lsplugin.judged import Accounting, read_judged
from lsplugin.plan import Plan, planned
from lsplugin.prepare import prepare
from lsplugin.render import build, render
from lsplugin.template import Spec
from tests.helpers import pairwise_result, write_json, write_lines

if TYPE_CHECKING:
    from pathlib import Path

TWO = build(Spec())


def rows(count: int, answers: int = 2) -> list[Task]:
    names = [f"answer{number + 1}" for number in range(answers)]
    return [
        Task(
            {"prompt": f"p{row}", **{name: f"{name} of {row}" for name in names}},
            {"models": {name: f"model of {name}" for name in names}},
            row + 1,
        )
        for row in range(count)
    ]


def left(task: Task) -> str:
    return str(task.data["answer1"]).split(" of ")[0]


def test_each_answer_stands_left_equally_often_and_always_in_the_same_tasks() -> None:
    made = planned(rows(200), TWO, Plan())
    assert Counter(map(left, made)) == {"answer1": 100, "answer2": 100}
    assert [left(task) for task in made] != ["answer1", "answer2"] * 100
    assert made == planned(rows(200), TWO, Plan())
    other = planned(rows(200), TWO, Plan(seed=1))
    assert [task.key for task in other] == [task.key for task in made]
    assert 60 < sum(left(one) != left(two) for one, two in zip(made, other, strict=True)) < 140
    assert [task.data for task in planned(rows(9), TWO, Plan(keep_order=True))] == [task.data for task in rows(9)]


def test_places_of_more_answers_are_drawn_and_told() -> None:
    config = build(Spec(answers=3, markdown=True))
    made = planned(rows(600, answers=3), config, Plan())
    assert Counter(map(left, made)) == dict.fromkeys(["answer1", "answer2", "answer3"], 200)
    assert len({tuple(task.meta["order"]) for task in made}) == 6
    for task in made:
        assert [task.data[f"answer{box}"].split(" of ")[0] for box in (1, 2, 3)] == task.meta["order"]
        ready = prepare(task.data, config, order=task.meta["order"])
        assert [item["id"] for item in ready["items"]] == task.meta["order"]
        assert ready["answer1_html"] == f"<p>{task.data['answer1']}</p>\n"


def test_html_of_the_dataset_moves_with_its_answer_and_own_items_stay() -> None:
    row = Task({"prompt": "p", "answer1": "a", "answer2": "b", "answer1_html": "<p>a</p>", "answer2_html": "<p>b</p>"})
    for task in planned([row] * 2, build(Spec(markdown=True)), Plan()):
        assert task.data["answer1_html"] == f"<p>{task.data['answer1']}</p>"
    own = Task({"prompt": "p", "answer1": "a", "answer2": "b", "answer3": "c", "items": [{"id": "x"}]})
    assert planned([own] * 3, build(Spec(answers=3)), Plan())[1].data == own.data


@given(st.lists(st.sampled_from(["left", "right"]), max_size=12), st.integers(0, 5))
def test_what_people_chose_is_the_same_wherever_it_stood(sides: list[str], seed: int) -> None:
    made = planned(rows(len(sides)), TWO, Plan(seed=seed))
    export = [
        {"id": number, "data": task.data, "meta": task.meta, "annotations": [{"result": pairwise_result(side)}]}
        for number, (task, side) in enumerate(zip(made, sides, strict=True))
    ]
    for judged, task, side in zip(read_judged(export, Accounting(), Interface()), made, sides, strict=True):
        assert judged.judgement is not None
        place = judged.judgement.tiers[0][0]
        name = str(task.data[f"answer{['left', 'right'].index(side) + 1}"]).split(" of ")[0]
        assert judged.names[place] == name
        assert judged.model(place) == f"model of {name}"


@pytest.mark.parametrize(("how", "twos"), [("all", 6), ("adjacent", 3), ("random:2", 2), ("random:99", 6)])
def test_twos_of_more_answers(how: str, twos: int) -> None:
    made = planned(rows(50, answers=4), TWO, Plan(pairs=how))
    assert len(made) == 50 * twos == len({task.key for task in made})
    for task in made:
        assert set(task.data) == {"prompt", "answer1", "answer2"}
        assert [task.data[f"answer{box}"].split(" of ")[0] for box in (1, 2)] == task.meta["order"]
    found = Counter(frozenset(task.meta["order"]) for task in made)
    if how == "adjacent":
        assert set(found) == {frozenset({f"answer{n}", f"answer{n + 1}"}) for n in (1, 2, 3)}
    if how == "random:2":
        assert len(found) == 6
        assert min(found.values()) > 5


def test_mirrored_tasks_come_later_the_other_way_round() -> None:
    made = planned(rows(100), TWO, Plan(mirror="10%"))
    places = {task.key: place for place, task in enumerate(made)}
    copies = [task for task in made if "mirror" in task.meta]
    assert (len(made), len(copies), len(places)) == (110, 10, 110)
    for copy in copies:
        original = made[places[copy.meta["mirror"]]]
        assert (copy.data["answer1"], copy.data["answer2"]) == (original.data["answer2"], original.data["answer1"])
        assert copy.meta["order"] == original.meta["order"][::-1]
        assert places[copy.key] > places[original.key]
    gaps = [places[copy.key] - places[copy.meta["mirror"]] for copy in copies]
    assert sorted(gaps)[len(gaps) // 2] >= 20
    assert Counter(map(left, copies)).total() == 10


def test_gold_is_mixed_in_and_its_answer_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    known = [{**task.data, "prompt": f"gold {task.row}", "gold": f"answer{task.row % 2 + 1}"} for task in rows(20)]
    path = write_json(tmp_path / "gold.json", known)
    made = planned(rows(80), TWO, Plan(gold=path, mirror="50%"))
    gold = [place for place, task in enumerate(made) if "gold" in task.meta]
    assert len(gold) == 20
    assert min(gold) < 30
    assert max(gold) > 80
    for place in gold:
        task = made[place]
        assert set(task.data) == {"prompt", "answer1", "answer2"}
        assert set(task.meta) == {"gold", "key", "order"}
        assert task.meta["gold"]["answer"] == f"answer{int(task.data['prompt'].split()[1]) % 2 + 1}"
    assert not any("gold" in task.meta and "mirror" in task.meta for task in made)
    write_json(tmp_path / "bad.json", [known[0], {**known[1], "gold": "answer7"}])
    with pytest.raises(LspluginError, match=r"bad.json, row 2: expected `gold` to be answer1, answer2 or tie, found"):
        planned(rows(3), TWO, Plan(gold=tmp_path / "bad.json"))


def test_source_and_tags_travel_and_change_no_key() -> None:
    plain, named = planned(rows(3), TWO, Plan()), planned(rows(3), TWO, Plan(source="web", tag=("a", "b")))
    assert [task.key for task in plain] == [task.key for task in named]
    assert (named[0].meta["source"], named[0].meta["tags"]) == ("web", ["a", "b"])


class TestPrelabels:
    def scores(self, folder: Path, tasks: list[Task], model: str = "rm") -> Path:
        """answer2 of an even row is better by 3, of an odd one worse by 1."""
        lines = [
            {"prompt": task.data["prompt"], "answer": task.data[name], "score": score, "model": model}
            for task in tasks
            for name, score in (("answer1", 0.0), ("answer2", -1.0 if (task.row - 1) % 2 else 3.0))
        ]
        return write_lines(folder / "scores.jsonl", lines)

    def test_they_follow_the_answers_to_their_sides(self, tmp_path: Path) -> None:
        path = self.scores(tmp_path, rows(40))
        for name in ("pairwise", "scale"):
            config = build(Spec(template=name, strength=name == "pairwise"))
            made = planned(rows(40), config, Plan(predictions=path))
            for task in made:
                even = int(task.data["prompt"][1:]) % 2 == 0
                (prediction,) = task.predictions
                better = "answer2" if even else "answer1"
                side = "left" if left(task) == better else "right"
                strength = "much" if even else "clearly"  # 95% and 73%
                chosen = {result["from_name"]: result["value"] for result in prediction["result"]}
                expected: dict[str, Any] = {"comparison": {"choices": [f"{side}-{strength}"]}}
                if name == "pairwise":
                    expected = {"comparison": {"selected": side}, "verdict": {"choices": [strength]}}
                    assert prediction["result"][0]["to_name"] == "answer1"
                assert chosen == expected
                assert prediction["score"] == pytest.approx(0.952574 if even else 0.731059)
                shown = {"shown": True, "answer": better, "probability": prediction["score"], "model": "rm"}
                assert task.meta["prelabel"] == shown

    def test_a_share_of_them_stays_hidden(self, tmp_path: Path) -> None:
        made = planned(rows(400), TWO, Plan(predictions=self.scores(tmp_path, rows(400)), prelabel_share=0.5))
        assert [task.meta["prelabel"]["shown"] for task in made] == [bool(task.predictions) for task in made]
        assert 160 < sum(bool(task.predictions) for task in made) < 240

    def test_a_ranking_by_scores(self, tmp_path: Path) -> None:
        tasks = rows(4, answers=3)
        lines = [
            {"prompt": task.data["prompt"], "answer": task.data[f"answer{n}"], "score": n}
            for task in tasks
            for n in (1, 2, 3)
        ]
        path = write_lines(tmp_path / "scores.jsonl", lines)
        for task in planned(tasks, build(Spec(answers=3)), Plan(predictions=path)):
            order = task.predictions[0]["result"][0]["value"]["ranker"]
            assert order == {"_": [], "tier1": ["answer3"], "tier2": ["answer2"], "tier3": ["answer1"]}

    def test_stars_by_how_probably_an_answer_is_better(self, tmp_path: Path) -> None:
        path = self.scores(tmp_path, rows(2))  # better by 3: 95%, worse by 1: 27%
        for task in planned(rows(2), build(Spec(template="rating")), Plan(predictions=path)):
            given = {result["to_name"]: result["value"]["rating"] for result in task.predictions[0]["result"]}
            even = int(task.data["prompt"][1:]) % 2 == 0
            stars = {"answer1": 1, "answer2": 5} if even else {"answer1": 4, "answer2": 2}
            assert given == {f"answer{n + 1}": stars[name] for n, name in enumerate(task.meta["order"])}
        criteria = build(Spec(template="rating", criteria=("Clear", "Kind")))
        with pytest.raises(LspluginError, match="how many stars each of several criteria"):
            planned(rows(2), criteria, Plan(predictions=path))

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ([1], "line 1: expected an object"),
            ({"prompt": "p", "answer": "a"}, "line 1: expected `score` to be a number, found nothing"),
            ({"prompt": "p", "answer": 3, "score": 1}, "`answer` to be text"),
            ({"answer": "a", "score": 1}, "`prompt` to be text"),
            ({"prompt": "elsewhere", "answer": "a", "score": 1}, "none of its prompts and answers is in the dataset"),
        ],
    )
    def test_bad_scores(self, line: object, said: str, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "s.jsonl", [line])
        with pytest.raises(LspluginError, match=said):
            planned(rows(2), TWO, Plan(predictions=path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pairs": "some"}, "--pairs some: expected all, adjacent or random:K"),
        ({"pairs": "random:0"}, "--pairs random:0"),
        ({"mirror": "5 percent"}, "--mirror 5 percent: expected a share"),
        ({"mirror": "150%"}, "--mirror 150%"),
        ({"prelabel_share": 2.0}, "--prelabel-share 2.0"),
        ({"annotators_per_task": 0}, "--annotators-per-task 0"),
    ],
)
def test_plans_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(LspluginError, match=said):
        Plan(**settings)


def test_plans_that_a_config_does_not_allow() -> None:
    three = build(Spec(answers=3))
    with pytest.raises(LspluginError, match="--pairs: this config shows 3 answers at once"):
        planned(rows(2, answers=3), three, Plan(pairs="all"))
    with pytest.raises(LspluginError, match="--mirror: this config shows 3 answers"):
        planned(rows(2, answers=3), three, Plan(mirror="5%"))


def test_csv_datasets(tmp_path: Path) -> None:
    talk = '[{""role"": ""user"", ""content"": ""Hi""}]'
    text = f'prompt,answer1,answer2,meta\r\n"a, b","one\ntwo",[3],"{{""source"": ""web""}}"\r\n"{talk}",x,y,\r\n'
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second = read_dataset(tmp_path / "d.csv")
    assert first == Task({"prompt": "a, b", "answer1": "one\ntwo", "answer2": "[3]"}, {"source": "web"}, 1)
    assert second.data["prompt"] == [{"role": "user", "content": "Hi"}]
    (tmp_path / "d.tsv").write_text("prompt\tanswer1\tanswer2\np\ta\tb\n")
    assert read_dataset(tmp_path / "d.tsv")[0].data == {"prompt": "p", "answer1": "a", "answer2": "b"}
    for bad in ("prompt,answer1\np\n", "prompt,answer1\np,a,b\n"):
        (tmp_path / "bad.csv").write_text(bad)
        with pytest.raises(LspluginError, match=r"bad.csv, line 2: expected 2 cells"):
            read_dataset(tmp_path / "bad.csv")


def test_the_interface_of_a_config_finds_what_was_planned() -> None:
    (task,) = planned(rows(1), TWO, Plan())
    assert Interface.from_config(render()).fields_of(task.data) == ("answer1", "answer2")


def test_rows_that_bring_the_same_key_are_refused_not_lost() -> None:
    from lsplugin.project import prepared

    mine = [replace(row, meta={"key": "mine"}) for row in rows(3)]
    with pytest.raises(LspluginError, match=r"d.json: rows 1 and 2 have the same `key` in their meta \(mine\)"):
        prepared(planned(mine, TWO, Plan()), render(), path="d.json")
    own = [replace(row, meta={"key": f"mine {row.row}"}) for row in rows(3)]
    made = prepared(planned(own, TWO, Plan()), render(), path="d.json")
    assert [task.key for task in made] == ["mine 1", "mine 2", "mine 3"]
    four = [replace(row, meta={"key": "mine"}) for row in rows(1, answers=4)]
    assert len(prepared(planned(four, TWO, Plan(pairs="all")), render(), path="d.json")) == 6
