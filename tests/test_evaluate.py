"""Answers to compare, and the comparison of a tuned policy with its base."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM

from ppo.errors import PPOError
from ppo.evaluate import evaluate, interval
from ppo.policy import load_policy
from ppo.settings import Sampling
from tests.helpers import complaint, read_lines, run_cli, write_lines
from tests.worlds import all_responses, response_distribution, word_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lsplugin.preferences import Prompt

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
    assert words["wins"] == 0.5
    assert words["base"]["mean"] == pytest.approx(sum(len(sample["base"].split()) for sample in report["samples"]) / 30)


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

    compared = run_cli(["ppo", "evaluate", "--policy", "tuned", "--base", "policy", *common])
    assert compared.code == 0, compared.stderr
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
