"""`python -m ppo generate|run|evaluate`: thin commands over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsplugin import console
from lsplugin.errors import LspluginError
from lsplugin.options import make, with_options
from ppo.settings import PPOConfig, Sampling

if TYPE_CHECKING:
    from lsplugin.preferences import Prompt
    from ppo.policy import Policy

app = typer.Typer(
    name="ppo",
    help="Tune a language model with a reward and a KL penalty, sample answers from it, and see whether it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="Folder or hub name; the demo world's base model by default.", show_default=False),
]
Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", help='One {"prompt": ...} a line; the demo world\'s by default.', show_default=False),
]
Reward = Annotated[str, typer.Option("--reward", help="Reward model's folder, or a Python function module:function.")]
Accelerator = Annotated[str, typer.Option("--accelerator", help="Device: auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling.")]

DEFAULT_REWARD = "runs/rm"
DEMO_SETTINGS = {"learning_rate": 3e-4, "episodes": 2560, "minibatch_size": 32}
"""What the demo world's tiny model takes; used when no policy is named."""


@app.command(epilog="Example: python -m ppo generate --policy gpt2 --prompts prompts.jsonl --answers 2 -o dataset.json")
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
    texts = _prompts(prompts)
    model = _policy(policy, accelerator)
    with console.progress("sampling answers", len(texts)) as advance:
        rows, dropped = sample_answers(model, texts, answers=answers, sampling=sampling, seed=seed, advance=advance)
    write_json(output, rows)
    for reason, count in dropped.items():
        console.say(f"{count} of {len(texts)} prompts left out: {reason}")
    console.say(f"wrote {output}: {len(rows)} rows with {answers} answers each")


@app.command(
    epilog="Example: python -m ppo run --policy gpt2 --reward runs/rm --prompts prompts.jsonl --output runs/ppo"
)
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
    _check_reward(reward)
    if policy is None:
        settings = DEMO_SETTINGS | settings
    config, sampling = make(PPOConfig, settings), make(Sampling, settings)
    texts = _prompts(prompts)
    name = _policy_name(policy)
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


@app.command(
    epilog="Example: python -m ppo evaluate --policy runs/ppo --base gpt2 --prompts held_out.jsonl --reward runs/rm"
)
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
    _check_reward(reward)
    texts = _prompts(prompts, held_out=True)
    tuned, start = _policy(policy, accelerator), _policy(base, accelerator)
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


def _check_reward(reward: str) -> None:
    if reward == DEFAULT_REWARD and not Path(reward).exists():
        raise LspluginError(
            f"{reward}: no such folder; `python -m rm_lightning fit` makes it (or name another with --reward)"
        )


def _prompts(path: Path | None, *, held_out: bool = False) -> list[Prompt]:
    """Read prompts, or take the demo world's and say so."""
    from lsplugin.preferences import read_prompts

    if path is not None:
        return read_prompts(path)
    from demo_world.corpus import prompts, split

    console.say(f"no --prompts given: the demo world's {'held-out ' if held_out else ''}prompts are used")
    return list(split(prompts(0))[1 if held_out else 0])


def _policy_name(name: str | None) -> str:
    """Name a policy, or the demo world's base model, and say so."""
    if name is not None:
        return name
    from demo_world.base import base_model

    console.say("no policy named: the demo world's base model is used")
    with console.progress("making the demo world's base model (about a minute, once)"):
        return str(base_model())


def _policy(name: str | None, accelerator: str) -> Policy:
    """Load a policy onto its device, ready to sample."""
    from ppo.policy import load_policy
    from ppo.run import make_fabric
    from rm_lightning.quiet import quiet

    quiet()
    fabric = make_fabric(accelerator)
    policy = load_policy(_policy_name(name))
    policy.model.to(fabric.device)  # type: ignore[arg-type]
    return policy
