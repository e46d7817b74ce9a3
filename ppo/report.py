"""How a run went, for people to read: one HTML page with pictures that needs no other file, and a PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lsplugin.files import atomic_file, read_json, read_jsonl, write_text
from lsplugin.pictures import BLUE, GREY, RED, fill, png, svg
from ppo.errors import PPOError
from ppo.guards import LENGTHENED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

SHOWN = 8
"""Answers of the first and of the exported policy's update that are shown."""


class Record(NamedTuple):
    """What is known of a run.

    Attributes:
        title: the page's heading.
        updates: rows of metrics.jsonl, in order.
        samples: rows of samples.jsonl: update, prompt, answer, score, judge.
        told: run.json: settings, versions, why it ended, which update is exported.
    """

    title: str
    updates: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    told: Mapping[str, Any]


def write_report(folder: Path, *, title: str) -> None:
    """Write report.html and report.png into the folder of a run, from its metrics.jsonl, samples.jsonl and run.json.

    Raises:
        PPOError: the run has not a single update.
    """
    record = Record(
        title,
        [row for _, row in read_jsonl(folder / "metrics.jsonl")],
        [row for _, row in read_jsonl(folder / "samples.jsonl")],
        read_json(folder / "run.json"),
    )
    if not record.updates:
        raise PPOError(f"{folder / 'metrics.jsonl'}: no update to report on")
    drawn = {name: _of_record(draw, record) for name, draw in _PICTURES.items()}
    write_text(folder / "report.html", _page(record, {name: svg(draw) for name, draw in drawn.items()}))
    with atomic_file(folder / "report.png") as temporary:
        temporary.write_bytes(png(list(drawn.values())))


def warnings(record: Record) -> list[str]:
    """Say what should be looked at before the policy is used."""
    first, last = record.updates[0], record.updates[-1]
    found = []
    if record.told.get("ended"):
        found.append(f"The run ended before its time: {record.told['ended']}.")
    grown = last["length"] / first["length"]
    if not 1 / LENGTHENED <= grown <= LENGTHENED:
        found.append(
            f"Answers went from {first['length']:.1f} to {last['length']:.1f} tokens: see whether the reward likes length alone "
            "(the length-matched win rate of `python -m ppo evaluate`)."
        )
    if last["ended"] < 0.5:
        found.append(
            f"{1 - last['ended']:.0%} of the last answers did not end by themselves: give more --max-new-tokens, or a larger "
            "--missing-eos-penalty."
        )
    judged = [row["judge"] for row in record.updates if "judge" in row]
    if len(judged) > 1 and judged[-1] < judged[0] and last["score"] > first["score"]:
        found.append(
            f"The reward rose, but the judge fell from {judged[0]:.3f} to {judged[-1]:.3f}: the policy has learned the reward's "
            "mistakes."
        )
    return found


def _page(record: Record, pictures: Mapping[str, str]) -> str:
    exported = record.told.get("exported_after", len(record.updates))
    # the exported policy's own answers are those of the update after it
    numbers = sorted({row["update"] for row in record.samples})
    after = min((number for number in numbers if number > exported), default=numbers[-1] if numbers else 0)
    return fill(
        Path(__file__).with_name("report.html.j2"),
        record=record,
        first=record.updates[0],
        last=record.updates[-1],
        warnings=warnings(record),
        pictures=pictures,
        before=_samples(record, numbers[0] if numbers else 0),
        after=_samples(record, after),
        after_update=after,
        settings=_flat(record.told),
    )


def _samples(record: Record, update: int) -> list[Mapping[str, Any]]:
    return [row for row in record.samples if row["update"] == update][:SHOWN]


def _flat(told: Mapping[str, Any]) -> dict[str, str]:
    """Lay settings out as lines, those of settings inside of settings by `outer.inner`."""
    found: dict[str, str] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        else:
            found[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def _of_record(draw: Callable[[Axes, Record], None], record: Record) -> Callable[[Axes], None]:
    return lambda axes: draw(axes, record)


def _draw_score(axes: Axes, record: Record) -> None:
    _curve(axes, record, "score", BLUE, "reward")
    _curve(axes, record, "judge", RED, "judge")
    axes.legend(frameon=False)
    axes.set_title("Reward by episodes")


def _draw_kl(axes: Axes, record: Record) -> None:
    _curve(axes, record, "kl", BLUE)
    for name in ("kl_target", "kl_limit"):
        if record.told.get(name) is not None:
            axes.axhline(record.told[name], color=RED, linewidth=0.8, linestyle="--")
            axes.annotate(name, (0, record.told[name]), color=RED, va="bottom")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_title("KL to the start, nats a sequence")


def _draw_frontier(axes: Axes, record: Record) -> None:
    """Draw what every nat bought: where a judge bends down, the reward is over-optimised (Gao et al. 2022, arXiv 2210.10760)."""
    for name, colour, label in (("score", BLUE, "reward"), ("judge", RED, "judge")):
        points = [(math.sqrt(max(row["kl"], 0)), row[name]) for row in record.updates if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), ".", color=colour, label=label, markersize=4)
    axes.legend(frameon=False)
    axes.set_xlabel("square root of the KL")
    axes.set_title("Reward against distance from the start")


def _draw_length(axes: Axes, record: Record) -> None:
    _curve(axes, record, "length", BLUE)
    axes.set_ylim(bottom=0)
    axes.set_title("Length of the answers, tokens")


def _draw_entropy(axes: Axes, record: Record) -> None:
    _curve(axes, record, "entropy", BLUE)
    axes.set_ylim(bottom=0)
    axes.set_title("Entropy, nats a token")


def _draw_health(axes: Axes, record: Record) -> None:
    _curve(axes, record, "explained_variance", BLUE, "variance explained by the values")
    _curve(axes, record, "clipfrac", RED, "share of clipped tokens")
    _curve(axes, record, "ended", GREY, "share of answers that end")
    axes.set_ylim(max(-1.05, min(-0.05, axes.get_ylim()[0])), 1.05)
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.legend(frameon=False)
    axes.set_title("Health of the updates")


def _curve(axes: Axes, record: Record, name: str, colour: str, label: str | None = None) -> None:
    points = [(row["episodes"], row[name]) for row in record.updates if name in row]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.2)


_PICTURES: dict[str, Callable[[Axes, Record], None]] = {
    "score": _draw_score,
    "kl": _draw_kl,
    "frontier": _draw_frontier,
    "length": _draw_length,
    "entropy": _draw_entropy,
    "health": _draw_health,
}
