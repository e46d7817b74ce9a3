"""Which tasks a round asks, which pairs each model learns from, and what is drawn of which prompts."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from rounds.choose import Candidate, Shares, choose, disputed, farthest, join
from rounds.prompts import deal, draw
from tests.helpers import complaint, read_lines, run_cli, write_json, write_lines

if TYPE_CHECKING:
    from pathlib import Path


def row(prompt: str, *answers: str, model: str = "base", **meta: Any) -> dict[str, Any]:
    """A row as `ppo generate` writes it."""
    texts = {f"answer{n}": text for n, text in enumerate(answers, start=1)}
    return {"prompt": prompt, **texts, "meta": {"models": dict.fromkeys(texts, model), "seed": 1, **meta}}


def scored(prompts: int, answers: int = 4) -> list[Candidate]:
    """Candidates of two models; the two members disagree more and more from prompt to prompt, about the last two answers."""
    files = [
        [row(f"p{n}", *(f"{m}{k} of {n}" for k in range(answers // 2)), model=m) for n in range(prompts)]
        for m in ("old", "new")
    ]
    members = {}
    for n in range(prompts):
        texts = [one for pair in zip(*(list(f[n].values())[1:-1] for f in files), strict=True) for one in pair]
        for place, text in enumerate(texts):
            doubt = n * (place == answers - 1)
            members[f"p{n}", text] = [0.0, float(doubt)]
    return join(files, members)


def test_parts_share_no_prompt_and_follow_from_the_text() -> None:
    prompts = [f"question {n}" for n in range(500)]
    parts = deal(prompts, None, judge_share=0.2, held_out_share=0.1, seed=3)
    assert Counter(itertools.chain(*parts)) == Counter(prompts)
    tuning, judging, held_out = map(len, parts)
    assert 330 < tuning < 390  # 360 expected
    assert 65 < judging < 115  # 90
    assert 30 < held_out < 70  # 50
    again = deal(prompts[::-1] + prompts, None, judge_share=0.2, held_out_share=0.1, seed=3)
    assert [set(part) for part in again] == [set(part) for part in parts]
    assert deal(prompts, None, judge_share=0.2, held_out_share=0.1, seed=4) != parts


def test_given_held_out_prompts_are_nowhere_else() -> None:
    chat = [{"role": "user", "content": "Hello"}]
    prompts = [*(f"question {n}" for n in range(50)), chat]
    tuning, judging, held_out = deal(
        prompts, ["question 7", "other", chat], judge_share=0.3, held_out_share=0.1, seed=0
    )
    assert held_out == ["question 7", "other", chat]
    assert len(tuning) + len(judging) == 49
    assert "question 7" not in tuning + judging
    assert chat not in tuning + judging


def test_a_round_draws_a_pool_for_choosing_and_no_more_for_the_judge() -> None:
    tuning, judging = [f"t{n}" for n in range(300)], [f"j{n}" for n in range(100)]
    found = draw(tuning, judging, labels=50, judge_share=0.2, pool=4, seed=1)
    assert Counter(str(prompt)[0] for prompt in found) == {"t": 160, "j": 10}
    assert found == draw(tuning[::-1], judging[::-1], labels=50, judge_share=0.2, pool=4, seed=1)
    assert set(found) != set(draw(tuning, judging, labels=50, judge_share=0.2, pool=4, seed=2))
    assert len(draw(tuning, judging, labels=500, judge_share=0.2, pool=4, seed=1)) == 400  # all there are


def test_answers_of_two_models_take_turns_and_a_text_counts_once() -> None:
    files = [
        [row("p", "a", "b", model="old", device="cpu")],
        [row("p", "a ", "c", model="new", device="gpu"), row("q", "x", "y", model="new")],
    ]
    first, second = join(files, None)
    assert first.answers == [("a", "old"), ("b", "old"), ("c", "new")]
    assert first.meta["seed"] == 1
    assert "device" not in first.meta
    assert second.answers == [("x", "new"), ("y", "new")]
    (only,) = join(files[:1], {("p", "a"): [1.0, 2.0]})
    assert only.answers == [("a", "old")]  # the other could not be scored


def test_doubt_is_the_deviation_of_the_difference() -> None:
    (found,) = join([[row("p", "a", "b", "c")]], {("p", "a"): [0, 1], ("p", "b"): [5, 6], ("p", "c"): [0, 4]})
    assert found.deviations is not None
    assert found.deviations[0, 1] == 0  # both members say -5
    assert math.isclose(found.deviations[0, 2], 3 / math.sqrt(2))  # 0 and -3: n - 1
    assert disputed(found, 2) == [0, 2]
    assert disputed(found, 3) == [0, 1, 2]


def test_shares_are_kept_and_provenance_stays_in_meta() -> None:
    candidates = scored(200)
    judging = {f"p{n}" for n in range(0, 200, 5)}
    earlier = [[{**row(f"e{n}", "x", "y"), "meta": {"why": "random"}} for n in range(10)]]
    shares = Shares(judge=0.2, again=0.1, uncertain=0.5, diverse=0.25)
    made = choose(candidates, judging=judging, earlier=earlier, labels=50, shares=shares, seed=0)
    # 50 = 5 asked again + 10 judge + 35 others: half of them 18 (rounded), a quarter 9, 8 at random
    assert Counter(one["meta"]["why"] for one in made) == {
        "again": 5,
        "judge": 10,
        "uncertain": 18,
        "diverse": 9,
        "random": 8,
    }
    assert len({one["prompt"] for one in made}) == 50
    for one in made:
        assert set(one) == {"prompt", "answer1", "answer2", "meta"}
        assert (one["prompt"] in judging) == (one["meta"]["why"] == "judge")
        if one["meta"]["why"] in {"judge", "random"}:
            assert sorted(one["meta"]["models"].values()) == ["new", "old"]
    unsure = sorted(int(one["prompt"][1:]) for one in made if one["meta"]["why"] == "uncertain")
    random = {int(one["prompt"][1:]) for one in made if one["meta"]["why"] == "random"}
    free = [n for n in range(200) if n % 5 and n not in random]
    assert unsure == free[-18:]  # where the members disagree most, of those not drawn at random before
    assert all("new1" in one["answer2"] for one in made if one["meta"]["why"] == "uncertain")
    assert made == choose(candidates[::-1], judging=judging, earlier=earlier, labels=50, shares=shares, seed=0)


def test_what_was_asked_again_is_not_asked_a_third_time() -> None:
    earlier = [
        [{**row("e", "x", "y"), "meta": {"why": "random"}}],
        [{**row("e", "x", "y"), "meta": {"why": "again", "asked": 1}}],
    ]
    made = choose(scored(10), judging=set(), earlier=earlier, labels=8, shares=Shares(again=0.5), seed=0)
    assert [one["meta"] for one in made if one["meta"]["why"] == "again"] == [{"why": "again", "asked": 1}]


def test_diverse_texts_lie_far_apart() -> None:
    texts = ["red red", "red apple", "blue sea", "green hill", "red red red"]
    assert farthest(texts, ["red"], 2) == [2, 3]
    assert farthest(texts, ["red", "blue sea"], 1) == [3]
    assert farthest(texts, [], 9)[0] == 0
    assert sorted(farthest(texts, [], 9)) == [0, 1, 2, 3, 4]


def test_the_steps_as_commands(tmp_path: Path) -> None:
    tuning = write_lines(tmp_path / "tuning.jsonl", [{"prompt": f"t{n}"} for n in range(30)])
    judging = write_lines(tmp_path / "judging.jsonl", [{"prompt": f"j{n}"} for n in range(10)])
    prompts, tasks = tmp_path / "prompts.jsonl", tmp_path / "tasks.json"
    assert run_cli(["rounds", "draw", tuning, judging, "--labels", "20", "-o", prompts]).code == 0
    names = [line["prompt"] for line in read_lines(prompts)]
    assert len(names) == 20
    start = write_json(tmp_path / "start.json", [row(name, "good", "bad") for name in names])
    own: list[str | Path] = ["rounds", "choose", start, "--judging", judging, "--labels", "20", "-o", tasks]
    result = run_cli(own)
    assert "20 tasks (4 judge, 16 random)" in result.stderr
    lonely = write_lines(tmp_path / "scores.jsonl", [{"prompt": "t1", "answer": "good", "score": 1.0}])
    assert "line 1: expected the scores of two members or more, found 0" in complaint([*own, "--scores", lonely])
    nothing = write_json(tmp_path / "nothing.json", [row("t1", "same", "same ")])
    assert "expected 2 different answers to some prompt" in complaint(
        ["rounds", "choose", nothing, "--judging", judging, "-o", tasks]
    )


def test_pairs_are_gathered_without_a_servers_numbers(tmp_path: Path) -> None:
    judging = write_lines(tmp_path / "judging.jsonl", [{"prompt": "user: j"}])

    def pair(prompt: str, key: str, number: int, **more: Any) -> dict[str, Any]:
        meta = {"task": number, "annotation": number, "annotator": 7, "lead_time": 2.0, "key": key, **more}
        return {"prompt": prompt, "chosen": "c", "rejected": "r", "margin": 0.5, "meta": meta}

    messages = [{"role": "user", "content": "j"}]
    rows = [
        pair("t", "k1", 1),
        pair("user: j", "k2", 2, task_meta={"messages": messages, "why": "judge"}),
        pair("t", "k0", 3),
    ]
    one = write_lines(tmp_path / "one.jsonl", rows)
    other = write_lines(tmp_path / "other.jsonl", [pair("t", "k9", 1)])
    reward, judge = tmp_path / "reward.jsonl", tmp_path / "judge.jsonl"
    command: list[str | Path] = ["rounds", "gather", one, other, "--judging", judging, "-o", reward, "--judge", judge]
    assert run_cli(command).code == 0
    assert [(line["meta"]["round"], line["meta"]["task"]) for line in read_lines(reward)] == [
        (1, "k0"),
        (1, "k1"),
        (2, "k9"),
    ]
    (judged,) = read_lines(judge)
    assert judged == {
        "prompt": messages, "chosen": "c", "rejected": "r", "margin": 0.5,
        "meta": {"round": 1, "task": "k2", "models": None, "why": "judge"},
    }  # fmt: skip
    before = reward.read_bytes()
    elsewhere = [
        pair(line["prompt"], str(line["meta"]["key"]), 100 - n, **line["meta"].get("task_meta", {}))
        for n, line in enumerate(rows)
    ]
    write_lines(
        one,
        [
            line | {"meta": {**line["meta"], "task_meta": rows[n]["meta"].get("task_meta")}}
            for n, line in enumerate(elsewhere)
        ][::-1],
    )
    assert run_cli(command).code == 0
    assert reward.read_bytes() == before  # on another server, with other numbers and in another order
    write_lines(judging, [{"prompt": "nobody"}])
    assert "expected pairs for the judge, found none" in complaint(command)
    assert json.loads(before.splitlines()[0])["meta"]["task"] == "k0"
