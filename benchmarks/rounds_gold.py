"""Rounds in the demo world, unattended: whether the gold score, which no part of the loop sees, rises.

    python benchmarks/rounds_gold.py     # three rounds against a Label Studio of its own; exit code 1 if it does not

People are played by `python -m demo_world label`; everything else is `python -m rounds start` and `next`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from push_kills import migrated

from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE, Connection
from lsplugin.console import say
from lsplugin.files import read_json
from lsplugin.server import serve
from ppo.measures import interval

HELD_OUT = 200
"""Prompts to measure on."""


def python(*arguments: str, connection: Connection | None = None, cwd: Path | None = None) -> str:
    """Run a command of this project that must end well; give what it prints."""
    env = os.environ | ({URL_VARIABLE: connection.url, KEY_VARIABLE: connection.api_key} if connection else {})
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=env, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def begin(
    folder: Path, *, rounds: int, labels: int, episodes: int, epochs: int, train: int, held_out: int, seed: int
) -> str:
    """Start rounds in `folder`/demo; give the base model's folder."""
    prompts, out = folder / "prompts.jsonl", folder / "held_out.jsonl"
    python(
        "demo_world", "prompts", "-o", str(prompts), "--held-out", str(out), "--train", str(train),
        "--held-out-count", str(held_out), "--seed", str(seed),
    )  # fmt: skip
    base = python("demo_world", "base", "--seed", str(seed))
    python(
        "rounds", "start", str(folder / "demo"), "--policy", base, "--prompts", str(prompts), "--held-out", str(out),
        "--rounds", str(rounds), "--labels", str(labels), "--seed", str(seed),
        "--fit", f"--data.test 0.2 --model.learning_rate 5e-4 --trainer.max_epochs {epochs}",
        "--tune", f"--episodes {episodes} --learning-rate 3e-4 --minibatch-size 32",
    )  # fmt: skip
    return base


def gold(demo: Path, base: str, number: int, seed: int) -> Any:  # noqa: ANN401 - JSON
    """Measure the policy of a round against the start by the gold score; nothing of it comes back into the rounds."""
    here, output = demo / f"round-{number}", demo.parent / f"gold-{number}.json"
    python(
        "ppo", "evaluate", "--policy", str(here / "policy"), "--base", base, "--prompts", str(demo.parent / "held_out.jsonl"),
        "--reward", str(here / "rm"), "--judge", "demo_world.gold:scores", "--best-of", "0", "--seed", str(seed),
        "-o", str(output),
    )  # fmt: skip
    return read_json(output)


def shown(found: dict[str, float]) -> str:
    """Lay out a mean with its interval."""
    return f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def main(
    labels: Annotated[int, typer.Option(help="Tasks a round.")] = 120,
    rounds: Annotated[int, typer.Option(help="How many.")] = 3,
    episodes: Annotated[int, typer.Option(help="Of PPO, a round.")] = 960,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Keep the rounds in this new folder.")] = None,
) -> None:
    """Run the rounds and print a table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        shutil.copytree(migrated(), folder / "server", ignore=shutil.ignore_patterns("serve.*", "*.log"))
        base = begin(
            folder, rounds=rounds, labels=labels, episodes=episodes, epochs=5, train=630, held_out=HELD_OUT, seed=seed
        )
        demo, started = folder / "demo", time.monotonic()
        with serve(folder / "server") as server:
            while "waits" in (said := python("rounds", "next", str(demo), connection=server.connection)):
                say(said)
                python(
                    "demo_world", "label", said.rpartition("/")[2], "--seed", str(seed), connection=server.connection
                )
        seconds = time.monotonic() - started
        found = {number: gold(demo, base, number, seed) for number in range(1, rounds + 1)}
        print(python("rounds", "report", str(demo)))
    scores = {number: torch.tensor([one["judge"] for one in measured["samples"]]) for number, measured in found.items()}
    print("\n| round | gold score | more than the round before | KL to the start | length |\n|---|---|---|---|---|")
    print(
        f"| start | {shown(found[1]['measures']['judge']['base'])} | | 0 | {shown(found[1]['measures']['length']['base'])} |"
    )
    risen = True
    for number, measured in found.items():
        before = scores[number][:, 0] if number == 1 else scores[number - 1][:, 1]
        more = interval(scores[number][:, 1] - before)  # (N,), the same prompts
        risen &= more["mean"] > 0
        own = measured["measures"]
        cells = (own["judge"]["tuned"], more, measured["kl"], own["length"]["tuned"])
        print(f"| {number} | {' | '.join(map(shown, cells))} |")
    print(f"\n{seconds:.0f} s for {rounds} rounds of {labels} tasks, labelling by simulated annotators included")
    if not risen:
        raise SystemExit("the gold score did not rise each round")


if __name__ == "__main__":
    typer.run(main)
