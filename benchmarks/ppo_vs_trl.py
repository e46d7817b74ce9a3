"""Our PPO beside TRL's: the same policy, reward model, prompts and settings.

    pip install --no-deps --target /tmp/trl trl==1.12.0        # the last release that has a PPO
    python benchmarks/ppo_vs_trl.py --trl /tmp/trl --only speed
    python benchmarks/ppo_vs_trl.py --trl /tmp/trl --only learning --seeds 3

A GPT-2 of 4 layers of width 128 and 8,192 tokens (1.86 million parameters), trained on the demo world's reviews, whose tokenizer
has some 600 tokens; the other rows of its embedding are never said. The reward model has the same shape and was trained on the
demo world's comparisons. Batches of 64 answers of up to 32 tokens, 4 epochs of one minibatch, float32, two threads.

speed: answers never end, so that every one has 32 tokens; each contender in a process of its own, in rounds; the median update
after the second. TRL's phases end where it starts to score and where it whitens advantages. learning: answers end with EOS; what
the tuned policy scores on held-out prompts, and its KL to the start, measured by the same code for all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from lsplugin.console import keep_memory, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from ppo.policy import Policy

ROWS = 8192
TOKENS = 32
BATCH = 64
RATE = 3e-4
KL_COEF = 0.05
SKIPPED = 2
"""Updates that warm caches up."""
PRECISION = {"cpu": "32-true", "cuda": "bf16-mixed"}


class Job(NamedTuple):
    """What a contender does in its process.

    Attributes:
        name: of the contender.
        base: folder of the policy.
        reward: folder of the reward model.
        output: where the tuned policy goes.
        updates: how many.
        ends: answers end with EOS.
        seed: of the run.
        trl: folder of TRL.
        device: cpu or cuda; there in mixed precision (bfloat16).
        rollout: what samples ours; see `ppo.samplers`.
        tokens: of an answer at most.
        prompts: what to answer; the demo world's by default.
    """

    name: str
    base: Path
    reward: Path
    output: Path
    updates: int
    ends: bool
    seed: int
    trl: Path
    device: str = "cpu"
    rollout: str = "own"
    tokens: int = TOKENS
    prompts: tuple[str, ...] = ()


class Phases(NamedTuple):
    """Seconds of an update."""

    rollout: float
    scoring: float
    learning: float


def make_models(folder: Path) -> tuple[Path, Path]:
    """Train the policy and the reward model, once; give their folders."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from demo_world.base import BaseConfig, base_model
    from demo_world.corpus import corpus
    from demo_world.pairs import default_pairs
    from rm_lightning.__main__ import main as reward_models

    base, reward = folder / "base", folder / "rm"
    if not (base / "config.json").exists():
        small = base_model(config=BaseConfig(layers=4, reviews=8000))
        tokenizer = AutoTokenizer.from_pretrained(small)
        model: Any = AutoModelForCausalLM.from_pretrained(small)
        ids = tokenizer(
            [f"{prompt} {answer}" for prompt, answer in corpus(1, 200)],
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        with torch.no_grad():
            states = model.transformer(**ids).last_hidden_state[ids.attention_mask.bool()]
            # The last norm leaves one direction in which all states have the same coordinate.
            apart = torch.linalg.lstsq(states.double(), torch.full((len(states), 1), -30.0).double()).solution[:, 0]
            said = model.get_input_embeddings().weight.clone()
            model.resize_token_embeddings(ROWS)
            model.get_input_embeddings().weight.copy_(apart.float())
            model.get_input_embeddings().weight[: len(said)] = said
            unsaid = model(**ids).logits.softmax(-1)[..., len(said) :].sum(-1).max()
        if not unsaid < 1e-4:
            raise RuntimeError(f"expected tokens that are never said, found a probability of {float(unsaid):.2g}")
        model.save_pretrained(base)
        tokenizer.save_pretrained(base)
    if not (reward / "config.json").exists():
        reward_models(
            ["fit", f"--model.backbone={base}", f"--data.pairs={default_pairs(0)}", f"--output={reward}",
             "--model.learning_rate=5e-4", "--trainer.enable_progress_bar=false", "--fresh=true"]
        )  # fmt: skip
    return base, reward


def prompts_of(*, held_out: bool = False) -> list[str]:
    """Give the demo world's prompts."""
    from demo_world.corpus import prompts, split

    return list(split(prompts(0))[1 if held_out else 0])


def ours(job: Job) -> list[Phases]:
    """Run our trainer; save the policy; give what each update took."""
    from lightning.fabric import Fabric

    from ppo.actor import load_critic
    from ppo.policy import load_policy
    from ppo.reward import load_reward
    from ppo.samplers import make_sampler
    from ppo.settings import PPOConfig, Rollouts, Sampling
    from ppo.trainer import Trainer

    keep_memory()  # as the command does
    policy = load_policy(str(job.base))
    if not job.ends:
        policy = policy._replace(eos_token_ids=(policy.model.config.vocab_size - 1,))  # never said
    config = PPOConfig(
        episodes=job.updates * BATCH,
        batch_size=BATCH,
        minibatch_size=BATCH,
        learning_rate=RATE,
        kl_coef=KL_COEF,
        missing_eos_penalty=1.0 if job.ends else 0.0,
        seed=job.seed,
    )
    fabric = Fabric(accelerator=job.device, devices=1, precision=PRECISION[job.device])  # type: ignore[arg-type]
    trainer = Trainer(
        config, Sampling(max_new_tokens=job.tokens), policy, load_reward([str(job.reward)], device=fabric.device),
        job.prompts or prompts_of(), fabric, critic=load_critic(str(job.base), policy) if job.name == APART else None,
        sampler=make_sampler(Rollouts(rollout=job.rollout), policy, fabric),
    )  # fmt: skip
    found = []
    for _ in range(job.updates):
        seconds = trainer.step().seconds
        found.append(Phases(seconds["rollout"], seconds["scoring"], seconds["learning"]))
    save(policy, job.output)
    return found


def trl(job: Job) -> list[Phases]:
    """Run TRL's trainer; save the policy; give what each update took."""
    sys.path.insert(0, str(job.trl))
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    from ppo.policy import load_policy

    policy = load_policy(str(job.base))
    tokenizer = AutoTokenizer.from_pretrained(job.base, padding_side="left")
    rows = [{"input_ids": policy.encoder.prompt(prompt)} for prompt in job.prompts or prompts_of()]
    marks: list[tuple[str, float]] = []

    def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:  # noqa: ANN401
            found = function(*given, **named)
            settle(job)
            marks.append((name, time.perf_counter()))
            return found

        return call

    ppo_trainer.batch_generation = marked("rollout", ppo_trainer.batch_generation)
    ppo_trainer.masked_whiten = marked("scoring", ppo_trainer.masked_whiten)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            settle(job)
            marks.append(("learning", time.perf_counter()))

    config = PPOConfig(
        output_dir=str(job.output), report_to="none", use_cpu=job.device == "cpu", bf16=job.device == "cuda",
        gradient_checkpointing=False,
        per_device_train_batch_size=BATCH, gradient_accumulation_steps=1, num_mini_batches=1, num_ppo_epochs=4,
        local_rollout_forward_batch_size=BATCH, total_episodes=job.updates * BATCH, response_length=job.tokens,
        temperature=1.0, stop_token="eos" if job.ends else None, missing_eos_penalty=1.0 if job.ends else None,
        learning_rate=RATE, kl_coef=KL_COEF, whiten_rewards=False, num_sample_generations=0, save_strategy="no",
        seed=job.seed, disable_tqdm=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(job.base)
    trainer = PPOTrainer(
        config,
        tokenizer,
        model=model,
        ref_model=AutoModelForCausalLM.from_pretrained(job.base),
        reward_model=AutoModelForSequenceClassification.from_pretrained(job.reward, num_labels=1),
        value_model=AutoModelForSequenceClassification.from_pretrained(job.base, num_labels=1),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:BATCH]),
        callbacks=[Clock()],
    )
    torch.manual_seed(job.seed)
    began = time.perf_counter()
    trainer.train()
    save(policy._replace(model=model), job.output)
    return phases(began, marks)


