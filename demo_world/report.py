"""What the demo showed: a table, summary.json and report.html, all from the files that the loop's commands left behind."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from demo_world.annotators import attainable_accuracy, gold_accuracy
from demo_world.gold import score
from lsplugin.console import table
from lsplugin.errors import LspluginError
from lsplugin.files import read_json, read_jsonl, write_json, write_text
from lsplugin.preferences import read_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN = 3
"""Prompts whose answers are shown before and after."""


def summarise(run: Path) -> dict[str, Any]:
    """Collect the figures of a run, each from the file that the command behind it wrote.

    Args:
        run: the folder of `examples/loop.sh`.

    Returns:
        Counts (sent, labelled, pulled, pairs, dropped by reason), the reward model's accuracy beside the best attainable, gold
        score and length before and after with 95% intervals, KL, and samples.
    """
    labels, counts = read_json(run / "labels.json"), read_json(run / "pairs-counts.json")
    fitted, evaluation = read_json(run / "rm" / "metrics.json"), read_json(run / "evaluation.json")
    held_out = list(read_pairs(run / "rm" / "test_pairs.jsonl"))
    measures = evaluation["measures"]
    return {
        "tasks": {
            "sent": len(read_json(run / "dataset.json")),
            "labelled": labels["tasks"],
            "pulled": counts["tasks"],
            "unlabelled": counts["unlabelled"],
        },
        "annotations": {"pulled": counts["annotations"], "pairs": counts["pairs"], "dropped": counts["dropped"]},
        "annotators": labels["annotators"],
        "reward_model": {
            "accuracy": fitted["accuracy"],
            "accuracy_interval": fitted["accuracy_interval"],
            "test_pairs": len(held_out),
            "attainable_accuracy": attainable_accuracy(held_out),
            "gold_accuracy": gold_accuracy(held_out),
            "length_floor": fitted["length_floor"],
        },
        "policy": {
            "prompts": evaluation["prompts"],
            "gold": measures["judge"],
            "reward": measures["reward"],
            "length": measures["length"],
            "kl": evaluation["kl"],
        },
        "samples": evaluation["samples"][:SHOWN],
    }


def check(summary: dict[str, Any]) -> None:
    """Raise when the demo did not show what it is there to show: nothing lost, and a better policy."""
    tasks, annotations = summary["tasks"], summary["annotations"]
    before, after = (summary["policy"]["gold"][name] for name in ("base", "tuned"))
    if not tasks["sent"] == tasks["labelled"] == tasks["pulled"]:
        raise LspluginError(f"tasks were lost: {tasks}")
    if annotations["pulled"] != annotations["pairs"] + sum(annotations["dropped"].values()):
        raise LspluginError(f"annotations were lost: {annotations}")
    if after["low"] <= before["high"]:
        raise LspluginError(
            f"PPO did not clearly raise the gold score: {_interval(before)} before, {_interval(after)} after; try another --seed"
        )


def as_text(summary: dict[str, Any]) -> str:
    """Lay the summary out for a terminal."""
    tasks, annotations, fitted, policy = (summary[key] for key in ("tasks", "annotations", "reward_model", "policy"))
    dropped = [(f"  dropped: {reason}", count) for reason, count in annotations["dropped"].items()]
    low, high = fitted["accuracy_interval"]
    rows = [
        ("tasks sent", tasks["sent"]),
        ("tasks labelled (by simulated annotators, a stand-in for people)", tasks["labelled"]),
        ("tasks pulled", tasks["pulled"]),
        ("annotations pulled", annotations["pulled"]),
        ("  preference pairs", annotations["pairs"]),
        *dropped,
        ("reward model: accuracy on held-out prompts", f"{fitted['accuracy']:.3f} ({low:.3f} to {high:.3f})"),
        ("  best attainable, given the annotators' noise", f"{fitted['attainable_accuracy']:.3f}"),
        ("  the gold score itself, on the same pairs", f"{fitted['gold_accuracy']:.3f}"),
        ("  always the longer answer", f"{fitted['length_floor']:.3f}"),
        ("mean gold score before PPO", _interval(policy["gold"]["base"])),
        ("mean gold score after PPO", _interval(policy["gold"]["tuned"])),
        ("KL to the start, nats an answer", _interval(policy["kl"])),
        ("mean answer length before, tokens", _interval(policy["length"]["base"])),
        ("mean answer length after, tokens", _interval(policy["length"]["tuned"])),
    ]
    title = f"The loop, measured on {policy['prompts']} held-out prompts; means with 95% intervals"
    samples = [
        f"\n{sample['prompt']}\n  before ({sample['judge'][0]:+.1f}): {sample['base']}\n"
        f"  after  ({sample['judge'][1]:+.1f}): {sample['tuned']}"
        for sample in summary["samples"]
    ]
    return "\n".join([table(title, rows), *samples])


def write_report(run: Path, summary: dict[str, Any]) -> None:
    """Write summary.json and the self-contained report.html into the run's folder."""
    from jinja2 import Environment, PackageLoader

    write_json(run / "summary.json", summary)
    updates = [row for _, row in read_jsonl(run / "ppo" / "metrics.jsonl")]
    page = Environment(loader=PackageLoader("demo_world", "."), autoescape=True).get_template("report.html.j2")
    curves = _curves(updates, _gold_of_updates(run / "ppo" / "samples.jsonl"))
    samples = read_json(run / "evaluation.json")["samples"][:20]
    write_text(run / "report.html", page.render(text=as_text(summary), curves=curves, samples=samples))


def _gold_of_updates(samples: Path) -> dict[int, float]:
    """Score the answers that every update kept with gold, which the run itself never saw: {update: mean}."""
    found: dict[int, list[float]] = defaultdict(list)
    for _, row in read_jsonl(samples):
        found[int(row["update"])].append(score(row["prompt"], row["answer"]))
    return {update: sum(values) / len(values) for update, values in found.items()}


def _curves(updates: Sequence[dict[str, float]], gold: dict[int, float]) -> str:
    """Plot reward, gold score, KL and length over the updates; a PNG as base64."""
    from matplotlib.figure import Figure

    steps = [int(row["update"]) for row in updates]
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = [
        ("reward model's score", [row["score"] for row in updates], "#4c72b0"),
        ("gold score (hidden from the run)", [gold[step] for step in steps], "#b8860b"),
        ("KL to the start, nats an answer", [row["kl"] for row in updates], "#c44e52"),
        ("answer length, tokens", [row["length"] for row in updates], "#55a868"),
    ]
    for axes, (title, values, colour) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        axes.plot(steps, values, color=colour)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("update")
        axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return base64.b64encode(image.getvalue()).decode()


def _interval(values: dict[str, float]) -> str:
    return "{mean:.2f} ({low:.2f} to {high:.2f})".format(**values)
