"""`python -m ppo generate`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.files import as_path
from lsplugin.options import make, with_options
from ppo.choice import BY_REWARD, Choice
from ppo.cli_shared import Accelerator, PolicyName, Prompts, Seed, check_reward, policy_of, prompts_of
from ppo.errors import PPOError
from ppo.settings import Sampling


@with_options(Choice, Sampling)
def generate(
    policy: PolicyName = None,
    prompts: Prompts = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=as_path, metavar="FILE", help="Where the dataset goes (JSON).")
    ] = Path("dataset.json"),
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            help="Reward model's folder, or a Python function module:function; several are asked together.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Sample answers to compare: seeded, distinct, none empty; `lsplugin create --tasks` takes the file.

    The same command goes on where a killed run stopped.
    """
    from lsplugin.files import write_json
    from ppo.work import WorkFile, check_output

    sampling, choice, names = make(Sampling, settings), make(Choice, settings), reward or []
    if choice.select in BY_REWARD and not names:
        raise PPOError(f"--select {choice.select} needs a reward: name one with --reward")
    for name in names:
        check_reward(name)
    check_output(output, prompts)
    work, texts = WorkFile(output), prompts_of(prompts)
    model = policy_of(policy, accelerator)
    from ppo.generate import generate as sample_answers
    from ppo.select import load_members, origin

    members = load_members(names, device=model.model.device) if names else None
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
