"""A tuned policy compared with its base: every figure against one that is counted or summed by other means."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
import torch
from statsmodels.stats.proportion import proportion_confint
from transformers import AutoModelForCausalLM

from lsplugin.dataset import check_tasks, keyed, read_dataset
from lsplugin.plan import Plan, planned
from lsplugin.prepare import displayed
from lsplugin.render import build
from lsplugin.template import Spec
from ppo.cli_evaluate import as_text
from ppo.errors import PPOError
from ppo.evaluate import comparisons, evaluate, why_no_kl
from ppo.measures import about_as_long, at_kl, best_of, best_of_kl, distinct_share, interval, win_rate
from ppo.picture import write_picture
from ppo.policy import load_policy
from ppo.settings import Sampling
from rm_lightning.text import TextEncoder
from tests.helpers import complaint, pairwise_result, read_lines, run_cli, write_json, write_lines
from tests.worlds import all_responses, letter_policy, response_distribution, word_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy

SAMPLING = Sampling(max_new_tokens=4)


def count_words(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
    return torch.tensor([float(len(answer.split())) for answer in answers])


def test_a_policy_compared_with_itself_is_as_good(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    report = evaluate(
        policy, policy, ["a", "b", "c"] * 10, {"words": count_words}, sampling=SAMPLING, seed=0, batch_size=7
    )
    assert report["kl"] == {"mean": 0, "low": 0, "high": 0}
    words = report["measures"]["words"]
    assert words["base"] == words["tuned"]
    assert words["difference"]["mean"] == 0
    assert words["wins"]["mean"] == words["wins_at_like_length"]["mean"] == 0.5
    assert words["wins"]["prompts"] == words["wins_at_like_length"]["prompts"] == 30
    assert words["base"]["mean"] == pytest.approx(sum(len(sample["base"].split()) for sample in report["samples"]) / 30)
    assert report["answers"]["base"] == report["answers"]["tuned"]
    with pytest.raises(PPOError, match="--policy and --base are both"):
        comparisons(report)


def test_kl_of_the_evaluation_is_the_kl(tmp_path: Path) -> None:
    """Estimated from 3,000 answers, against the sum over every possible one."""
    base, tuned = word_policy(tmp_path / "base"), word_policy(tmp_path / "tuned")
    with torch.no_grad():
        tuned.model.transformer.wte.weight[0] *= 3.0  # type: ignore[union-attr, index, operator]
    new, old = (response_distribution(policy, "c", 2) for policy in (tuned, base))
    exact = float((new * (new / old).log()).sum())
    assert exact > 0.01
    report = evaluate(
        tuned, base, ["c"] * 3000, {"words": count_words}, sampling=Sampling(max_new_tokens=2), seed=0, batch_size=500
    )
    assert report["kl"]["low"] < exact < report["kl"]["high"]
    lengths = torch.tensor([float(len(ids)) for ids in all_responses(2)])
    for name, distribution in (("base", old), ("tuned", new)):
        measured = report["measures"]["length"][name]
        standard_error = (measured["high"] - measured["mean"]) / 1.96
        assert abs(measured["mean"] - float(distribution @ lengths)) < 4 * standard_error


def test_one_prompt_has_no_interval(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    with pytest.raises(PPOError, match="2 held-out prompts or more"):
        evaluate(policy, policy, ["a"], {"words": count_words}, sampling=SAMPLING, seed=0)
    with pytest.raises(PPOError, match="found 1; 2 left out: the prompt is empty"):
        evaluate(policy, policy, ["", "a", " "], {"words": count_words}, sampling=SAMPLING, seed=0)


def changed(folder: Path) -> tuple[Policy, Policy]:
    """A base, and a policy that likes the first word more."""
    base, tuned = word_policy(folder / "base"), word_policy(folder / "base")
    with torch.no_grad():
        tuned.model.transformer.wte.weight[0] *= 1.5  # type: ignore[union-attr, index, operator]
    return base, tuned._replace(name="tuned")


def test_batches_change_nothing(tmp_path: Path) -> None:
    base, tuned = changed(tmp_path)
    one, two = (
        evaluate(
            tuned, base, ["a", "b c", "d"] * 5, {"words": count_words}, sampling=SAMPLING, seed=3, best_of_n=3,
            batch_size=size,
        )
        for size in (1, 100)
    )  # fmt: skip
    assert one["samples"] == two["samples"]
    assert one["measures"] == two["measures"]
    assert one["best_of_n"]["points"] == two["best_of_n"]["points"]
    assert one["kl"]["mean"] == pytest.approx(two["kl"]["mean"], abs=1e-5)


def test_wins_at_like_length_rest_on_those_prompts_alone(tmp_path: Path) -> None:
    base, tuned = changed(tmp_path)
    report = evaluate(tuned, base, ["a", "b c", "d"] * 30, {"words": count_words}, sampling=SAMPLING, seed=0)
    alike = [
        sample for sample in report["samples"] if sample["length"][0] == sample["length"][1]
    ]  # of at most 4 tokens
    points = [0.5 + 0.5 * ((new > old) - (new < old)) for old, new in (sample["words"] for sample in alike)]
    found = report["measures"]["words"]["wins_at_like_length"]
    assert found["prompts"] == len(alike) < 90
    assert found["mean"] == sum(points) / len(points) != report["measures"]["words"]["wins"]["mean"]


def test_best_of_n_is_what_the_base_can_do(tmp_path: Path) -> None:
    """Against the exact mean of the highest of n rewards, summed over every possible answer."""
    base, tuned = changed(tmp_path)
    report = evaluate(
        tuned, base, ["c"] * 400, {"words": count_words}, sampling=Sampling(max_new_tokens=2), seed=0, best_of_n=6
    )
    ids = all_responses(2)
    texts = base.write(
        torch.tensor([[*row, 6][:2] for row in ids]), torch.tensor([[True, len(row) > 1] for row in ids])
    )
    rewards, chances = count_words([], texts), response_distribution(base, "c", 2)
    below = [float(chances[rewards <= value].sum()) for value in (0, 1, 2)]  # P(reward <= value)
    points = report["best_of_n"]["points"]
    assert [point["n"] for point in points] == [1, 2, 4, 6]
    for point in points:
        n = point["n"]
        exact = (below[1] ** n - below[0] ** n) + 2 * (below[2] ** n - below[1] ** n)
        error = (point["words"]["high"] - point["words"]["mean"]) / 1.96
        assert abs(point["words"]["mean"] - exact) < 4 * error
        assert point["kl"] == pytest.approx(math.log(n) - 1 + 1 / n)
    tuned_there, kl = report["best_of_n"]["tuned"], report["kl"]["mean"]
    assert 0 < kl < points[1]["kl"]
    assert tuned_there["kl"] == kl
    assert not tuned_there["beyond"]
    assert "tuned minus best of n at the same KL: words " in as_text(report)
    share = kl / points[1]["kl"]
    expected = (1 - share) * points[0]["words"]["mean"] + share * points[1]["words"]["mean"]
    assert tuned_there["words"]["mean"] == pytest.approx(
        report["measures"]["words"]["tuned"]["mean"] - expected, abs=1e-5
    )


def test_best_of_n_by_brute_force() -> None:
    """The mean over every subset of n of the m samples, also where another reward chooses."""
    generator = torch.Generator().manual_seed(0)
    scores, judge = torch.randn(3, 7, generator=generator), torch.randn(3, 7, generator=generator)
    for n in (1, 2, 5, 7):
        subsets = [list(subset) for subset in combinations(range(7), n)]
        best = torch.stack([scores[:, subset].max(1).values for subset in subsets]).mean(0)
        assert best_of(scores, n).tolist() == pytest.approx(best.tolist(), abs=1e-6)
        judged = [
            [float(judge[row, max(subset, key=lambda k: float(scores[row, k]))]) for subset in subsets]
            for row in range(3)
        ]
        assert best_of(judge, n, scores).tolist() == pytest.approx([sum(row) / len(row) for row in judged], abs=1e-6)


def test_standing_at_a_kl() -> None:
    curves = [torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]), torch.tensor([4.0, 4.0])]
    assert at_kl(0.0, curves)[1].tolist() == [0, 1]
    halfway = (best_of_kl(2) + best_of_kl(3)) / 2
    kl, scores = at_kl(halfway, curves)
    assert kl == halfway
    assert scores.tolist() == pytest.approx([3, 3.5])
    kl, scores = at_kl(9.0, curves)
    assert kl == best_of_kl(3)
    assert scores.tolist() == [4, 4]


def test_win_rates_by_hand() -> None:
    new, old = torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 2.0, 5.0, -1.0])
    found = win_rate(new, old)
    assert found["mean"] == 2.5 / 4
    assert (found["low"], found["high"]) == pytest.approx(proportion_confint(2.5, 4, method="wilson"), abs=1e-6)
    assert win_rate(new[:0], old[:0]) == {"mean": None, "low": 0, "high": 1, "prompts": 0}
    lengths = torch.tensor([10.0, 9.0, 8.0, 20.0]), torch.tensor([10.0, 10.0, 10.0, 18.0])
    assert about_as_long(*lengths).tolist() == [True, True, False, True]


def test_distinct_share_by_hand() -> None:
    texts = ["a b a b", "", "a b c"]
    assert distinct_share(texts, 1) == 3 / 7
    assert distinct_share(texts, 2) == 3 / 5  # ab ba ab, ab bc
    assert distinct_share(texts, 3) == 1  # aba bab, abc
    assert distinct_share(["a"], 2) == 0


def test_other_tokens_leave_the_kl_out(tmp_path: Path) -> None:
    base, other = word_policy(tmp_path), letter_policy(ends=True)
    report = evaluate(other, base, ["a", "b"] * 10, {"words": count_words}, sampling=SAMPLING, seed=0, best_of_n=2)
    assert report["kl"] is None
    assert report["no_kl"] == f"letters and {tmp_path} have different tokenizers"
    assert report["best_of_n"]["tuned"] is None
    assert len(report["best_of_n"]["points"]) == 2
    write_picture(tmp_path / "evaluation.png", report)
    assert f"no KL: letters and {tmp_path} have different tokenizers" in as_text(report)
    short = base._replace(encoder=TextEncoder(base.tokenizer, max_length=8))
    assert why_no_kl(base, short) == f"{tmp_path} reads 16 tokens, {tmp_path} only 8"
    assert why_no_kl(short, base) is None


def test_people_compare_what_is_not_the_same(tmp_path: Path) -> None:
    """Sides by content, no word of the models in what is shown, and `lsplugin pairs` tells who won."""
    base, tuned = changed(tmp_path)
    report = evaluate(tuned, base, ["a", "b c", "d", "e"] * 50, {"words": count_words}, sampling=SAMPLING, seed=0)
    rows, left_out = comparisons(report)
    same = sum(sample["base"] == sample["tuned"] for sample in report["samples"])
    assert left_out["both answers are the same"] == same > 0
    assert len(rows) + left_out.total() == 200
    assert all(set(row["meta"]["models"].values()) == {base.name, "tuned"} for row in rows)
    kept = [
        sample
        for sample in report["samples"]
        if sample["base"] != sample["tuned"] and sample["base"] and sample["tuned"]
    ]
    for row, sample in zip(rows, kept, strict=True):
        whose = {model: row[field] for field, model in row["meta"]["models"].items()}
        assert whose == {base.name: sample["base"], "tuned": sample["tuned"]}
    assert 0.35 < sum(row["meta"]["models"]["answer1"] == "tuned" for row in rows) / len(rows) < 0.65
    backwards = report | {"samples": report["samples"][::-1]}
    assert comparisons(backwards)[0] == rows[::-1]
    path = write_json(tmp_path / "pairs.json", rows)
    config = build(Spec())
    tasks = planned(keyed(read_dataset(path)), config, Plan())
    check_tasks(tasks, config, path=path)
    wanted = Counter[str]()
    exported = []
    for number, task in enumerate(tasks):
        assert set(task.data) == {"prompt", "answer1", "answer2"} == set(displayed(config))
        order = task.meta["order"]
        model = task.meta["models"][order[number % 2]]
        wanted[model] += 1
        side = "left" if number % 2 == 0 else "right"
        annotation = {"id": number, "completed_by": 1, "result": pairwise_result(side)}
        exported.append({"id": number, **task.to_dict(), "annotations": [annotation]})
    write_json(tmp_path / "export.json", exported)
    assert run_cli(["lsplugin", "pairs", tmp_path / "export.json", "-o", tmp_path / "pairs.jsonl"]).code == 0
    chosen = Counter(row["meta"]["models"]["chosen"] for row in read_lines(tmp_path / "pairs.jsonl"))
    assert chosen == wanted
    assert len(chosen) == 2


def test_interval_by_hand() -> None:
    # mean 2, standard deviation 1 (n - 1), standard error 1 / sqrt(3)
    half = 1.959964 / math.sqrt(3)
    assert interval(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(
        {"mean": 2, "low": 2 - half, "high": 2 + half}, abs=1e-5
    )


def test_run_and_evaluate_by_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tuned folder is a plain one: transformers loads it and gives the logits that our code gives."""
    word_policy(tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.py").write_text(
        "def count_a(prompts, answers):\n    return [a.split().count('a') for a in answers]\n"
    )
    write_lines(tmp_path / "prompts.jsonl", [{"prompt": "a b"}, {"prompt": "c"}])
    common = ["--prompts", "prompts.jsonl", "--reward", "points:count_a", "--max-new-tokens", "4"]
    sizes = ["--episodes", "640", "--batch-size", "64", "--minibatch-size", "32", "--learning-rate", "3e-3"]
    ran = run_cli(["ppo", "run", "--policy", "policy", "--output", "tuned", *common, *sizes])
    assert ran.code == 0, ran.stderr
    log = read_lines(tmp_path / "tuned" / "metrics.jsonl")
    assert [row["update"] for row in log] == list(range(1, 11))
    assert log[-1]["score"] > log[0]["score"] + 0.3
    samples = read_lines(tmp_path / "tuned" / "samples.jsonl")
    assert all(sample["score"] == sample["answer"].split().count("a") for sample in samples)
    assert json.loads((tmp_path / "tuned" / "run.json").read_text())["learning_rate"] == 3e-3

    more = ["--judge", "points:count_a", "--best-of", "4", "--comparisons", "new/pairs.json"]
    compared = run_cli(["ppo", "evaluate", "--policy", "tuned", "--base", "policy", *common, *more])
    assert compared.code == 0, compared.stderr
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, compared.stderr.splitlines())) <= 100
    assert json.loads((tmp_path / "new" / "pairs.json").read_text())[0]["meta"]["models"].keys() == {
        "answer1",
        "answer2",
    }
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["measures"]["reward"]["difference"]["low"] > -1
    assert "tuned is higher" in compared.stderr

    plain, ours = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned"), load_policy(str(tmp_path / "tuned"))
    input_ids, mask = ours.read(["a b"], room=4)
    with torch.no_grad():
        theirs = plain(input_ids).logits
        mine = ours.model(input_ids, attention_mask=mask.long()).logits
    assert torch.equal(theirs, mine)
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word_policy(tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "prompts.jsonl", [{"prompt": "a b"}, {"prompt": "c"}])
    write_lines(tmp_path / "one.jsonl", [{"prompt": "a b"}])
    write_lines(tmp_path / "bad.jsonl", [{"prompt": "a"}, {"text": "b"}])
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "words.py").write_text("def count(prompts, answers):\n    return [1.0] * 3\n")
    command = ["ppo", "evaluate", "--policy", "policy", "--base", "policy", "--prompts", "prompts.jsonl",
               "--max-new-tokens", "4", "--reward", "words:count"]  # fmt: skip
    cases = [
        (["--best-of", "1"], "--best-of 1: expected 2 or more, or 0 for none"),
        (["--best-of", "-2"], "--best-of -2: expected 2 or more"),
        (["--prompts", "none.jsonl"], "none.jsonl: no prompts in it"),
        (["--prompts", "one.jsonl"], "expected 2 held-out prompts or more, for an interval, found 1"),
        (["--prompts", "bad.jsonl"], "bad.jsonl, line 2: expected `prompt`"),
        (["--reward", "no/such"], "no/such"),
        (["--reward", "runs/rm"], "runs/rm: no such folder; `python -m rm_lightning fit` makes it"),
        (["--judge", "words:nothing"], "words has no function nothing"),
        (["--policy", "no/such"], "no/such"),
        (["-o", "policy"], "policy: expected a file to write, found a folder"),
        (["-o", "prompts.jsonl"], "prompts.jsonl: it is another file of this command"),
        (["-o", "figures.png"], "figures.png: it is another file of this command"),
        (["--comparisons", "evaluation.png"], "evaluation.png: it is another file of this command"),
        (["--comparisons", "policy"], "policy: expected a file to write, found a folder"),
        (["--comparisons", "pairs.json"], "--policy and --base are both policy: there is nothing to compare"),
        ([], "reward words:count: expected"),
    ]
    before = sorted(file.name for file in tmp_path.iterdir())
    for more, said in cases:
        assert said in complaint([*command, *more])
    assert sorted(file.name for file in tmp_path.iterdir() if file.name != "__pycache__") == before


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word_policy(tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "prompts.jsonl", [{"prompt": "a"}])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not lose me")
    said = complaint(
        ["ppo", "run", "--policy", "policy", "--reward", "x:y", "--prompts", "prompts.jsonl", "--output", "mine"]
    )
    assert "not an earlier result" in said
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "do not lose me"
