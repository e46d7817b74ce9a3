"""How near PPO comes to the policy that is known to be best, on worlds whose every answer can be counted.

    PYTHONPATH=. python benchmarks/ppo_optimum.py            # the whole table; hours of one core
    PYTHONPATH=. python benchmarks/ppo_optimum.py --quick    # world A, kl_coef 0.3, few episodes: a minute

Worlds A, B and C are those of `tests/worlds.py`: a random GPT-2 of two layers of width 64, 8 tokens, 4 prompts, rewards of
mean 0 and variance 1. The trainer is the one that a user runs. Share is the way from start to optimum in
E[r] - kl_coef KL(policy || start), 0 to 100%; distance is KL(policy || pi*), pi* ~ start exp(r / kl_coef); both exact, by
enumeration. Every row is a run of its own, whose learning rate falls to 0 at its end; a range is over seeds, which draw world,
policy and run.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads it
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
import typer
from lightning.fabric import Fabric

from lsplugin.console import say
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import train
from tests.worlds import PROMPTS, World, make_world

if TYPE_CHECKING:
    from collections.abc import Iterator

KL_COEFS = (1.0, 0.3, 0.1)
EPISODES = {"A": (15_000, 77_000), "B": (15_000, 100_000), "C": (15_000, 77_000)}

NO_CLIP = 10.0
"""Further than any value moves."""


class Result(NamedTuple):
    """What a run reached.

    Attributes:
        share: of the way from start to optimum, 0 to 1.
        distance: KL to the optimum, nats.
        start: KL of the start to the optimum, nats.
        seconds: of the run.
    """

    share: float
    distance: float
    start: float
    seconds: float


def settings(name: str, kl_coef: float, episodes: int, seed: int) -> PPOConfig:
    """Give a run its settings.

    What differs from the defaults: the learning rate, as the model is tiny, and value_rate, as the head is fast enough at that
    rate; vf_coef, which is measured no worse at 1; many small steps on each batch, which take more out of the same episodes than
    few large ones; far larger batches in world B, where what is learned of one answer says nothing of another, so that an update
    that fits the answers of a small batch unlearns others; the more so at kl_coef 1, where every answer counts in the optimum.
    """
    config = PPOConfig(
        episodes=episodes,
        batch_size=256,
        minibatch_size=32,
        epochs=8,
        learning_rate=3e-4,
        kl_coef=kl_coef,
        vf_coef=1.0,
        value_rate=1.0,
        missing_eos_penalty=0.0,
        seed=seed,
    )
    if name != "B":
        return config
    if kl_coef >= 1:
        return replace(config, batch_size=8192, minibatch_size=512, epochs=16, learning_rate=1e-3)
    return replace(config, batch_size=2048, minibatch_size=256, learning_rate=1e-3)


def tune(world: World, config: PPOConfig) -> Result:
    """Run the trainer on a world and count through what it learned."""
    begin = time.perf_counter()
    start = world.distance(config.kl_coef)
    fabric = Fabric(accelerator="cpu", devices=1)
    for _ in train(config, Sampling(max_new_tokens=world.length), world.policy, world.reward, PROMPTS, fabric):
        pass
    return Result(world.share(config.kl_coef), world.distance(config.kl_coef), start, time.perf_counter() - begin)


def tune_trl(world: World, config: PPOConfig, folder: Path) -> Result:
    """Run TRL's last PPO on a world without ends, with the same settings; its values are a network of their own, as always."""
    sys.path.insert(0, str(folder))
    from datasets import Dataset
    from transformers import GPT2ForSequenceClassification
    from trl.experimental.ppo import PPOConfig as Config
    from trl.experimental.ppo import PPOTrainer

    begin, start = time.perf_counter(), world.distance(config.kl_coef)
    model = world.policy.model
    shape: Any = copy.deepcopy(model.config)
    shape.num_labels = 1
    critic = GPT2ForSequenceClassification(shape)
    critic.transformer.load_state_dict(model.base_model.state_dict())
    torch.nn.init.zeros_(critic.score.weight)
    rows = [{"input_ids": world.policy.encoder.prompt(prompt)} for prompt in PROMPTS] * config.batch_size
    with tempfile.TemporaryDirectory() as output:
        given = Config(
            output_dir=output, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
            per_device_train_batch_size=config.minibatch_size, num_ppo_epochs=config.epochs,
            gradient_accumulation_steps=config.batch_size // config.minibatch_size,
            num_mini_batches=config.batch_size // config.minibatch_size, local_rollout_forward_batch_size=config.batch_size,
            total_episodes=config.updates * config.batch_size, response_length=world.length, temperature=1.0,
            learning_rate=config.learning_rate, kl_coef=config.kl_coef, vf_coef=config.vf_coef, lam=config.lam,
            cliprange=config.cliprange, cliprange_value=config.cliprange_value or NO_CLIP, whiten_rewards=False,
            num_sample_generations=0, save_strategy="no", seed=config.seed,
        )  # fmt: skip
        trainer = PPOTrainer(
            given, world.policy.tokenizer, model=model, ref_model=copy.deepcopy(model), reward_model=Lookup(world),
            value_model=critic, train_dataset=Dataset.from_list(rows), eval_dataset=Dataset.from_list(rows[:4]),
        )  # fmt: skip
        torch.manual_seed(config.seed)
        trainer.train()
    return Result(world.share(config.kl_coef), world.distance(config.kl_coef), start, time.perf_counter() - begin)


