"""Votes become probabilities: by hand, against another library, and against a truth that was simulated."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from lsplugin.aggregate import METHODS, annotators, bradley_terry, fit_scores, majority, probabilities
from lsplugin.formats import FORMATS
from lsplugin.interface import Interface
from lsplugin.judged import Accounting, read_judged
from lsplugin.pairs import aggregated_pairs
from lsplugin.preferences import part_of
from lsplugin.votes import Votes
from tests.helpers import complaint, pairwise_result, read_lines, run_cli, write_json

if TYPE_CHECKING:
    from pathlib import Path


def verdict(value: str) -> dict[str, Any]:
    return {"from_name": "verdict", "to_name": "prompt", "type": "choices", "value": {"choices": [value]}}


def annotation(who: int, says: str, number: int = 1) -> dict[str, Any]:
    """left, right, tie, or left-much and the like."""
    side, _, strength = says.partition("-")
    result = [verdict("tie")] if side == "tie" else [*pairwise_result(side), verdict(strength or "better")]
    return {"id": number, "completed_by": who, "result": result}


def task(number: int, *votes: tuple[int, str], prompt: str = "", swapped: bool = False) -> dict[str, Any]:
    texts = [f"good {number}", f"bad {number}"]
    one, two = reversed(texts) if swapped else texts
    data = {"prompt": prompt or f"p{number}", "answer1": one, "answer2": two}
    return {"id": number, "data": data, "annotations": [annotation(*vote) for vote in votes]}


def votes_of(*tasks: dict[str, Any]) -> Votes:
    votes = Votes()
    for judged in read_judged(tasks, Accounting(), Interface()):
        votes.add(judged)
    return votes


def aggregate(*tasks: dict[str, Any], method: str = "majority") -> tuple[list[Any], Accounting]:
    accounting = Accounting()
    return list(aggregated_pairs(lambda: tasks, accounting, method)), accounting


def test_majority_by_hand() -> None:
    pairs, accounting = aggregate(
        task(1, (1, "left-much"), (2, "right-slightly"), (3, "left-clearly")),
        task(2, (1, "left"), (2, "right")),
        task(3, (1, "right"), (2, "tie")),
        task(4, (1, "tie")),
        task(5),
        {"id": 6, "data": {}, "annotations": [{"id": 1, "result": [], "was_cancelled": True}]},
    )
    first, second = pairs
    assert (first.chosen, first.rejected) == ("good 1", "bad 1")
    assert first.probability == pytest.approx(2 / 3, abs=1e-5)
    assert first.margin == pytest.approx((1 - 1 / 3 + 2 / 3) / 3, abs=1e-5)
    assert first.weight == 3
    assert first.meta["votes"] == {"chosen": 2, "rejected": 1, "tie": 0}
    assert first.meta["annotators"] == ["1", "2", "3"]
    assert (second.chosen, second.probability, second.margin, second.weight) == ("bad 3", 0.75, None, 2)
    assert accounting.to_dict() == {
        "tasks": 6,
        "unlabelled": 1,
        "annotations": 9,
        "used": 5,  # the tie beside a preference has its say
        "dropped": {"a tie": 1, "annotators evenly split": 2, "skipped by the annotator": 1},
        "pairs": 2,
        "ties": 2,
        "rewrites": 0,
    }


def test_the_same_answers_are_one_item_however_often_and_wherever_they_stand() -> None:
    again = task(1, (1, "right"), (3, "right"), swapped=True) | {"id": 2}
    votes = votes_of(task(1, (1, "left"), (2, "right")), again)
    assert votes.items == 1
    assert list(votes.choice) == [1, -1, 1, 1]  # seen from the answer on the left of the first task
    assert list(votes.side) == [1, 1, -1, -1]
    (pair,), _ = aggregate(task(1, (1, "left"), (2, "right")), again)
    assert (pair.chosen, pair.probability, pair.weight) == ("good 1", 0.75, 4)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["left", "right", "tie", "left-much"]))), max_size=8)
)
def test_everything_is_accounted_for_and_sides_do_not_matter(votes: list[list[tuple[int, str]]]) -> None:
    other = {"left": "right", "right": "left", "tie": "tie", "left-much": "right-much"}
    plain = [task(number, *said) for number, said in enumerate(votes)]
    swapped = [task(n, *((who, other[says]) for who, says in said), swapped=True) for n, said in enumerate(votes)]
    pairs, accounting = aggregate(*plain)
    assert accounting.annotations == sum(map(len, votes)) == accounting.used + accounting.dropped.total()
    assert [(p.chosen, p.probability, p.margin) for p in pairs] == [
        (p.chosen, p.probability, p.margin) for p in aggregate(*swapped)[0]
    ]
    for pair in pairs:
        said = [says for _, says in votes[int(pair.prompt[1:])]]
        share = (sum(s.startswith("left") for s in said) + said.count("tie") / 2) / len(said)
        assert pair.probability == pytest.approx(max(share, 1 - share), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_ties_prefers_nothing(method: str) -> None:
    tasks = [task(1, (1, "tie"), (2, "tie")), task(2, (1, "left"), (2, "left")), task(3, (2, "right"), (1, "right"))]
    assert [pair.chosen for pair in aggregate(*tasks, method=method)[0]] == ["good 2", "bad 3"]
    assert aggregate(method=method)[0] == []


def test_scores_agree_with_a_penalised_logistic_regression() -> None:
    """The mode under a N(0, 1) prior is ridge regression on differences of indicators, C = 1."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 200), rng.integers(6, 12, 200)
    wins = (rng.random(200) < 0.7).astype(float)
    design = np.zeros((200, 12))
    design[np.arange(200), first], design[np.arange(200), second] = 1, -1
    fit = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(design, wins)
    found = fit_scores(first, second, wins, np.ones(200), np.zeros(200))
    np.testing.assert_allclose(found, fit.coef_[0], atol=1e-4)


