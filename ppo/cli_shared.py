"""What the commands have in common: options, and the demo world where nothing is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsplugin import console
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from lsplugin.preferences import Prompt
    from ppo.policy import Policy

PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="Folder or hub name; the demo world's base model by default.", show_default=False),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", help='One {"prompt": ...} a line; the demo world\'s by default.', show_default=False),
]
DEFAULT_REWARD = "runs/rm"
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        help=f"Reward model's folder, or a function module:function; several are an ensemble. Default: {DEFAULT_REWARD}.",
        show_default=False,
    ),
]
Aggregate = Annotated[
    str,
    typer.Option(
        "--reward-aggregate", help="Of an ensemble's scores: mean, min, or lcb, their mean less their spread."
    ),
]
Accelerator = Annotated[str, typer.Option("--accelerator", help="Device: auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.")]


def rewards_of(names: list[str] | None) -> list[str]:
    """Name the rewards, or the default one; where that is not there, say how it is made."""
    found = names or [DEFAULT_REWARD]
    if DEFAULT_REWARD in found and not Path(DEFAULT_REWARD).exists():
        raise LspluginError(
            f"{DEFAULT_REWARD}: no such folder; `python -m rm_lightning fit` makes it (or name another with --reward)"
        )
    return found


def prompts_of(path: Path | None, *, held_out: bool = False) -> list[Prompt]:
    """Read prompts, or take the demo world's and say so."""
    from lsplugin.preferences import read_prompts

    if path is not None:
        return read_prompts(path)
    from demo_world.corpus import prompts, split

    console.say(f"no --prompts given: the demo world's {'held-out ' if held_out else ''}prompts are used")
    return list(split(prompts(0))[1 if held_out else 0])


def policy_name(name: str | None) -> str:
    """Name a policy, or the demo world's base model, and say so."""
    if name is not None:
        return name
    from demo_world.base import base_model

    console.say("no policy named: the demo world's base model is used")
    with console.progress("making the demo world's base model (about a minute, once)"):
        return str(base_model())


def policy_of(name: str | None, accelerator: str) -> Policy:
    """Load a policy onto its device, ready to sample."""
    from ppo.policy import load_policy
    from ppo.processes import make_fabric
    from rm_lightning.quiet import quiet

    quiet()
    fabric = make_fabric(accelerator)
    policy = load_policy(policy_name(name))
    policy.model.to(fabric.device)  # type: ignore[arg-type]
    return policy