class Lookup(torch.nn.Module):
    """A world's reward in the shape of a classifier: TRL asks for a score behind every token and reads the last."""

    base_model_prefix = "backbone"

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.backbone = world, _Tokens()
        places = 8 ** torch.arange(world.length - 1, -1, -1)
        self.table = torch.empty_like(world.rewards)
        self.table[:, (world.responses * places).sum(1)] = world.rewards

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Look each row up, whose token ids are its hidden states: (B, S, 1) -> (B, S, 1)."""
        ids = hidden[..., 0].long()
        answers = ids[:, -self.world.length :]
        number = (answers * 8 ** torch.arange(answers.shape[1] - 1, -1, -1)).sum(1)
        return self.table[ids[:, -self.world.length - 1], number].float()[:, None, None].expand(*ids.shape, 1)


class _Tokens(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[input_ids.float()[..., None]])


def plan(names: str, *, quick: bool) -> Iterator[tuple[str, float, int]]:
    """Yield the rows of the table: world, kl_coef, episodes."""
    if quick:
        yield "A", 0.3, 4_096
        return
    for name in names:
        for episodes in EPISODES[name]:
            for kl_coef in KL_COEFS:
                yield name, kl_coef, episodes


def spread(values: list[float], form: str) -> str:
    """Write the mean, and the range of several."""
    mean = format(statistics.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def main(
    *,
    worlds: Annotated[str, typer.Option(help="Which ones, their letters in a row.")] = "ABC",
    seeds: Annotated[int, typer.Option(help="Runs of every row.")] = 1,
    first_seed: Annotated[int, typer.Option(help="The first one.")] = 0,
    trl: Annotated[Path | None, typer.Option(help="Folder of trl==1.12.0: TRL's rows in place of ours.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One short row.")] = False,
) -> None:
    """Print the table as Markdown, row by row."""
    torch.set_num_threads(1)  # the models are too small for two
    run = tune if trl is None else partial(tune_trl, folder=trl)
    say("| world | kl_coef | episodes | share of the way | KL to pi* at the start | KL to pi* | seconds |")
    say("|---|---|---|---|---|---|---|")
    for name, kl_coef, episodes in plan(worlds, quick=quick):
        runs = [
            run(make_world(name, seed=seed), settings(name, kl_coef, episodes, seed))
            for seed in range(first_seed, first_seed + seeds)
        ]
        share, distance, start, seconds = (list(column) for column in zip(*runs, strict=True))
        cells = [name, f"{kl_coef:g}", f"{episodes:,}", spread(share, ".1%")]
        cells += [spread(start, ".2f"), spread(distance, ".3f"), spread(seconds, ".0f")]
        say(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
