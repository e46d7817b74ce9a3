"""`python -m ppo evaluate`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.options import make, with_options
from ppo.cli_shared import DEFAULT_REWARD, Accelerator, Reward, Seed, check_reward, policy_of, prompts_of
from ppo.settings import Sampling


@with_options(Sampling)
def evaluate(
    policy: Annotated[str, typer.Option("--policy", help="The tuned policy's folder.")] = "runs/ppo",
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="What it was tuned from; the demo world's base model by default.", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="Held-out prompts; the demo world's by default.", show_default=False),
    ] = None,
    reward: Reward = DEFAULT_REWARD,
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="A second reward, which the policy was not tuned on.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the figures and answers go (JSON).")] = Path(
        "evaluation.json"
    ),
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Compare a tuned policy with its base on held-out prompts: rewards, KL, length, and every answer to read."""
    from lsplugin.files import write_json
    from ppo.evaluate import evaluate as compare
    from ppo.reward import load_reward

    sampling = make(Sampling, settings)
    check_reward(reward)
    texts = prompts_of(prompts, held_out=True)
    tuned, start = policy_of(policy, accelerator), policy_of(base, accelerator)
    device = tuned.model.device
    rewards = {"reward": load_reward(reward, device=device)}
    if judge is not None:
        rewards["judge"] = load_reward(judge, device=device)
    with console.progress("answering held-out prompts", 2 * len(texts)) as advance:
        report = compare(tuned, start, texts, rewards, sampling=sampling, seed=seed, advance=advance)
    write_json(output, report)
    console.say(_comparison(report))
    console.say(f"wrote {output}")


def _comparison(report: dict[str, Any]) -> str:
    def cell(values: dict[str, float]) -> str:
        return "{mean:.2f} ({low:.2f} to {high:.2f})".format(**values)

    rows = [
        (name, cell(measure["base"]), cell(measure["tuned"]), cell(measure["difference"]), f"{measure['wins']:.0%}")
        for name, measure in report["measures"].items()
    ]
    title = f"{report['prompts']} held-out prompts, means with 95% intervals; KL to the base {cell(report['kl'])} nats"
    return console.table(title, rows, header=("", "base", "tuned", "difference", "tuned is higher"))
