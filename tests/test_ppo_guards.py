"""What ends a run before its time, and which policy it keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.fabric import Fabric
from transformers import AutoModelForCausalLM

from ppo.guards import Guard, Verdict
from ppo.policy import load_policy
from ppo.reward import load_reward
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import Trainer
from tests.helpers import read_lines, run_cli, write_lines
from tests.worlds import word_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BATCH = 400
CONFIG = PPOConfig(judge_window=2, judge_patience=2)


def looks(config: PPOConfig, rewards: Sequence[float], judged: Sequence[float], *, noise: float = 1.0) -> list[Verdict]:
    """What a guard says of batches whose scores are spread by `noise` around the given means."""
    guard = Guard()
    around = torch.linspace(-1, 1, BATCH) * noise * 3**0.5  # mean 0, standard deviation `noise`
    found = []
    for reward, judge in zip(rewards, judged, strict=True):
        found.append(guard.look(config, {"kl": 1.0, "length": 5.0}, around + reward, around + judge))
        if found[-1].ended:
            break
    return found


def test_a_judge_that_falls_while_the_reward_rises_ends_the_run() -> None:
    """Windows of two batches: the second is the best, the fourth and fifth are far below it."""
    found = looks(CONFIG, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], [0, 0, 1, 1, 0.9, 0.9, 0.3, 0.3, 0, 0, 0, 0])
    assert [number for number, verdict in enumerate(found) if verdict.keep] == [1, 3]
    assert len(found) == 10
    assert found[-1].ended == "the judge fell from 1.000 to 0.000 while the reward rose from 1.000 to 4.000"


@pytest.mark.parametrize(
    ("rewards", "judged", "noise"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], 1.0),  # both rise
        ([3, 2, 1, 0], [3, 2, 1, 0], 1.0),  # both fall: not the reward's mistakes are learned
        ([0, 1, 2, 3], [1, 0, 0.9, 0], 20.0),  # within its noise: two errors of a difference are 2 * 20 / sqrt(400) = 2
        ([0, 1, 2, 3], [1, 0, 1, 0], 1.0),  # never twice in a row
    ],
)
def test_a_judge_that_does_not_fall_for_good_ends_nothing(
    rewards: list[float], judged: list[float], noise: float
) -> None:
    twice = [value for value in rewards for _ in range(2)], [value for value in judged for _ in range(2)]
    found = looks(CONFIG, *twice, noise=noise)
    assert len(found) == 8
    assert all(verdict.ended is None for verdict in found)


def test_a_fall_is_measured_against_its_standard_error() -> None:
    """Windows of 800 scores of deviation 20: the error of a difference is 20 sqrt(2 / 800) = 1, so a fall of 2.1 counts."""
    config = PPOConfig(judge_window=2, judge_patience=1)
    assert looks(config, [0, 0, 1, 1], [2.1, 2.1, 0, 0], noise=20.0)[-1].ended is not None
    assert looks(config, [0, 0, 1, 1], [1.9, 1.9, 0, 0], noise=20.0)[-1].ended is None


def test_length_is_told_of_once() -> None:
    guard, scores = Guard(), torch.zeros(4)
    told = [guard.look(CONFIG, {"kl": 0, "length": length}, scores, None).warning for length in (10, 14, 16, 17, 5)]
    assert [warning is not None for warning in told] == [False, False, True, False, False]
    assert told[2] == "answers have 16.0 tokens on average, at first they had 10.0: read some of them"
    shrunk = Guard(first_length=10.0)
    assert shrunk.look(CONFIG, {"kl": 0, "length": 6.0}, scores, None).warning is not None


# --- in a run ---

POINTS = """
def long(prompts, answers):
    return [float(len(answer.split())) for answer in answers]

def short(prompts, answers):
    return [-float(len(answer.split())) for answer in answers]
"""
SETTINGS = {"episodes": 640, "batch_size": 32, "minibatch_size": 16, "learning_rate": 1e-3}


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(folder)
    word_policy(folder / "policy")
    write_lines(folder / "prompts.jsonl", [{"prompt": text} for text in ("a b", "c", "d e a", "b")])
    (folder / "lengths.py").write_text(POINTS)
    yield
    os.chdir(before)


def after(updates: int, config: PPOConfig) -> dict[str, torch.Tensor]:
    """Weights of a policy that nobody watched, after so many updates."""
    torch.manual_seed(config.seed)
    prompts = ["a b", "c", "d e a", "b"]
    policy = load_policy("policy")
    trainer = Trainer(
        config,
        Sampling(max_new_tokens=6),
        policy,
        load_reward("lengths:long"),
        prompts,
        Fabric(accelerator="cpu", devices=1),
    )
    for _ in range(updates):
        trainer.step()
    return {name: weight.clone() for name, weight in policy.model.state_dict().items()}


@pytest.mark.parametrize("guard", ["--kl-limit=0.5", "--judge=lengths:short"])
def test_a_run_that_goes_wrong_ends_with_the_policy_before(guard: str, tmp_path: Path) -> None:
    """A reward for length: the policy is soon far from its start, and a judge of the contrary sees every answer get worse."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    ended = run_cli(
        ["ppo", "run", "--policy=policy", "--prompts=prompts.jsonl", "--reward=lengths:long", "--max-new-tokens=6", "--kl-coef=0",
         "--accelerator=cpu", f"--output={tmp_path / 'tuned'}", "--judge-window=2", "--judge-patience=1", *options, guard]
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    told = json.loads((tmp_path / "tuned" / "run.json").read_text())
    metrics = read_lines(tmp_path / "tuned" / "metrics.jsonl")
    assert told["updates"] == len(metrics) < 20
    assert f"ended after update {len(metrics)} of 20: {told['ended']}" in ended.stderr
    if "kl" in guard:
        assert all(row["kl"] <= 0.5 for row in metrics[:-1])
        assert metrics[-1]["kl"] > 0.5
        assert told["ended"] == f"KL {metrics[-1]['kl']:.2f} nats passed --kl-limit 0.5"
        assert told["exported_after"] == len(metrics) - 2
    else:
        assert told["ended"].startswith("the judge fell from -")
        assert told["exported_after"] == 1  # the policy that wrote the last batch of the first window
        assert all(row["judge"] == pytest.approx(-row["score"]) for row in metrics)
    expected = after(told["exported_after"], PPOConfig(**SETTINGS, kl_coef=0.0))  # type: ignore[arg-type]
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_run_tells_once_of_answers_that_shrink(tmp_path: Path) -> None:
    ended = run_cli(
        ["ppo", "run", "--policy=policy", "--prompts=prompts.jsonl", "--reward=lengths:short", "--max-new-tokens=6",
         "--kl-coef=0", "--accelerator=cpu", f"--output={tmp_path / 'tuned'}", "--episodes=512", "--batch-size=64",
         "--minibatch-size=32", "--learning-rate=3e-3", "--show-samples=4"]
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    lengths = [row["length"] for row in read_lines(tmp_path / "tuned" / "metrics.jsonl")]
    assert lengths[-1] < lengths[0] / 1.5
    assert ended.stderr.count("warning: answers have") == 1
    samples = read_lines(tmp_path / "tuned" / "samples.jsonl")
    for update in (4, 8):
        table = ended.stderr.partition(f"update {update}\nprompt")[2].splitlines()[2:5]
        rows = [row for row in samples if row["update"] == update][:3]
        for line, row in zip(table, rows, strict=True):
            assert line.split() == [*row["prompt"].split(), *row["answer"].split(), f"{row['score']:+.3f}"]
    assert ended.stderr.count("prompt  ") == 2
