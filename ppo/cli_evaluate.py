"""`python -m ppo evaluate`: a thin command over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.files import as_path
from lsplugin.options import make, with_options
from ppo.cli_shared import Accelerator, Aggregate, Rewards, Seed, policy_of, prompts_of, rewards_of
from ppo.errors import PPOError
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
    reward: Rewards = None,
    reward_aggregate: Aggregate = "mean",
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge", help="A second reward, which the policy was not tuned on; or several.", show_default=False
        ),
    ] = None,
    best_of: Annotated[
        int, typer.Option("--best-of", help="Answers of the base to each prompt, whose best are a yardstick; 0 = none.")
    ] = 16,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            parser=as_path,
            metavar="FILE",
            help="Where the figures and answers go (JSON), and a picture (.png).",
        ),
    ] = Path("evaluation.json"),
    comparisons: Annotated[
        Path | None,
        typer.Option("--comparisons", help="Blind pairs for people to compare go here (JSON).", show_default=False),
    ] = None,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    **settings: Any,  # noqa: ANN401 - options of the settings classes
) -> None:
    """Compare a tuned policy with its base on held-out prompts: rewards, KL, length, best-of-n, and every answer to read."""
    from lsplugin.files import write_json
    from ppo.work import check_output

    sampling = make(Sampling, settings)
    if best_of < 0 or best_of == 1:
        raise PPOError(f"--best-of {best_of}: expected 2 or more, or 0 for none")
    picture = check_output(output, prompts).with_suffix(".png")
    check_output(picture, output, prompts)
    if comparisons is not None:
        check_output(comparisons, prompts, output, picture)
    names = rewards_of(reward)
    texts = prompts_of(prompts, held_out=True)
    tuned, start = policy_of(policy, accelerator), policy_of(base, accelerator)
    from ppo.evaluate import comparisons as pairs_of
    from ppo.evaluate import evaluate as compare
    from ppo.picture import write_picture
    from ppo.reward import load_reward

    device = tuned.model.device
    rewards = {"reward": load_reward(names, aggregate=reward_aggregate, device=device)}
    if judge:
        rewards["judge"] = load_reward(judge, device=device)
    if comparisons is not None and tuned.name == start.name:
        raise PPOError(f"--policy and --base are both {tuned.name}: there is nothing to compare for --comparisons")
    with console.progress("answering held-out prompts", (1 + max(1, best_of)) * len(texts)) as advance:
        report = compare(tuned, start, texts, rewards, sampling=sampling, seed=seed, best_of_n=best_of, advance=advance)
    write_json(output, report)
    write_picture(picture, report)
    console.say(as_text(report))
    console.say(f"wrote {output} and {picture}")
    if comparisons is not None:
        rows, left_out = pairs_of(report)
        write_json(comparisons, rows)
        for reason, count in left_out.items():
            console.say(f"{count} of {report['prompts']} comparisons left out: {reason}")
        console.say(f"wrote {comparisons}: {len(rows)} comparisons for `lsplugin create --tasks`")


def as_text(report: dict[str, Any]) -> str:
    """Lay an evaluation out for a terminal of 100 columns."""
    kl = f"KL to the base {_cell(report['kl'])} nats" if report["kl"] else f"no KL: {report['no_kl']}"
    measures = [
        (
            name,
            *(_cell(measure[part]) for part in ("base", "tuned", "difference")),
            _share(measure["wins"]),
            f"{_share(found)} of {found['prompts']}" if (found := measure["wins_at_like_length"])["prompts"] else "-",
        )
        for name, measure in report["measures"].items()
    ]
    parts = [
        *(f"{count} prompts left out: {reason}" for reason, count in report["dropped"].items()),
        console.table(
            f"{report['prompts']} held-out prompts, means with 95% intervals; {kl}",
            measures,
            header=("", "base", "tuned", "difference", "tuned is higher", "at like length"),
        ),
        console.table("", _described(report["answers"]), header=("answers", "base", "tuned")),
    ]
    if report["best_of_n"] is not None:
        parts.append(_yardstick(report["best_of_n"], report["kl"]))
    return "\n".join(parts)


def _described(answers: dict[str, Any]) -> list[tuple[str, ...]]:
    both = [answers["base"], answers["tuned"]]
    rows = [(name, *(f"{one[key]:.0%}" for one in both)) for name, key in (("ended", "ended"), ("empty", "empty"))]
    rows += [(f"distinct {n}-grams", *(f"{one['distinct'][n]:.0%}" for one in both)) for n in both[0]["distinct"]]
    return rows


def _yardstick(found: dict[str, Any], kl: dict[str, float] | None) -> str:
    names = [name for name in found["points"][0] if name not in {"n", "kl"}]
    rows = [
        (f"best of {point['n']}", f"{point['kl']:.2f}", *(_cell(point[name]) for name in names))
        for point in found["points"]
    ]
    text = console.table("", rows, header=("of the base's answers", "KL at most", *names))
    tuned = found["tuned"]
    if tuned is None or kl is None:
        return text
    same = "best of n at the same KL"
    less = f"best of {found['points'][-1]['n']}, which has less KL than its {kl['mean']:.2f}"
    against = ", ".join(f"{name} {_cell(tuned[name])}" for name in names)
    return f"{text}\ntuned minus {less if tuned['beyond'] else same}: {against}"


def _cell(values: dict[str, float]) -> str:
    return f"{values['mean']:.2f} ± {values['high'] - values['mean']:.2f}"


def _share(values: dict[str, float]) -> str:
    return f"{values['mean']:.0%} ({100 * values['low']:.0f} to {100 * values['high']:.0f}%)"
