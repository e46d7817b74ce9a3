"""`python -m ppo run`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsplugin import console
from lsplugin.options import make, with_options
from ppo.cli_shared import (
    DEFAULT_REWARD,
    Accelerator,
    Aggregate,
    PolicyName,
    Prompts,
    Rewards,
    policy_name,
    prompts_of,
    rewards_of,
)
from ppo.config_file import ConfigFile, PrintConfig, as_config
from ppo.settings import Keeping, PPOConfig, Rollouts, Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsplugin.console import Advance
    from ppo.trainer import Update

DEMO_SETTINGS = {"learning_rate": 3e-4, "episodes": 2560, "minibatch_size": 32}
"""What the demo world's tiny model takes; used when no policy is named."""

SHOWN = 3
"""Answers in a table of samples."""
WIDTH = 60
"""Characters of a cell."""


@with_options(PPOConfig, Sampling, Rollouts, Keeping)
def run(
    policy: PolicyName = None,
    reward: Rewards = None,
    reward_aggregate: Aggregate = "mean",
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            help="A reward that was held back: the run ends where its score falls, and the best policy by it is written.",
            show_default=False,
        ),
    ] = None,
    value_model: Annotated[
        str | None,
        typer.Option(
            "--value-model",
            help="Values from a network of its own, started from this folder: a reward model's or a language model's. "
            "By default from a head on the policy, at half the cost.",
            show_default=False,
        ),
    ] = None,
    prompts: Prompts = None,
    output: Annotated[Path, typer.Option("--output", help="Folder of the tuned policy.")] = Path("runs/ppo"),
    accelerator: Accelerator = "auto",
    devices: Annotated[str, typer.Option("--devices", help="How many of each machine, or auto for all.")] = "1",
    num_nodes: Annotated[int, typer.Option("--num-nodes", help="Machines.")] = 1,
    strategy: Annotated[str, typer.Option("--strategy", help="Of Lightning Fabric: auto or ddp.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="32-true or bf16-mixed; what fits the device by default.", show_default=False),
    ] = None,
    show_samples: Annotated[
        int, typer.Option("--show-samples", help="Updates from one table of answers to the next; 0: none.")
    ] = 0,
    config: ConfigFile = None,  # noqa: ARG001 - it has given the others their values
    print_config: PrintConfig = False,
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Tune a policy by PPO; writes a plain Hugging Face folder with metrics.jsonl and samples.jsonl.

    The same command again goes on where it was interrupted.
    """
    if policy is None:
        settings = DEMO_SETTINGS | settings
    tuning, sampling = make(PPOConfig, settings), make(Sampling, settings)
    rollouts, keeping = make(Rollouts, settings), make(Keeping, settings)
    if print_config:
        given = {"policy": policy, "reward": reward or [DEFAULT_REWARD], "reward_aggregate": reward_aggregate, "judge": judge,
                 "value_model": value_model, "prompts": prompts,
                 "output": output, "accelerator": accelerator, "devices": devices, "num_nodes": num_nodes,
                 "strategy": strategy, "precision": precision, "show_samples": show_samples}  # fmt: skip
        for part in (tuning, sampling, rollouts, keeping):
            given |= asdict(part)
        typer.echo(as_config(given), nl=False)
        return
    rewards = rewards_of(reward)
    texts = prompts_of(prompts)
    name = policy_name(policy)
    from ppo.errors import Interrupted
    from ppo.processes import make_fabric
    from ppo.run import run as tune
    from rm_lightning.quiet import quiet

    quiet()
    fabric = make_fabric(accelerator, precision, devices=devices, num_nodes=num_nodes, strategy=strategy)
    last: dict[str, float] = {}

    def show(update: Update, advance: Advance) -> None:
        advance(update.metrics["update"] - last.get("update", 0), f"tuning  {_figures(update.metrics)}")
        last.update(update.metrics)
        if show_samples and last["update"] % show_samples == 0:
            console.say(_table(update))

    try:
        with console.progress("tuning", tuning.updates) if fabric.is_global_zero else nullcontext(_silent) as advance:
            told = tune(
                name, rewards, texts, output, config=tuning, sampling=sampling, fabric=fabric, aggregate=reward_aggregate,
                judges=judge or (), value_model=value_model, rollouts=rollouts, keeping=keeping,
                on_update=partial(show, advance=advance), tell=console.say,
            )  # fmt: skip
    except Interrupted as how:
        console.say(str(how))
        raise typer.Exit(1) from None
    if fabric.is_global_zero:
        for line in [*_ending(told, last, tuning.updates), f"wrote {output}"]:
            console.say(line)


def _ending(told: dict[str, Any], last: dict[str, float], updates: int) -> Iterator[str]:
    """Say how a run ended."""
    if told["ended"] is not None:
        yield f"ended after update {told['updates']} of {updates}: {told['ended']}"
    if told["exported_after"] < told["updates"]:
        yield f"the policy after update {told['exported_after']} is the one that is kept"
    if last:
        yield f"last update: {_figures(last)}"


def _silent(amount: float, doing: str | None = None, /) -> None:
    """Show no progress."""


def _figures(metrics: dict[str, float]) -> str:
    judge = "  judge {judge:+.3f}" if "judge" in metrics else ""
    return ("score {score:+.3f}" + judge + "  kl {kl:.2f} nats  length {length:.1f} tokens").format(**metrics)


def _table(update: Update) -> str:
    from lsplugin.preferences import prompt_text

    rows = zip(update.prompts[:SHOWN], update.answers, update.scores.tolist(), strict=False)
    cells = [(_cell(prompt_text(prompt)), _cell(answer), f"{score:+.3f}") for prompt, answer, score in rows]
    return console.table(f"update {update.metrics['update']:.0f}", cells, header=("prompt", "answer", "score"))


def _cell(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