CREW = {1: (2.0, 0.0), 2: (1.0, 0.0), 3: (1.5, 0.0), 4: (0.0, 0.0), 5: (1.0, 1.5), 6: (1.2, 0.0)}
"""Sharpness and lean to the left."""


def simulated(seed: int, items: int = 600) -> tuple[Votes, np.ndarray[Any, np.dtype[np.float64]]]:
    """Three of the crew on each task; the truth is the difference of scores."""
    rng = random.Random(seed)
    truth, tasks = [], []
    for number in range(items):
        truth.append(rng.gauss(0, math.sqrt(2)))
        swapped = rng.random() < 0.5
        seen = -truth[-1] if swapped else truth[-1]
        said = []
        for who in rng.sample(sorted(CREW), 3):
            sharpness, lean = CREW[who]
            left = rng.random() < 1 / (1 + math.exp(-(sharpness * seen + lean)))
            said.append((who, "left" if left else "right"))
        tasks.append(task(number, *said, swapped=swapped))
    votes = votes_of(*tasks)
    signs = [-1 if task_["data"]["answer1"].startswith("bad") else 1 for task_ in tasks]
    return votes, np.array(truth) * np.array(signs)  # seen from each item's first answer


def test_annotators_are_found_out() -> None:
    votes, _ = simulated(0, items=2000)
    sharpness, lean = annotators(votes)
    for who, number in votes.annotators.items():
        true = CREW[int(who)]
        assert sharpness[number] == pytest.approx(true[0], abs=0.45)  # some 1,000 votes each
        assert lean[number] == pytest.approx(true[1], abs=0.3)


def test_who_knows_the_annotators_is_right_more_often() -> None:
    def accuracy(chances: Any, truth: Any) -> float:
        return float(np.mean(np.where(chances == 0.5, 0.5, (chances > 0.5) == (truth > 0))))

    worlds = [simulated(seed) for seed in range(3)]
    plain = np.mean([accuracy(majority(votes), truth) for votes, truth in worlds])
    known = np.mean([accuracy(bradley_terry(votes), truth) for votes, truth in worlds])
    assert known > plain + 0.01
    votes, truth = worlds[0]
    chances = bradley_terry(votes)
    for low in (0.5, 0.6, 0.7, 0.8):  # of a typical annotator's votes, so many agree with the more probable answer
        inside = (np.maximum(chances, 1 - chances) >= low) & (np.maximum(chances, 1 - chances) < low + 0.1)
        signs = np.where(chances[inside] > 0.5, 1, -1)
        typical = 1 / (1 + np.exp(-1.3 * truth[inside] * signs))
        assert float(typical.mean()) == pytest.approx(low + 0.05, abs=0.1)


