"""What the rounds brought, on one page that needs no other file; each figure links to the file behind it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lsplugin import console
from lsplugin.pictures import BLUE, GREY, RED, fill, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rounds.figures import Figures


class Cell(NamedTuple):
    """A figure in the table: what it says, and the file behind it."""

    text: str
    file: str | None = None


def page(found: Figures, folder: Path, output: Path) -> str:
    """Make the HTML page.

    Args:
        found: see `rounds.figures.figures`.
        folder: of the rounds.
        output: where the page goes; links are relative to it.
    """
    up = os.path.relpath(folder, output.absolute().parent)
    rows = [
        (name, [(cell.text, None if cell.file is None else Path(up, cell.file).as_posix()) for cell in cells])
        for name, cells in cells_of(found)
    ]
    return fill(
        Path(__file__).with_name("report.html.j2"),
        found=found,
        rows=rows,
        said=summary(found),
        pictures={name: svg(partial(draw, rounds=found["rounds"])) for name, draw in _PICTURES.items()},
    )


def table(found: Figures) -> str:
    """Lay the figures out for a terminal."""
    rows = [(name, *(cell.text for cell in cells)) for name, cells in cells_of(found)]
    return console.table(str(found["title"]), rows, header=("", *(f"round {one['round']}" for one in found["rounds"])))


def summary(found: Figures) -> list[str]:
    """Say in sentences what came out."""
    rounds = found["rounds"]
    labels, hours = sum(one["labels"]["value"] for one in rounds), sum(one["labels"]["hours"] for one in rounds)
    cost = f", {hours * found['rate']:,.0f} {found['currency']}" if found["rate"] else ""
    said = [f"{labels:,} labels in {len(rounds)} round{'s' * (len(rounds) > 1)}: {_hours(hours)} of labelling{cost}."]
    tuned = [one for one in rounds if one["policy"] is not None]
    if tuned:
        last = tuned[-1]
        wins = last["policy"]["wins"]
        verdict = (
            "better than" if wins["low"] > 0.5 else "worse than" if wins["high"] < 0.5 else "not surely different from"
        )
        said.append(
            f"By the judge, who never saw these prompts, the policy of round {last['round']} is {verdict} the start: "
            f"its answer is the better one for {_percent(wins)} of {last['policy']['prompts']} held-out prompts."
        )
        judge = last["judge"]
        if judge and (judge["low"] is None or judge["low"] <= 0.5):
            said.append(
                "That judge itself is not surely better than a coin on prompts that it has not seen: its word counts little "
                "until it has more labels."
            )
    asked = [one for one in rounds if one["people"] is not None]
    if asked:
        people = asked[-1]["people"]
        said.append(
            f"People preferred the policy of round {asked[-1]['round']} to the start in {_percent(people)} of "
            f"{people['trials']} comparisons drawn at random."
        )
    if tuned:
        before, after = (tuned[-1]["policy"][name]["value"] for name in ("start_length", "length"))
        if not 2 / 3 <= after / max(before, 1e-9) <= 1.5:
            said.append(
                f"Answers went from {before:.0f} to {after:.0f} tokens: see whether people, or only the reward model, like that."
            )
    return said


def cells_of(found: Figures) -> list[tuple[str, list[Cell]]]:
    """Give the rows of the table: what is measured, and a cell for each round."""
    rounds = found["rounds"]
    money = (
        [("cost", lambda one: _labelled(one, f"{one['labels']['cost']:,.0f} {found['currency']}"))]
        if found["rate"]
        else []
    )
    rows: list[tuple[str, Any]] = [
        ("labels", lambda one: _labelled(one, _count(one["labels"]))),
        ("people who labelled", lambda one: _labelled(one, str(one["labels"]["people"]))),
        ("hours of labelling", lambda one: _labelled(one, _hours(one["labels"]["hours"]) + _untimed(one["labels"]))),
        *money,
        ("two people agree", lambda one: _shown(one["agreement"])),
        ("same answer as in an earlier round", lambda one: _shown(one["again"])),
        ("reward model: accuracy", lambda one: _shown(one["reward"])),
        ("  floor: always the longer answer", lambda one: _part(one["reward"], "floor")),
        ("  ceiling: as far as people agree", lambda one: _part(one["reward"], "ceiling")),
        ("judge: accuracy", lambda one: _shown(one["judge"])),
        ("policy wins against the start, by the judge", lambda one: _of_policy(one, "wins", _percent)),
        ("policy wins against the start, by people", lambda one: _shown(one["people"])),
        ("KL to the start, nats an answer", lambda one: _of_policy(one, "kl", _number)),
        ("length of answers, tokens", lambda one: _of_policy(one, "length", _number)),
        ("  of the start's", lambda one: _of_policy(one, "start_length", _number)),
    ]
    return [(name, [cell(one) for one in rounds]) for name, cell in rows]


def _labelled(one: Figures, text: str) -> Cell:
    return Cell(text, one["labels"]["file"])


def _shown(measure: Figures | None) -> Cell:
    return Cell("-") if measure is None or measure["value"] is None else Cell(_percent(measure), measure["file"])


def _part(measure: Figures | None, name: str) -> Cell:
    return Cell("-") if measure is None or measure[name] is None else Cell(f"{measure[name]:.1%}", measure["file"])


def _of_policy(one: Figures, name: str, as_text: Any) -> Cell:  # noqa: ANN401 - a function
    policy = one["policy"]
    return Cell("-") if policy is None or policy[name] is None else Cell(as_text(policy[name]), policy["file"])


def _percent(measure: Figures) -> str:
    interval = "" if measure.get("low") is None else f" ({100 * measure['low']:.1f} to {100 * measure['high']:.1f}%)"
    return f"{measure['value']:.1%}{interval}"


def _number(measure: Figures) -> str:
    return f"{measure['value']:.2f} ({measure['low']:.2f} to {measure['high']:.2f})"


def _count(labels: Figures) -> str:
    return f"{labels['value']:,}" + (f" and {labels['skipped']} skipped" if labels["skipped"] else "")


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def _untimed(labels: Figures) -> str:
    return f" ({labels['untimed']} without a time)" if labels["untimed"] else ""


def _draw_wins(axes: Axes, rounds: list[Figures]) -> None:
    _points(axes, rounds, BLUE, "the judge", lambda one: (one["policy"] or {}).get("wins"), -0.06)
    _points(axes, rounds, RED, "people", lambda one: one["people"], 0.06)
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1)
    _finish(axes, rounds, "Policy better than the start, by")


def _draw_accuracy(axes: Axes, rounds: list[Figures]) -> None:
    _points(axes, rounds, BLUE, "reward model", lambda one: one["reward"], 0)
    for name, style in (("floor", ":"), ("ceiling", "--")):
        known = [
            (one["round"], one["reward"][name]) for one in rounds if one["reward"] and one["reward"][name] is not None
        ]
        if known:
            axes.plot(*zip(*known, strict=True), style, color=GREY, marker="_", markersize=16, label=name)
    _finish(axes, rounds, "Accuracy on unseen prompts")


def _draw_labels(axes: Axes, rounds: list[Figures]) -> None:
    total = 0.0
    for one in rounds:
        axes.bar(one["round"], one["labels"]["value"], bottom=total, color=BLUE, width=0.5)
        axes.bar(one["round"], total, color=GREY, alpha=0.35, width=0.5)
        total += one["labels"]["value"]
    axes.set_title("Labels so far; those of the round in blue")
    axes.set_xticks([one["round"] for one in rounds], [f"round {one['round']}" for one in rounds])


def _draw_kl(axes: Axes, rounds: list[Figures]) -> None:
    _points(axes, rounds, BLUE, "", lambda one: (one["policy"] or {}).get("kl"), 0)
    axes.set_ylim(bottom=0)
    _finish(axes, rounds, "How far from the start: KL, nats an answer")


def _points(axes: Axes, rounds: list[Figures], colour: str, name: str, measure: Any, aside: float) -> None:  # noqa: ANN401
    """Draw a measure of each round with its interval."""
    known = [(one["round"] + aside, found) for one in rounds if (found := measure(one)) and found["value"] is not None]
    if not known:
        return
    axes.plot([x for x, _ in known], [found["value"] for _, found in known], "o-", color=colour, label=name)
    for x, found in known:
        if found.get("low") is not None:
            axes.plot([x, x], [found["low"], found["high"]], color=colour, linewidth=2)


def _finish(axes: Axes, rounds: list[Figures], title: str) -> None:
    axes.set_xticks([one["round"] for one in rounds], [f"round {one['round']}" for one in rounds])
    axes.set_xlim(rounds[0]["round"] - 0.5, rounds[-1]["round"] + 0.5)
    axes.set_title(title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)


_PICTURES = {"wins": _draw_wins, "accuracy": _draw_accuracy, "labels": _draw_labels, "kl": _draw_kl}