def phases(began: float, marks: list[tuple[str, float]]) -> list[Phases]:
    """Turn the ends of phases into seconds; of several marks of a kind in a row, the last counts."""
    found, last = [], began
    ends: dict[str, float] = {}
    for name, at in marks:
        if name == "rollout" and "learning" in ends:
            ends = {}
        ends[name] = at
        if name == "learning":
            found.append(
                Phases(ends["rollout"] - last, ends["scoring"] - ends["rollout"], ends["learning"] - ends["scoring"])
            )
            last = at
    return found


def settle(job: Job) -> None:
    """Wait until a GPU has done what it was asked."""
    import torch

    if job.device == "cuda":
        torch.cuda.synchronize()


def save(policy: Policy, folder: Path) -> None:
    """Write the tuned policy."""
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


APART = "ours, value network"
CONTENDERS: dict[str, Callable[[Job], list[Phases]]] = {"ours": ours, APART: ours, "TRL 1.12": trl}


def work(job: Job, results: Any) -> None:  # noqa: ANN401 - a queue
    """Do a job in this process; give its phases and its peak memory in MiB."""
    import torch

    torch.set_num_threads(2)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    found = CONTENDERS[job.name](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if job.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    results.put((found, peak / 2**20))


def run(job: Job) -> tuple[list[Phases], float]:
    """Do a job in a process of its own."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=work, args=(job, results))
    process.start()
    found: tuple[list[Phases], float] = results.get()
    process.join()
    return found


def judge(base: Path, reward: Path, tuned: Path) -> tuple[float, float, float]:
    """Measure a policy on held-out prompts: mean score of start and tuned, KL in nats a sequence."""
    from ppo.evaluate import evaluate
    from ppo.policy import load_policy
    from ppo.reward import load_reward
    from ppo.settings import Sampling

    report = evaluate(
        load_policy(str(tuned)), load_policy(str(base)), prompts_of(held_out=True), {"reward": load_reward([str(reward)])},
        sampling=Sampling(max_new_tokens=TOKENS), seed=0,
    )  # fmt: skip
    measure = report["measures"]["reward"]
    return measure["base"]["mean"], measure["tuned"]["mean"], report["kl"]["mean"]


def speed(
    names: list[str], models: tuple[Path, Path], folder: Path, trl_folder: Path, rounds: int, updates: int
) -> None:
    """Print how long an update takes, phase by phase."""
    times: dict[str, list[Phases]] = {name: [] for name in names}
    peaks: dict[str, float] = {}
    for number in range(rounds):
        for name in names:
            job = Job(name, *models, folder / f"{name}-speed", updates, ends=False, seed=number, trl=trl_folder)
            found, peaks[name] = run(job)
            times[name] += found[SKIPPED:]
            say(json.dumps({name: [round(sum(phase), 3) for phase in found]}))
    say("| | episodes/s | rollout s | scoring s | learning s | peak MiB |")
    say("|---|---|---|---|---|---|")
    for name, found in times.items():
        parts = [statistics.median(column) for column in zip(*found, strict=True)]
        total = statistics.median(map(sum, found))
        cells = [f"{BATCH / total:.1f}", *(f"{part:.2f}" for part in parts), f"{peaks[name]:.0f}"]
        say(f"| {name} | {' | '.join(cells)} |")


def learning(
    names: list[str], models: tuple[Path, Path], folder: Path, trl_folder: Path, seeds: range, updates: int
) -> None:
    """Print what is learned of the same number of episodes."""
    say("| | seed | score before | score after | KL | seconds |")
    say("|---|---|---|---|---|---|")
    for seed in seeds:
        for name in names:
            output = folder / f"{name}-{seed}"
            found, _ = run(Job(name, *models, output, updates, ends=True, seed=seed, trl=trl_folder))
            before, after, kl = judge(*models, output)
            say(f"| {name} | {seed} | {before:.2f} | {after:.2f} | {kl:.1f} | {sum(map(sum, found)):.0f} |")


def main(
    *,
    trl: Annotated[Path, typer.Option(help="Folder of trl==1.12.0.")],
    only: Annotated[str, typer.Option(help="speed or learning; both by default.")] = "",
    rounds: Annotated[int, typer.Option(help="Runs of each contender for speed.")] = 3,
    updates: Annotated[int, typer.Option(help="Updates of a run for speed.")] = 8,
    episodes: Annotated[int, typer.Option(help="Of a run for learning.")] = 2048,
    seeds: Annotated[int, typer.Option(help="Runs of each contender for learning.")] = 3,
    first_seed: Annotated[int, typer.Option(help="The first one.")] = 0,
    contenders: Annotated[
        str, typer.Option(help="Numbers of those to run: 0 ours, 1 with a value network, 2 TRL.")
    ] = "012",
    models: Annotated[Path | None, typer.Option(help="Where both models are kept.", show_default=False)] = None,
) -> None:
    """Print tables as Markdown."""
    names = [list(CONTENDERS)[int(number)] for number in contenders]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = make_models(models or folder)
        if only in {"", "speed"}:
            speed(names, made, folder, trl, rounds, updates)
        if only in {"", "learning"}:
            learning(names, made, folder, trl, range(first_seed, first_seed + seeds), episodes // BATCH)


if __name__ == "__main__":
    typer.run(main)
