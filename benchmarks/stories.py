"""A real, tiny language model of children's stories tuned by PPO, and a guard that stops a run that over-optimises.

    RLHF_DATA=../shared/data python benchmarks/stories.py                      # everything; an hour of one core
    RLHF_DATA=../shared/data python benchmarks/stories.py --only words         # one of words, people, guard

The model is stories260k (Llama, 260,032 parameters, 512 tokens), the prompts are beginnings of stories made here, a sixth of them
held out. Every step is a command that a user types, and what is printed comes from the files that it writes.

words: the reward is a Python function, the share of an answer's words that are happy ones, times 10, or their number. The
number can be had by longer answers alone, so length, and the win rate among answers of like length, tell them apart.
people: simulated people prefer the better one of two stories by `quality`, with Bradley-Terry's noise. A reward model learns
from their comparisons; PPO sees the reward model alone.
guard: a weak reward model (a few comparisons) is optimised with hardly a penalty. The judge learned from others. The same run is
made with the guard and without it, and the picture shows what it spared.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from collections import defaultdict
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsplugin.console import say
from lsplugin.files import read_json, read_jsonl, write_jsonl
from lsplugin.pictures import BLUE, GREY, RED, png
from lsplugin.preferences import Pair, write_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

NAMES = ["Lily", "Tim", "Sue", "Tom", "Ben", "Mia", "Sam", "Anna", "Max", "Amy"]
KINDS = ["little", "small", "young", "brave", "shy", "clever"]
BEINGS = ["girl", "boy", "cat", "dog", "bird", "bear", "mouse", "rabbit", "fish", "fox"]
HAPPY = [
    "happy",
    "fun",
    "love",
    "loved",
    "smile",
    "smiled",
    "laughed",
    "joy",
    "glad",
    "excited",
    "proud",
    "friends",
    "play",
]
SAD = ["sad", "cry", "cried", "scared", "angry", "hurt", "lost", "bad", "afraid"]
TOKENS = 96
EPISODES = 1536
WEAK = 60
"""Comparisons that the weak reward model learns from; the judge has the others, which are some two thousand."""
NOISE = 1.0
"""Of the simulated people: they prefer a to b with the probability sigmoid((quality a - quality b) / NOISE)."""


def happy_share(prompts: list[str], answers: list[str]) -> list[float]:
    """Ten times the share of words that are happy ones: length alone changes nothing, and 30 words are the least that count."""
    return [
        10 * number / max(30, len(words(answer)))
        for number, answer in zip(happy_count(prompts, answers), answers, strict=True)
    ]


def happy_count(prompts: list[str], answers: list[str]) -> list[float]:
    """How many words are happy ones: more words, more of them."""
    del prompts
    return [float(sum(word in HAPPY for word in words(answer))) for answer in answers]


def quality(prompts: list[str], answers: list[str]) -> list[float]:
    """Like what the simulated people like: different happy words (3 count), talk; no sad words, no sentence twice."""
    del prompts
    found = []
    for answer in answers:
        said = words(answer)
        sentences = [sentence.strip().lower() for sentence in re.split(r"[.!?]", answer) if sentence.strip()]
        found.append(
            min(3, len(set(said) & set(HAPPY))) + ('"' in answer) - sum(word in SAD for word in said)
            - 2.0 * (len(sentences) - len(set(sentences)))
        )  # fmt: skip
    return found


def words(text: str) -> list[str]:
    """Cut a text into its words, in lower case."""
    return re.findall(r"[a-z']+", text.lower())


def beginnings() -> list[str]:
    """Make 600 beginnings of stories, in an order of their own."""
    made = [
        f"Once upon a time, there was a {kind} {being} named {name}."
        for kind, being, name in product(KINDS, BEINGS, NAMES)
    ]
    random.Random(0).shuffle(made)
    return made


def call(*command: str | Path) -> None:
    """Run one of this project's commands as a user would; what it says goes to the screen."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    say("$ python -m " + " ".join(map(str, command)))
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, env={**os.environ, "PYTHONPATH": paths})


