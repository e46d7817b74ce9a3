"""What a PPO run takes for a reward, a judge, a policy and prompts, and what it says of anything else."""

from __future__ import annotations

import json
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from filelock import FileLock
from lightning.fabric import Fabric
from transformers import BertConfig, GPT2Config, T5Config

from ppo.errors import PPOError
from ppo.policy import load_policy
from ppo.reward import aggregated, load_reward
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import Trainer
from rm_lightning.backbone import load_scorer, load_tokenizer
from rm_lightning.scorer import RewardScorer
from tests.helpers import complaint, read_lines, run_cli, write_lines
from tests.worlds import word_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

POINTS = """
def count_a(prompts, answers):
    return [answer.split().count("a") for answer in answers]

def one(prompts, answers):
    return [1.0]

def nan(prompts, answers):
    return [float("nan")] * len(answers)
"""


def reward_folder(folder: Path, *, members: int, seed: int) -> str:
    """A random reward model of several heads."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer("policy")
    model: Any = load_scorer("policy", tokenizer, new=True, members=members)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a policy, prompts, rewards and things that are none, which is the working directory."""
    folder = tmp_path_factory.mktemp("place")
    before = Path.cwd()
    os.chdir(folder)
    word_policy(folder / "policy")
    write_lines(folder / "prompts.jsonl", [{"prompt": text} for text in ("a b", "c", "d e a", "b " * 15)])
    (folder / "empty.jsonl").write_text("")
    (folder / "odd_points.py").write_text(POINTS)
    reward_folder(folder / "rm", members=1, seed=0)
    reward_folder(folder / "two", members=2, seed=1)
    for name, config in (
        ("labels", GPT2Config(architectures=["GPT2ForSequenceClassification"], num_labels=3)),
        ("encoder", BertConfig(architectures=["BertForMaskedLM"])),
        ("seq2seq", T5Config(architectures=["T5ForConditionalGeneration"])),
    ):
        config.save_pretrained(folder / name)
    yield folder
    os.chdir(before)


COMMAND = [
    "ppo", "run", "--policy=policy", "--prompts=prompts.jsonl", "--max-new-tokens=4", "--episodes=32", "--batch-size=16",
    "--accelerator=cpu", "--reward-aggregate=mean",
]  # fmt: skip


def test_ensembles_are_as_many_members_as_their_folders_have_heads() -> None:
    prompts, answers = ["a b", "c"], ["a a b", "e"]
    all_three = RewardScorer(["rm", "two"]).all(prompts, answers)
    assert all_three.shape == (2, 3)
    for how in ("mean", "min", "lcb"):
        assert torch.equal(load_reward(["rm", "two"], aggregate=how)(prompts, answers), aggregated(all_three, how))
    beside = load_reward(["odd_points:count_a", "rm"], aggregate="min")(prompts, answers)
    assert torch.equal(beside, torch.minimum(torch.tensor([2.0, 0.0]), all_three[:, 0]))


def test_aggregates_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert aggregated(scores, "mean").tolist() == [2, 2]
    assert aggregated(scores, "min").tolist() == [1, 2]
    assert aggregated(scores, "lcb").tolist() == [1, 2]  # deviations of 1 and 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reward=labels"], "labels: .*3"),
        (["--reward=no/such"], "no/such: no such"),
        (["--reward=odd_points:one"], "reward odd_points:one: expected 16 numbers, one an answer, got shape (1,)"),
        (["--reward=rm", "--reward-aggregate=lcb"], "--reward-aggregate lcb: expected several reward models"),
        (["--reward=two", "--reward-aggregate=best"], "--reward-aggregate best: expected one of mean, min, lcb"),
        (["--reward=rm", "--judge=rm"], "--judge rm: it is the same as --reward rm"),
        (["--reward=rm", "--policy=encoder"], "encoder: expected a causal language model, .* found BertForMaskedLM"),
        (
            ["--reward=rm", "--policy=rm"],
            "rm: expected a causal language model, .* found GPT2ForSequenceClassification",
        ),
        (["--reward=rm", "--policy=seq2seq"], "seq2seq: expected a causal language model, .* found T5"),
        (["--reward=rm", "--max-new-tokens=16"], "--max-new-tokens 16 leaves no room for a prompt"),
        (["--reward=rm", "--prompts=empty.jsonl"], "empty.jsonl: no prompts in it"),
        (["--reward=rm", "--kl-limit=0"], "--kl-limit 0.0: expected more than 0"),
        (["--reward=rm", "--lora-rank=-1"], "--lora-rank -1: expected 0 or more"),
    ],
)
def test_what_cannot_be_used_is_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    found = complaint([*COMMAND, f"--output={tmp_path / 'tuned'}", *options])
    pattern = ".*".join(re.escape(part) for part in said.split(".*"))
    assert re.match(pattern, found), found
    assert not (tmp_path / "tuned").exists()


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is here")
def test_a_logger_that_is_missing_is_named(tmp_path: Path) -> None:
    said = complaint([*COMMAND, f"--output={tmp_path / 'tuned'}", "--reward=rm", "--wandb=mine"])
    assert said == "--wandb needs the package wandb: pip install 'label-studio-rlhf[wandb]'"
    assert not (tmp_path / "tuned-logs").exists()


def test_a_judge_is_the_reward_by_content_not_by_name(place: Path, tmp_path: Path) -> None:
    shutil.copytree("rm", tmp_path / "copy")
    said = complaint([*COMMAND, f"--output={tmp_path / 'tuned'}", "--reward=rm", f"--judge={tmp_path / 'copy'}"])
    assert "it is the same as --reward rm" in said


