"""Real comparisons, a real (tiny) language model: a reward model fitted on HH pairs, and PPO with a Python reward.

    RLHF_DATA=../shared/data python benchmarks/hh.py --output runs/hh

The data: harmless-base test split of anthropics/hh-rlhf (2,312 pairs) and stories260k (260,032 parameters).
The first 300 usable comparisons are left out: a test sends them through Label Studio.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from lsplugin.dialogue import split_dialogues
from lsplugin.errors import LspluginError
from lsplugin.files import read_json, write_json, write_jsonl
from lsplugin.preferences import Pair, write_pairs
from ppo.__main__ import main as ppo
from rm_lightning.__main__ import main as fit

LEFT_OUT = 300
STARTS = [
    "Once upon a time, there was a little girl named Lily.",
    "One day, a boy named Tim",
    "Once upon a time, there was a big dog.",
    "Tom and Sam were best friends.",
    "The little cat was sad because",
    "Lily and her mom went to the park.",
    "One sunny day, a bird",
    "Sara had a new toy.",
    "There was a small house near the sea.",
    "Ben liked to play with his ball.",
    "In the garden, there was a frog.",
    "Mia lost her red hat.",
]
HELD_OUT_STARTS = [
    "Once upon a time, there was a boy named Max.",
    "One day, a girl named Anna",
    "The big bear was hungry.",
    "Jack and Jill went up the hill.",
    "A little fish lived in the sea.",
    "Grandma baked a cake.",
]
HAPPY = ("happy", "smil", "love", "fun", "laugh", "hug")


def happiness(prompts: list[str], answers: list[str]) -> list[float]:
    """Score how many different happy words a story has, up to three: a reward that is a Python function."""
    del prompts
    return [float(min(3, sum(word in answer.lower() for word in HAPPY))) for answer in answers]


def hh_pairs(file: Path) -> tuple[list[Pair], Counter[str]]:
    """Read the HH file as pairs; what is left out is counted by reason."""
    pairs, left_out = [], Counter[str]()
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            try:
                prompt, chosen, rejected = split_dialogues(row["chosen"], row["rejected"])
            except LspluginError as error:
                left_out[str(error)] += 1
                continue
            if not chosen or not rejected or chosen == rejected:
                left_out["an empty answer, or both identical"] += 1
                continue
            pairs.append(Pair(prompt, chosen, rejected))
    return pairs, left_out


def main() -> None:
    """Fit, tune, evaluate; print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/hh"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=4096)
    options = parser.parse_args()
    data = Path(os.environ.get("RLHF_DATA", "../shared/data"))
    backbone = str(data / "models" / "stories260k-hf")
    output: Path = options.output
    pairs, left_out = hh_pairs(data / "prefs" / "hh-rlhf" / "harmless-base.test.jsonl.gz")
    write_pairs(output / "pairs.jsonl", pairs[LEFT_OUT:])
    print(f"{len(pairs)} usable pairs, {len(pairs) - LEFT_OUT} of them for the fit; left out: {dict(left_out)}")

    started = time.perf_counter()
    fit(
        [
            "fit",
            f"--data.pairs={output / 'pairs.jsonl'}",
            f"--model.backbone={backbone}",
            f"--output={output / 'rm'}",
            "--data.max_length=256",
            "--data.test=0.2",
            "--data.batch_size=32",
            "--model.learning_rate=1e-3",
            f"--trainer.max_epochs={options.epochs}",
            "--trainer.enable_progress_bar=false",
        ]
    )
    fitted = time.perf_counter() - started
    print(f"fit: {fitted:.0f} s, {json.dumps(read_json(output / 'rm' / 'metrics.json'))}")

    for name, starts in (("prompts", STARTS), ("held_out", HELD_OUT_STARTS * 20)):
        write_jsonl(output / f"{name}.jsonl", ({"prompt": start} for start in starts))
    reward = "benchmarks.hh:happiness"
    started = time.perf_counter()
    run = [
        "run",
        "--policy",
        backbone,
        "--reward",
        reward,
        "--prompts",
        str(output / "prompts.jsonl"),
        "--output",
        str(output / "ppo"),
    ]
    command(
        [
            *run,
            "--episodes",
            str(options.episodes),
            "--learning-rate",
            "3e-4",
            "--missing-eos-penalty",
            "0",
            "--kl-coef",
            "0.05",
            "--overwrite",
        ]
    )
    tuned = time.perf_counter() - started
    compare = [
        "evaluate",
        "--policy",
        str(output / "ppo"),
        "--base",
        backbone,
        "--prompts",
        str(output / "held_out.jsonl"),
    ]
    command([*compare, "--reward", reward, "-o", str(output / "evaluation.json")])
    report = read_json(output / "evaluation.json")
    print(
        f"ppo: {tuned:.0f} s for {options.episodes} answers; KL {report['kl']}, reward {json.dumps(report['measures']['reward'])}"
    )
    for sample in report["samples"][: len(HELD_OUT_STARTS) : 2]:
        print(f"\n{sample['prompt']}\n  before: {sample['base']}\n  after:  {sample['tuned']}")
    write_json(output / "summary.json", {"fit_seconds": fitted, "ppo_seconds": tuned, "left_out": dict(left_out)})


def command(arguments: list[str]) -> None:
    """Run a command of ppo; typer ends every one of them with SystemExit."""
    try:
        ppo(arguments)
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