def tune(model: Path, prompts: Path, output: Path, *given: str) -> None:
    """Tune the model; what is given wins."""
    call("ppo", "run", "--policy", model, "--prompts", prompts, "--output", output, "--episodes", str(EPISODES),
         "--learning-rate", "3e-4", "--max-new-tokens", str(TOKENS), "--missing-eos-penalty", "0", "--overwrite",
         *given)  # fmt: skip


def compare(model: Path, held_out: Path, tuned: Path, *measures: str) -> dict[str, Any]:
    """Compare the tuned model with its start; give the report, and print a table of it."""
    output = tuned.with_name(f"{tuned.name}.json")
    call("ppo", "evaluate", "--policy", tuned, "--base", model, "--prompts", held_out, "--output", output,
         "--max-new-tokens", str(TOKENS), *measures)  # fmt: skip
    report: dict[str, Any] = read_json(output)
    say(f"\n{tuned.name}: KL {shown(report['kl'])} nats a story")
    say("| | before | after | wins | wins at like length |\n|---|---|---|---|---|")
    for name, measure in report["measures"].items():
        cells = [shown(measure[key]) for key in ("base", "tuned")]
        cells += ["" if measure.get(key) is None else shown(measure[key]) for key in ("wins", "wins_at_like_length")]
        say(f"| {name} | {' | '.join(cells)} |")
    say(f"distinct: {json.dumps({who: report['answers'][who]['distinct'] for who in ('base', 'tuned')})}")
    for sample in report["samples"][:3]:
        say(f"- {sample['prompt']}\n  - before: {sample['base']}\n  - after: {sample['tuned']}")
    return report


def shown(found: dict[str, Any]) -> str:
    """Write a mean, or a share, with its interval."""
    return "none" if found["mean"] is None else f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def by_words(model: Path, folder: Path, prompts: Path, held_out: Path) -> None:
    """Tune with a Python reward, in a form that length cannot raise, and in one that it can."""
    measures = ["--reward", "stories:happy_share", "--judge", "stories:happy_count"]
    tune(model, prompts, folder / "share", "--reward", "stories:happy_share")
    compare(model, held_out, folder / "share", *measures)
    tune(model, prompts, folder / "count", "--reward", "stories:happy_count")
    compare(model, held_out, folder / "count", *measures)


def compared(model: Path, folder: Path, prompts: Path) -> list[Pair]:
    """Let simulated people compare two stories of each beginning; equal stories are left out."""
    answers = folder / "answers.json"
    if not answers.exists():
        call("ppo", "generate", "--policy", model, "--prompts", prompts, "--answers", "8", "--max-new-tokens", str(TOKENS),
             "--output", answers)  # fmt: skip
    dice, pairs = random.Random(0), []
    for task in read_json(answers):
        prompt = task["prompt"]
        texts = [task[f"answer{number}"] for number in range(1, 9)]
        for one, other in zip(texts[::2], texts[1::2], strict=True):
            if one != other:
                better, worse = quality([prompt] * 2, [one, other])
                first = dice.random() < 1 / (1 + math.exp((worse - better) / NOISE))
                pairs.append(Pair(prompt=prompt, chosen=one if first else other, rejected=other if first else one))
    return pairs


def fit(model: Path, folder: Path, name: str, pairs: Iterable[Pair]) -> Path:
    """Train a reward model, once."""
    if (folder / name / "config.json").exists():
        return folder / name
    write_pairs(folder / f"{name}.jsonl", pairs)
    call("rm_lightning", "fit", f"--model.backbone={model}", f"--data.pairs={folder / name}.jsonl", f"--output={folder / name}",
         "--model.learning_rate=5e-4", "--trainer.enable_progress_bar=false")  # fmt: skip
    return folder / name


def by_people(model: Path, folder: Path, prompts: Path, held_out: Path) -> None:
    """Tune with a reward model of what simulated people like."""
    reward = fit(model, folder, "rm", compared(model, folder, prompts))
    tune(model, prompts, folder / "people", "--reward", str(reward))
    compare(model, held_out, folder / "people", "--reward", str(reward), "--judge", "stories:quality")


