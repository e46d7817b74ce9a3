"""`python -m ppo run`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.options import make, with_options
from ppo.cli_shared import (
    DEFAULT_REWARD,
    Accelerator,
    PolicyName,
    Prompts,
    Reward,
    check_reward,
    policy_name,
    prompts_of,
)
from ppo.settings import PPOConfig, Sampling

DEMO_SETTINGS = {"learning_rate": 3e-4, "episodes": 2560, "minibatch_size": 32}
"""What the demo world's tiny model takes; used when no policy is named."""


@with_options(PPOConfig, Sampling)
def run(
    policy: PolicyName = None,
    reward: Reward = DEFAULT_REWARD,
    prompts: Prompts = None,
    output: Annotated[Path, typer.Option("--output", help="Folder of the tuned policy.")] = Path("runs/ppo"),
    accelerator: Accelerator = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="32-true, bf16-mixed, ...; what fits the device by default.", show_default=False
        ),
    ] = None,
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Tune a policy by PPO; writes a plain Hugging Face folder with metrics.jsonl and samples.jsonl."""
    check_reward(reward)
    if policy is None:
        settings = DEMO_SETTINGS | settings
    config, sampling = make(PPOConfig, settings), make(Sampling, settings)
    texts = prompts_of(prompts)
    name = policy_name(policy)
    from ppo.run import run as tune
    from rm_lightning.quiet import quiet

    quiet()

    with console.progress("tuning", config.updates) as advance:

        def show(metrics: dict[str, float]) -> None:
            shown = "score {score:+.3f}  kl {kl:.2f}  length {length:.1f}".format(**metrics)
            advance(1, f"tuning  {shown}")

        metrics = tune(
            name,
            reward,
            texts,
            output,
            config=config,
            sampling=sampling,
            accelerator=accelerator,
            precision=precision,
            on_update=show,
        )
    console.say("last update: score {score:+.3f}, kl {kl:.2f} nats, length {length:.1f} tokens".format(**metrics))
    console.say(f"wrote {output}")
