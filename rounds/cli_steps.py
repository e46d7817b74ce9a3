"""The steps of a round that no other package has: thin commands over functions that neither print nor exit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lsplugin import console

Judging = Annotated[Path, typer.Option("--judging", metavar="FILE", help="The judge's prompts (JSONL).")]
Labels = Annotated[int, typer.Option("--labels", min=2, help="Tasks of the round.")]
JudgeShare = Annotated[float, typer.Option("--judge-share", help="Share of the tasks on the judge's prompts.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the draw.")]


def draw(
    tuning: Annotated[Path, typer.Argument(metavar="TUNING", help="Prompts that the policy is tuned on (JSONL).")],
    judging: Annotated[Path, typer.Argument(metavar="JUDGING", help="The judge's prompts (JSONL).")],
    labels: Labels = 200,
    judge_share: JudgeShare = 0.2,
    pool: Annotated[int, typer.Option("--pool", min=1, help="Prompts for each task that is chosen.")] = 1,
    seed: Seed = 0,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where they go.")] = Path(
        "prompts.jsonl"
    ),
) -> None:
    """Draw the prompts that a round answers."""
    from lsplugin.files import write_jsonl
    from lsplugin.preferences import read_prompts
    from rounds.prompts import draw as drawn

    found = drawn(
        read_prompts(tuning), read_prompts(judging), labels=labels, judge_share=judge_share, pool=pool, seed=seed
    )
    console.say(f"wrote {output}: {write_jsonl(output, ({'prompt': prompt} for prompt in found))} prompts")


def choose(
    files: Annotated[
        list[Path], typer.Argument(metavar="A.json B.json ...", help="Answers of each model, by `ppo generate`.")
    ],
    judging: Judging,
    scores: Annotated[
        Path | None,
        typer.Option("--scores", metavar="FILE", help="Of all answers, by `rm_lightning score`.", show_default=False),
    ] = None,
    asked: Annotated[
        list[Path] | None,
        typer.Option("--asked", metavar="FILE", help="Tasks of an earlier round.", show_default=False),
    ] = None,
    labels: Labels = 200,
    answers: Annotated[int, typer.Option("--answers", min=2, help="Answers of a task.")] = 2,
    judge_share: JudgeShare = 0.2,
    uncertain: Annotated[float, typer.Option("--uncertain", help="Share where the members disagree most.")] = 0.0,
    diverse: Annotated[float, typer.Option("--diverse", help="Share least like what was asked.")] = 0.0,
    again: Annotated[float, typer.Option("--again", help="Share asked in an earlier round, too.")] = 0.0,
    seed: Seed = 0,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The dataset (JSON).")] = Path(
        "tasks.json"
    ),
) -> None:
    """Choose what people compare; who wrote what, and why it was chosen, stands in meta alone."""
    from collections import Counter

    from lsplugin.files import read_json, write_json
    from lsplugin.preferences import prompt_text, read_prompts
    from rounds.choose import Shares, join, read_members
    from rounds.choose import choose as chosen
    from rounds.errors import RoundsError

    rows = chosen(
        join([read_json(file) for file in files], read_members(scores) if scores is not None else None),
        judging={prompt_text(prompt) for prompt in read_prompts(judging)},
        earlier=[read_json(file) for file in asked or []],
        labels=labels,
        answers=answers,
        shares=Shares(judge_share, again, uncertain, diverse),
        seed=seed,
    )
    if not rows:
        raise RoundsError(
            f"{', '.join(map(str, files))}: expected {answers} different answers to some prompt, found none"
        )
    write_json(output, rows)
    kinds = ", ".join(f"{count} {why}" for why, count in sorted(Counter(row["meta"]["why"] for row in rows).items()))
    console.say(
        f"wrote {output}: {len(rows)} tasks ({kinds})" + (f", {labels} were wanted" if len(rows) < labels else "")
    )


def gather(
    files: Annotated[list[Path], typer.Argument(metavar="A.jsonl B.jsonl ...", help="Pairs of each round.")],
    judging: Judging,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The reward model's pairs.")] = Path(
        "reward.jsonl"
    ),
    judge: Annotated[Path, typer.Option("--judge", metavar="FILE", help="The judge's pairs.")] = Path("judge.jsonl"),
) -> None:
    """Put the pairs of all rounds together, those on the judge's prompts apart."""
    from lsplugin.files import write_jsonl_parts
    from lsplugin.preferences import prompt_text, read_prompts
    from rounds.gather import gather as gathered

    parts = gathered(files, {prompt_text(prompt) for prompt in read_prompts(judging)})
    counts = write_jsonl_parts([output, judge], ((number, row) for number, part in enumerate(parts) for row in part))
    console.say(f"wrote {output}: {counts[0]} pairs, and {judge}: {counts[1]}")