def by_guard(model: Path, folder: Path, prompts: Path) -> None:
    """Optimise a weak reward model, with the guard and without; draw both scores against sqrt(KL)."""
    pairs = compared(model, folder, prompts)
    random.Random(1).shuffle(pairs)
    weak, judge = fit(model, folder, "weak", pairs[:WEAK]), fit(model, folder, "judge", pairs[WEAK:])
    given = ["--reward", str(weak), "--judge", str(judge), "--kl-coef", "0.001", "--learning-rate", "5e-4"]
    tune(model, prompts, folder / "unguarded", *given, "--judge-patience", "1000")
    tune(model, prompts, folder / "guarded", *given)
    whole, stopped = (metrics_of(folder / name) for name in ("unguarded", "guarded"))
    gold = qualities(folder / "unguarded" / "samples.jsonl")
    (folder / "guard.png").write_bytes(
        png(
            [
                partial(draw, whole=whole, stop=len(stopped), gold=gold),
                partial(draw_length, whole=whole, stop=len(stopped)),
            ]
        )
    )
    say(f"guarded: {len(stopped)} of {len(whole)} updates; {read_json(folder / 'guarded' / 'run.json').get('ended')}")
    say("| updates | sqrt(KL) | reward | judge | quality | length |\n|---|---|---|---|---|---|")
    for start in range(0, len(whole), 8):
        rows = whole[start : start + 8]
        root = math.sqrt(max(0.0, fmean(row["kl"] for row in rows)))
        score, judged, length = (fmean(row[key] for row in rows) for key in ("score", "judge", "length"))
        liked = fmean(gold[int(row["update"])] for row in rows)
        say(
            f"| {start + 1}-{start + len(rows)} | {root:.2f} | {score:.2f} | {judged:.2f} | {liked:.2f} | {length:.0f} |"
        )


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """Read what a run logged, update by update."""
    return [row for _, row in read_jsonl(folder / "metrics.jsonl")]


def qualities(samples: Path) -> dict[int, float]:
    """Mean quality of each update's stories."""
    found: dict[int, list[float]] = defaultdict(list)
    for _, row in read_jsonl(samples):
        found[row["update"]] += quality([row["prompt"]], [row["answer"]])
    return {update: fmean(values) for update, values in found.items()}


def draw(axes: Axes, whole: Sequence[dict[str, float]], stop: int, gold: dict[int, float]) -> None:
    """Draw reward, judge and quality against sqrt(KL), each less its start."""
    x = [math.sqrt(max(0.0, row["kl"])) for row in whole]
    lines = {"weak reward": [row["score"] for row in whole], "judge": [row["judge"] for row in whole]}
    lines["quality (never seen)"] = [gold[int(row["update"])] for row in whole]
    for (label, values), colour in zip(lines.items(), (BLUE, RED, GREY), strict=True):
        axes.plot(x, [value - fmean(values[:3]) for value in values], ".-", linewidth=0.5, color=colour, label=label)
    axes.axvline(x[min(stop, len(x)) - 1], color=GREY, linestyle=":", label="the guard ends the run")
    axes.set_xlabel("square root of the KL to the start, in nats")
    axes.set_ylabel("score less that of the first updates")
    axes.legend(frameon=False)


def draw_length(axes: Axes, whole: Sequence[dict[str, float]], stop: int) -> None:
    """Draw the answers' length, update by update."""
    axes.plot([row["update"] for row in whole], [row["length"] for row in whole], color=BLUE)
    axes.axvline(stop, color=GREY, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("update")
    axes.set_ylabel("tokens of an answer")


def main(
    *,
    folder: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs/stories"),
    only: Annotated[str, typer.Option(help="words, people or guard; all by default.")] = "",
) -> None:
    """Print tables as Markdown; the picture lies in the folder."""
    model = Path(os.environ["RLHF_DATA"]) / "models" / "stories260k-hf"
    folder.mkdir(parents=True, exist_ok=True)
    prompts, held_out = folder / "prompts.jsonl", folder / "held_out.jsonl"
    rows = [{"prompt": text} for text in beginnings()]
    write_jsonl(prompts, rows[100:])
    write_jsonl(held_out, rows[:100])
    if only in {"", "words"}:
        by_words(model, folder, prompts, held_out)
    if only in {"", "people"}:
        by_people(model, folder, prompts, held_out)
    if only in {"", "guard"}:
        by_guard(model, folder, prompts)


if __name__ == "__main__":
    typer.run(main)
