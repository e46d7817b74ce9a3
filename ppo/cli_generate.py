"""`python -m ppo generate`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.options import make, with_options
from ppo.cli_shared import Accelerator, PolicyName, Prompts, Seed, policy_of, prompts_of
from ppo.settings import Sampling


@with_options(Sampling)
def generate(
    policy: PolicyName = None,
    prompts: Prompts = None,
    answers: Annotated[int, typer.Option("--answers", help="Distinct answers to each prompt.")] = 2,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the dataset goes (JSON).")] = Path(
        "dataset.json"
    ),
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Sample answers to compare: seeded, distinct, none empty; `lsplugin create --tasks` takes the file."""
    from lsplugin.files import write_json
    from ppo.generate import generate as sample_answers

    sampling = make(Sampling, settings)
    texts = prompts_of(prompts)
    model = policy_of(policy, accelerator)
    with console.progress("sampling answers", len(texts)) as advance:
        rows, dropped = sample_answers(model, texts, answers=answers, sampling=sampling, seed=seed, advance=advance)
    write_json(output, rows)
    for reason, count in dropped.items():
        console.say(f"{count} of {len(texts)} prompts left out: {reason}")
    console.say(f"wrote {output}: {len(rows)} rows with {answers} answers each")
