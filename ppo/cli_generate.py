"""`python -m ppo generate`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.files import as_path
from lsplugin.options import make, with_options
from ppo.choice import BY_REWARD, Choice
from ppo.cli_shared import Accelerator, PolicyName, Prompts, Rewards, Seed, policy_of, prompts_of, rewards_of
from ppo.settings import Sampling


@with_options(Choice, Sampling)
def generate(
    policy: PolicyName = None,
    prompts: Prompts = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=as_path, metavar="FILE", help="Where the dataset goes (JSON).")
    ] = Path("dataset.json"),
    reward: Rewards = None,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Sample answers to compare: seeded, distinct, none empty; `lsplugin create --tasks` takes the file.

    The same command goes on where a killed run stopped.
    """
    from lsplugin.files import write_json
    from ppo.work import WorkFile, check_output

    sampling, choice = make(Sampling, settings), make(Choice, settings)
    names = rewards_of(reward) if reward or choice.select in BY_REWARD else []
    check_output(output, prompts)
    work, texts = WorkFile(output), prompts_of(prompts)
    model = policy_of(policy, accelerator)
    from ppo.generate import generate as sample_answers
    from ppo.reward import Members
    from ppo.select import origin

    members = Members(names, device=model.model.device) if names else None
    with console.progress("sampling answers", len(texts)) as advance:
        rows, dropped = sample_answers(
            model,
            texts,
            choice=choice,
            sampling=sampling,
            seed=seed,
            members=members,
            origin=origin(model, names),
            work=work,
            tell=console.say,
            advance=advance,
        )
    write_json(output, rows)
    work.finish()
    for reason, count in dropped.items():
        console.say(f"{count} of {len(texts)} prompts left out: {reason}")
    console.say(f"wrote {output}: {len(rows)} rows with {choice.answers} answer{'s' * (choice.answers > 1)} each")