def test_probabilities_are_of_the_items_in_their_order() -> None:
    votes = votes_of(task(1, (1, "left")), task(2, (1, "tie")), task(3, (2, "right")))
    np.testing.assert_array_equal(probabilities(votes, "majority"), [1, 0.5, 0])


class TestTheCommand:
    def export(self, folder: Path) -> Path:
        tasks = [task(number, (1, "left"), (2, "right-much"), prompt=f"p{number // 2}") for number in range(400)]
        return write_json(folder / "e.json", tasks)

    def test_a_split_keeps_prompts_apart(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.export(tmp_path)
        assert run_cli(["lsplugin", "pairs", "e.json", "--split", "0.7,0.1,0.2", "--seed", "3"]).code == 0
        parts = [read_lines(tmp_path / f"pairs.{name}.jsonl") for name in ("train", "validation", "test")]
        prompts = [{row["prompt"] for row in part} for part in parts]
        assert sum(map(len, parts)) == 800
        assert sum(map(len, prompts)) == len(set().union(*prompts)) == 200
        assert [len(found) / 200 for found in prompts] == pytest.approx([0.7, 0.1, 0.2], abs=0.08)
        assert part_of("p0", (0.5, 0.5), seed=0) == part_of("p0", (0.5, 0.5), seed=0)
        assert not (tmp_path / "pairs.jsonl").exists()

    def test_bad_options(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        self.export(tmp_path)
        for split in ("0.9", "0.9,0.2", "1,0", "a,b"):
            assert "expected two or three shares" in complaint(["lsplugin", "pairs", "e.json", "--split", split])
        assert "one of none, majority" in complaint(["lsplugin", "pairs", "e.json", "--aggregate", "mean"])
        assert "expected one of pairs, trl" in complaint(["lsplugin", "pairs", "e.json", "--format", "x"])
        assert not list(tmp_path.glob("pairs*"))

    def test_formats_are_listed_with_their_sources(self) -> None:
        listed = run_cli(["lsplugin", "formats"]).stdout.splitlines()
        assert [line.split()[0] for line in listed[::2]] == list(FORMATS)
        assert all(line.strip().startswith("https://") for line in listed[1::2])

    def test_rewrites(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An edited answer is better than what it was made from; an unedited copy says nothing."""
        monkeypatch.chdir(tmp_path)
        found = task(1, (1, "left"))
        found["annotations"][0]["result"] += [
            {"from_name": "rewrite_answer1", "type": "textarea", "value": {"text": ["good 1"]}},
            {"from_name": "rewrite_answer2", "type": "textarea", "value": {"text": ["now good"]}},
        ]
        skipped = {"id": 9, "completed_by": 2, "was_cancelled": True, "result": found["annotations"][0]["result"]}
        found["annotations"].append(skipped)
        write_json(tmp_path / "e.json", [found])
        for method in ("none", "majority"):
            command = ["lsplugin", "pairs", "e.json", "--sft", "sft.jsonl", "--counts", "c.json", "--aggregate", method]
            assert run_cli(command).code == 0
            rows = [(row["chosen"], row["rejected"]) for row in read_lines(tmp_path / "pairs.jsonl")]
            assert rows == [("good 1", "bad 1"), ("now good", "bad 1")]
            (sft,) = read_lines(tmp_path / "sft.jsonl")
            assert (sft["prompt"], sft["completion"]) == ("p1", "now good")
            counts = json.loads((tmp_path / "c.json").read_text())
            assert (counts["used"], counts["pairs"], counts["rewrites"], counts["annotations"]) == (1, 2, 1, 2)
