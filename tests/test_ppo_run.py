"""A run of PPO by its command: killed, shared out, watched, guarded."""

from __future__ import annotations

import csv
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM

from ppo.actor import reference_logprobs
from ppo.journal import Journal
from ppo.learning import backward
from ppo.lora import without_adapters
from ppo.policy import load_policy
from ppo.reward import load_reward
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import Trainer
from rm_lightning.adapters import export_model
from tests import fits
from tests.helpers import complaint, read_lines, run_cli, write_lines
from tests.worlds import word_policy

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS = """
def count_a(prompts, answers):
    return [answer.split().count("a") - 0.1 * len(prompt) for prompt, answer in zip(prompts, answers)]

def short(prompts, answers):
    return [-float(len(answer.split())) for answer in answers]

def broken(prompts, answers):
    import os
    return [float("nan" if os.environ["LOCAL_RANK"] == "1" else 0)] * len(answers)
"""
UPDATES = 7
CPU = Fabric(accelerator="cpu", devices=1)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a policy, prompts and rewards, which is the working directory."""
    folder = tmp_path_factory.mktemp("place")
    word_policy(folder / "policy")
    write_lines(folder / "prompts.jsonl", [{"prompt": text} for text in ("a b", "c", "d e a", "b", "e")])
    (folder / "run_points.py").write_text(POINTS)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def arguments(output: Path, *more: str) -> list[str]:
    """A run of seven updates of 32 answers each."""
    return [
        "run", "--policy=policy", "--prompts=prompts.jsonl", "--reward=run_points:count_a", "--max-new-tokens=4",
        f"--episodes={32 * UPDATES}", "--batch-size=32", "--minibatch-size=16", "--learning-rate=3e-3",
        f"--output={output}", "--accelerator=cpu", *more,
    ]  # fmt: skip


def run(args: list[str], log: Path, before: Callable[[], object] = int) -> fits.Ended:
    return fits.run(args, log, before=before, program="ppo")


def contents(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl", "model.safetensors")}


# --- killed, interrupted: the same command goes on ---

WATCHED = ("--judge=run_points:short", "--judge-window=2", "--kl-target=1.0", "--normalise-scores", "--save-every=2")


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, bytes]:
    """What a run leaves that nobody interrupts."""
    ended = run(arguments(place / "whole", *WATCHED), place / "log")
    assert ended.code == 0, ended.said
    assert len(read_lines(place / "whole" / "metrics.jsonl")) == UPDATES
    return contents(place / "whole")


def kill(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def killed_before_the_first_checkpoint() -> None:
    at_line(1, "metrics.jsonl", kill)


def killed_between_two_lines() -> None:
    at_line(4, "samples.jsonl", kill)


def killed_while_learning(steps: int = 4 * 8 + 3) -> None:  # eight an update
    def counted(*args: Any, calls: list[int] = [], real: Any = backward, **options: Any) -> Any:  # noqa: B006
        calls.append(1)
        if len(calls) == steps:
            kill()
        return real(*args, **options)

    pytest.MonkeyPatch().setattr("ppo.trainer.backward", counted)


def killed_within_a_checkpoint() -> None:
    def half(value: Any, stream: Any, *, calls: list[int] = [], real: Any = torch.save) -> None:  # noqa: B006
        calls.append(1)
        real(value, stream)
        if len(calls) == 2:
            stream.truncate(stream.tell() // 2)
            stream.flush()
            kill()

    pytest.MonkeyPatch().setattr(torch, "save", half)


def killed_after_the_export() -> None:
    pytest.MonkeyPatch().setattr(Journal, "end", lambda _: kill())


def at_line(line: int, name: str, what: Callable[[], object]) -> None:
    """Let something happen before a line of a log file is written."""

    def add(self: Journal, file: str, rows: Any, real: Any = Journal.add) -> None:
        if file == name and len(read_lines(self.folder / "metrics.jsonl")) == line:
            what()
        real(self, file, rows)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background would ignore it
    pytest.MonkeyPatch().setattr(Journal, "add", add)


@pytest.mark.parametrize(
    ("moment", "goes_on"),
    [
        (killed_before_the_first_checkpoint, False),
        (killed_between_two_lines, True),
        (killed_while_learning, True),
        (killed_within_a_checkpoint, True),
        (killed_after_the_export, True),
    ],
)
def test_killed_and_started_again_it_gives_the_same_bytes(
    moment: Callable[[], None], goes_on: bool, whole: dict[str, bytes], place: Path, tmp_path: Path
) -> None:
    args = arguments(tmp_path / "tuned", *WATCHED)
    assert run(args, tmp_path / "killed", moment).code == -signal.SIGKILL
    ended = run(args, tmp_path / "log")
    assert ended.code == 0, ended.said
    assert ("going on from" in ended.said) == goes_on
    assert contents(tmp_path / "tuned") == whole
    assert not list((tmp_path / "tuned-logs" / "checkpoints").iterdir())


def test_ctrl_c_ends_the_update_and_the_same_command_goes_on(
    whole: dict[str, bytes], place: Path, tmp_path: Path
) -> None:
    args = arguments(tmp_path / "tuned", *WATCHED)
    stopped = run(args, tmp_path / "stopped", partial(at_line, 2, "samples.jsonl", partial(kill, signal.SIGINT)))
    assert stopped.code == 1
    latest = tmp_path / "tuned-logs" / "checkpoints" / "latest.pt"
    assert stopped.said.splitlines()[-1] == f"interrupted; the same command goes on from {latest}"
    assert "Traceback" not in stopped.said
    assert torch.load(latest, weights_only=True)["state"]["update"] == 3  # not one that --save-every would have written
    assert run(args, tmp_path / "log").code == 0
    assert contents(tmp_path / "tuned") == whole


def test_another_runs_result_is_not_replaced_unasked(tmp_path: Path) -> None:
    args = ["ppo", *arguments(tmp_path / "tuned", "--episodes=32")]
    assert run_cli(args).code == 0
    before = contents(tmp_path / "tuned")
    said = complaint([*args, "--seed=1"])
    assert (
        said
        == f"{tmp_path / 'tuned'}: another run's result is there; name another --output, or replace it with --overwrite"
    )
    assert contents(tmp_path / "tuned") == before
    assert run_cli([*args, "--seed=1", "--overwrite"]).code == 0
    assert contents(tmp_path / "tuned") != before
    told = json.loads((tmp_path / "tuned" / "run.json").read_text())
    assert (told["seed"], told["updates"], told["ended"]) == (1, 1, None)
    assert set(told["content"]) == {"policy", "reward", "judge", "prompts"}
    assert told["versions"]["torch"] == torch.__version__


def test_another_setting_or_reward_is_another_run(tmp_path: Path) -> None:
    """What is known of an interrupted run counts only for the very same run."""
    one = Journal(tmp_path / "tuned", {"seed": 0, "content": "a"})
    one.begin()
    one.add("metrics.jsonl", [{"update": 1}])
    one.save({"update": 1})
    one.add("metrics.jsonl", [{"update": 2}])
    assert one.interrupted()
    for other in ({"seed": 1, "content": "a"}, {"seed": 0, "content": "b"}):
        assert not Journal(tmp_path / "tuned", other).interrupted()
    one.cut(one.load()["sizes"])
    assert read_lines(one.folder / "metrics.jsonl") == [{"update": 1}]
    one.end()
    assert not one.interrupted()


def test_what_is_watched_is_in_files_and_loggers(place: Path, whole: dict[str, bytes]) -> None:
    """The curves lie beside the output for TensorBoard and as CSV; what a clock says stands apart from what is reproducible."""
    metrics, timings = (read_lines(place / "whole" / name) for name in ("metrics.jsonl", "timings.jsonl"))
    assert {"score", "judge", "kl", "length", "entropy", "clipfrac", "explained_variance"} <= set(metrics[0])
    for row in timings:
        assert set(row) == {"update", "rollout", "scoring", "learning", "episodes_per_second"}
        seconds = row["rollout"] + row["scoring"] + row["learning"]
        assert row["episodes_per_second"] == pytest.approx(32 / seconds)
    with (place / "whole-logs" / "csv" / "version_0" / "metrics.csv").open() as stream:
        logged = list(csv.DictReader(stream))
    assert [float(row["kl"]) for row in logged] == pytest.approx([row["kl"] for row in metrics])
    assert [int(row["step"]) for row in logged] == list(range(1, UPDATES + 1))
    board = EventAccumulator(str(place / "whole-logs" / "tensorboard" / "version_0"))
    board.Reload()
    assert [event.value for event in board.Scalars("score")] == pytest.approx([row["score"] for row in metrics])
    sample = read_lines(place / "whole" / "samples.jsonl")[0]
    assert set(sample) == {"update", "prompt", "answer", "score", "judge"}
    assert sample["judge"] == -len(sample["answer"].split())
    assert "PPO: whole" in (place / "whole" / "report.html").read_text()
    assert (place / "whole" / "report.png").stat().st_size > 10_000


def test_values_come_from_a_network_of_their_own_where_one_is_named(tmp_path: Path) -> None:
    """It learns, and is not part of what is written."""
    given = arguments(tmp_path / "tuned", "--value-model=policy", "--vf-coef=1.0", "--cliprange-value=10")
    ended = run_cli(["ppo", *given])
    assert ended.code == 0
    rows = read_lines(tmp_path / "tuned" / "metrics.jsonl")
    assert rows[0]["explained_variance"] == 0  # a new head gives 0
    assert rows[1]["explained_variance"] > 0.1
    told = json.loads((tmp_path / "tuned" / "run.json").read_text())
    assert told["value_model"] == "policy"
    assert told["content"]["value_model"] == told["content"]["policy"]
    start, tuned = (set(load_file(Path(folder) / "model.safetensors")) for folder in ("policy", tmp_path / "tuned"))
    assert start == tuned


def test_a_judge_may_be_asked_now_and_then(tmp_path: Path) -> None:
    assert run_cli(["ppo", *arguments(tmp_path / "tuned", "--judge=run_points:short", "--judge-every=3")]).code == 0
    judged = ["judge" in row for row in read_lines(tmp_path / "tuned" / "metrics.jsonl")]
    assert judged == [True, False, False, True, False, False, True]


# --- several processes ---


@pytest.mark.parametrize("lora", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_do_what_one_does(lora: int, place: Path, tmp_path: Path) -> None:
    """Answers of one to four tokens, passes of three answers, a judge and a bonus for entropy; killed, too, without adapters."""
    more = ["--microbatch-size=3", "--minibatch-size=12", "--batch-size=24", "--episodes=96", "--entropy-coef=0.01",
            "--judge=run_points:short", "--kl-target=1.0", "--save-every=1", f"--lora-rank={lora}"]  # fmt: skip
    alone = run(arguments(tmp_path / "alone", *more), tmp_path / "log")
    assert alone.code == 0, alone.said
    args = arguments(tmp_path / "both", *more, "--devices=2", "--strategy=ddp")
    if not lora:
        killed = fits.together(args, tmp_path / "killed", before=partial(killed_while_learning, 20), program="ppo")
        assert {ended.code for ended in killed} == {-signal.SIGKILL}
    for number, ended in enumerate(fits.together(args, tmp_path / "log", program="ppo")):
        assert ended.code == 0, ended.said
        assert ("going on from" in ended.said) == (not lora and number == 0)
    ours, theirs = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("both", "alone"))
    assert len(ours) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert 1 < ours[0]["length"] < 4
    ours, theirs = (read_lines(tmp_path / name / "samples.jsonl") for name in ("both", "alone"))
    assert [row["answer"] for row in ours] == [row["answer"] for row in theirs]
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("both", "alone"))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in other)


def test_a_score_that_one_process_lacks_ends_both(place: Path, tmp_path: Path) -> None:
    """The answers of the second process alone get no number; each says so in a line."""
    args = arguments(tmp_path / "tuned", "--reward=run_points:broken", "--devices=2", "--strategy=ddp")
    first, second = fits.together(args, tmp_path / "log", program="ppo")
    assert (first.code, second.code) == (1, 1)
    path = tmp_path / "tuned-logs" / "failed_batch.jsonl"
    assert "error: the run diverged: a score, here or in another process, is not finite" in first.said.splitlines()[-1]
    assert "error: reward run_points:broken: expected finite numbers, got nan" in second.said.splitlines()[-1]
    assert "Traceback" not in first.said + second.said
    assert len(read_lines(path)) == 32


def test_batches_are_shared_out_evenly_or_not_at_all(tmp_path: Path) -> None:
    args = arguments(tmp_path / "tuned", "--batch-size=27", "--minibatch-size=27", "--devices=2", "--strategy=ddp")
    for ended in fits.together(args, tmp_path / "log", program="ppo"):
        assert ended.code == 1
        assert "error: --batch-size 27 is of all 2 processes together" in ended.said.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--strategy=fsdp", "--strategy fsdp: expected one of auto, ddp"),
        ("--precision=64", "--precision 64: expected one of 32-true, bf16-mixed"),
        ("--accelerator=tpu", "--accelerator tpu --devices 1"),
        ("--devices=many", "--devices many"),
    ],
)
def test_devices_that_are_not_here_are_a_line(option: str, said: str, tmp_path: Path) -> None:
    assert said in complaint(["ppo", *arguments(tmp_path / "tuned", option)])
    assert not (tmp_path / "tuned-logs").exists()


# --- adapters ---


def test_adapters_leave_the_start_as_it_was_and_are_merged_into_the_export(place: Path, tmp_path: Path) -> None:
    policy = load_policy("policy")
    start = load_policy("policy")
    config = PPOConfig(episodes=96, batch_size=32, minibatch_size=16, learning_rate=1e-2, lora_rank=2)
    torch.manual_seed(0)
    reward = load_reward("run_points:count_a")
    trainer = Trainer(config, Sampling(max_new_tokens=4), policy, reward, ["a b", "c"], CPU)
    assert trainer.step().metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert all(".lora_" in name or name.startswith("value_head.") for name in trainer.weights)
    metrics = [trainer.step().metrics for _ in range(2)]
    assert metrics[-1]["kl"] > 0.01
    input_ids, mask = policy.read(["a b c d"], room=4)
    before = reference_logprobs(start.model, input_ids, mask, 3, 1.0)
    with without_adapters(policy.model):
        assert torch.equal(reference_logprobs(policy.model, input_ids, mask, 3, 1.0), before)
    assert not torch.allclose(reference_logprobs(policy.model, input_ids, mask, 3, 1.0), before, atol=1e-3)
    assert all(weight.requires_grad for weight in trainer.weights.values())
    export_model(policy.model, tmp_path / "merged", adapter=False)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        ours, theirs = policy.model(input_ids).logits, plain(input_ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    names = set(AutoModelForCausalLM.from_pretrained("policy").state_dict())
    assert set(plain.state_dict()) == names


@pytest.mark.slow
def test_a_run_with_adapters_goes_on_and_keeps_little(tmp_path: Path) -> None:
    """What is trained is in the checkpoint, what is not is not."""
    args = arguments(tmp_path / "tuned", "--lora-rank=2", "--save-every=2", "--kl-limit=1000")
    assert run(args, tmp_path / "killed", killed_between_two_lines).code == -signal.SIGKILL
    state = torch.load(tmp_path / "tuned-logs" / "checkpoints" / "latest.pt", weights_only=True)["state"]
    assert all(".lora_" in name or name.startswith("value_head.") for name in (*state["weights"], *state["kept"][1]))
    assert run(args, tmp_path / "log").code == 0
    whole = arguments(tmp_path / "whole", "--lora-rank=2", "--save-every=2", "--kl-limit=1000")
    assert run(whole, tmp_path / "log").code == 0
    assert contents(tmp_path / "tuned") == contents(tmp_path / "whole")