def test_a_batch_that_has_no_scores_is_kept_for_reading(tmp_path: Path) -> None:
    said = complaint([*COMMAND, f"--output={tmp_path / 'tuned'}", "--reward=odd_points:nan"])
    path = tmp_path / "tuned-logs" / "failed_batch.jsonl"
    assert said.startswith("reward odd_points:nan: expected finite numbers, got nan for the answer")
    assert said.endswith(f"; the batch is in {path}")
    rows = read_lines(path)
    assert len(rows) == 16
    assert {row["prompt"] for row in rows} == {"a b", "c", "d e a", "b " * 15}
    assert not (tmp_path / "tuned").exists()


def test_answers_that_are_all_empty_end_the_run(tmp_path: Path) -> None:
    mute = load_policy("policy")
    with torch.no_grad():  # the last state is that of <eos>, whatever was read
        trunk: Any = mute.model.base_model
        trunk.ln_f.weight.zero_()
        trunk.ln_f.bias.copy_(100 * trunk.wte.weight[5])
    mute.model.save_pretrained(tmp_path / "mute")
    mute.tokenizer.save_pretrained(tmp_path / "mute")
    said = complaint([*COMMAND, f"--policy={tmp_path / 'mute'}", f"--output={tmp_path / 'tuned'}", "--reward=rm"])
    assert said.startswith("all 16 answers of update 1 are empty")
    assert [row["answer"] for row in read_lines(tmp_path / "tuned-logs" / "failed_batch.jsonl")] == [""] * 16


def test_cut_prompts_are_counted(tmp_path: Path) -> None:
    ended = run_cli([*COMMAND, f"--output={tmp_path / 'tuned'}", "--reward=rm"])
    assert ended.code == 0
    assert "1 of 4 prompts are cut from the left" in ended.stderr


def test_prompts_that_cannot_be_answered_are_left_out_and_counted(tmp_path: Path) -> None:
    """An empty one has no state that an answer's first token could be drawn from."""
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": ""}, {"prompt": "a b"}, {"prompt": " "}])
    given = [*COMMAND, "--reward=rm", f"--prompts={prompts}", f"--output={tmp_path / 'tuned'}"]
    ended = run_cli(given)
    assert ended.code == 0
    assert "2 of 3 prompts left out: the prompt is empty" in ended.stderr
    assert {row["prompt"] for row in read_lines(tmp_path / "tuned" / "samples.jsonl")} == {"a b"}
    write_lines(prompts, [{"prompt": ""}])
    assert "no prompts to answer: expected one or more; 1 left out: the prompt is empty" in complaint(given)


def test_no_prompts_are_refused_by_the_function_too() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    with pytest.raises(PPOError, match="no prompts"):
        Trainer(PPOConfig(), Sampling(), load_policy("policy"), load_reward("rm"), [], fabric)


# --- settings from a file ---


def test_a_file_of_settings_gives_what_options_give_and_options_win(tmp_path: Path) -> None:
    settings = {"policy": "policy", "prompts": "prompts.jsonl", "reward": ["rm", "two"], "reward-aggregate": "lcb",
                "max-new-tokens": 4, "episodes": 64, "batch_size": 16, "learning-rate": "1e-3", "whiten-advantages": False,
                "accelerator": "cpu", "output": str(tmp_path / "tuned")}  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    ended = run_cli(["ppo", "run", "--config", tmp_path / "run.yaml", "--episodes=32"])
    assert ended.code == 0, ended.stderr
    told = json.loads((tmp_path / "tuned" / "run.json").read_text())
    assert (told["episodes"], told["batch_size"], told["learning_rate"]) == (32, 16, 1e-3)
    assert (told["reward"], told["reward_aggregate"], told["whiten_advantages"]) == (["rm", "two"], "lcb", False)


def test_printed_settings_can_be_given_back(tmp_path: Path) -> None:
    first = run_cli(
        [*COMMAND, "--reward=rm", "--judge=two", "--kl-target=6", "--no-whiten-advantages", "--print-config"]
    )
    assert first.code == 0, first.stderr
    (tmp_path / "run.yaml").write_text(first.stdout)
    assert run_cli(["ppo", "run", "--config", tmp_path / "run.yaml", "--print-config"]).stdout == first.stdout
    found = yaml.safe_load(first.stdout)
    assert (found["kl-target"], found["judge"], found["whiten-advantages"], found["seed"]) == (6.0, ["two"], False, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\n\nlerning-rate: 1e-3\n", ", line 3: there is no setting lerning-rate; did you mean learning-rate?"),
        ("- seed\n", ": expected a line `name: value` for every setting"),
        ("seed: [1\n", ": expected YAML, found something else"),
        ("config: other.yaml\n", ", line 1: there is no setting config"),
    ],
)
def test_a_file_of_other_settings_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert complaint(["ppo", "run", "--config", tmp_path / "run.yaml"]).startswith(f"{tmp_path / 'run.yaml'}{said}")


def test_two_runs_never_write_to_one_folder(tmp_path: Path) -> None:
    """The other one may be this very command, started twice; its checkpoint must not be taken from under it."""
    output = tmp_path / "tuned"
    given = [
        *COMMAND,
        "--reward=rm",
        f"--prompts={write_lines(tmp_path / 'prompts.jsonl', [{'prompt': 'a'}])}",
        f"--output={output}",
    ]
    logs = tmp_path / "tuned-logs"
    logs.mkdir()
    with FileLock(logs / "lock"):
        assert "tuned-logs: another run writes there at this moment" in complaint(given)
        assert not output.exists()
    assert run_cli(given).code == 0
