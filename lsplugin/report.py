"""Figures -> what people read: tables for a terminal, and one HTML page with pictures that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsplugin.console import table
from lsplugin.pictures import BLUE, GREY, RED, fill, svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

Summary = dict[str, Any]


def tables(summary: Summary) -> list[str]:
    """Lay the figures out as plain-text tables."""
    agreement = summary["agreement"]
    rows = [
        ("agreement of two annotators", _interval(agreement["raw"])),
        ("  Fleiss' kappa", _interval(agreement["fleiss_kappa"])),
        ("  Krippendorff's alpha", _interval(agreement["krippendorff_alpha"])),
        ("agreement with themselves, asked again", _interval(agreement["self"])),
        ("ceiling: most that a reward model can reach", _interval(agreement["ceiling"])),
        ("floor: always the longer answer", _interval(summary["length_floor"])),
    ]
    if trusted := agreement.get("without_flagged"):
        rows += [
            ("without the flagged annotators: agreement of two", _interval(trusted["raw"])),
            ("  ceiling", _interval(trusted["ceiling"])),
        ]
    if anchoring := summary["anchoring"]:
        rows += [
            ("agreement with pre-labels that were shown", _interval(anchoring["shown"])),
            ("  with those that were hidden", _interval(anchoring["hidden"])),
            ("  difference: the pull of showing them", _interval(anchoring["difference"])),
        ]
    title = f"{summary['annotations']} annotations of {summary['tasks']} tasks, with 95% intervals"
    made = [table(title, rows), table("Annotators", _people(summary), header=_HEADER)]
    if found := flagged(summary):
        made.append(table("To talk to (an honest one is ever listed here in at most 1 of 100 cases)", found))
    if models := summary["models"]:
        ranking = [(row["model"], _interval(row["score"], digits=2)) for row in models["bradley_terry"]]
        wins = [(f"{row['model']} against {row['against']}", _interval(row["win_rate"])) for row in models["win_rates"]]
        made += [table("Models: Bradley-Terry scores, in log odds", ranking), table("Win rates, ties half", wins)]
    if summary["criteria"]:
        rows = [(name, _interval(found)) for name, found in summary["criteria"].items()]
        made.append(table("Criteria: how often each goes with the choice as a whole", rows))
    if summary["reasons"]:
        made.append(table("Reasons", list(summary["reasons"].items())))
    return made


def flagged(summary: Summary) -> list[tuple[str, str]]:
    """Say who is flagged and by what: (who and what, the counts)."""
    return [
        (
            f"annotator {found['annotator'] or 'unknown'} {question['test']}",
            f"{question['successes']} of {question['trials']} (innocent: {question['innocent']})",
        )
        for found in summary["annotators"]
        for question in found["questions"]
        if question["flag"] in found["flags"]
    ]


_HEADER = ("annotator", "labels", "seconds", "left", "longer", "with others", "gold", "flags")


def _people(summary: Summary) -> list[tuple[str, ...]]:
    return [
        (
            found["annotator"] or "unknown",
            str(found["annotations"]),
            "-" if found["median_seconds"] is None else f"{found['median_seconds']:.1f}",
            *(_percent(found[key]) for key in ("left", "longer", "agreed", "gold")),
            ", ".join(found["flags"]) or "-",
        )
        for found in summary["annotators"]
    ]


def page(summary: Summary, *, title: str, where_it_went: str) -> str:
    """Make the HTML page.

    Args:
        summary: as `lsplugin.summary.summarise` gives it.
        title: its heading.
        where_it_went: the table of where every annotation went.
    """
    return fill(
        Path(__file__).with_name("report.html.j2"),
        title=title,
        summary=summary,
        agreement=summary["agreement"],
        people=_people(summary),
        header=_HEADER,
        flagged=flagged(summary),
        where_it_went=where_it_went,
        interval=_interval,
        pictures={name: _picture(draw, summary) for name, draw in _PICTURES.items()},
    )


def _draw_agreement(axes: Axes, summary: Summary) -> None:
    """Draw floor, agreement and ceiling on one scale."""
    agreement = summary["agreement"]
    rows = [
        ("always the longer answer (floor)", summary["length_floor"], GREY),
        ("two annotators agree", agreement["raw"], BLUE),
        ("an annotator, asked again", agreement["self"], BLUE),
        ("a perfect reward model (ceiling)", agreement["ceiling"], RED),
    ]
    if trusted := agreement.get("without_flagged"):
        rows += [("ceiling without the flagged", trusted["ceiling"], RED)]
    _draw_shares(axes, [(name, found, colour) for name, found, colour in rows if found["value"] is not None])
    axes.set_xlabel("share, with its 95% interval")


def _draw_left(axes: Axes, summary: Summary) -> None:
    _draw_people(axes, summary, "left", "one-sided")
    axes.set_xlabel("share of the left answer")


def _draw_others(axes: Axes, summary: Summary) -> None:
    _draw_people(axes, summary, "agreed", "random")
    axes.set_xlabel("agreement with most of the others")


def _draw_people(axes: Axes, summary: Summary, key: str, flag: str) -> None:
    found = [person for person in summary["annotators"] if person[key]["value"] is not None]
    rows = [(p["annotator"] or "unknown", p[key], RED if flag in p["flags"] else BLUE) for p in found]
    _draw_shares(axes, rows)


def _draw_shares(axes: Axes, rows: list[tuple[str, dict[str, Any], str]]) -> None:
    for place, (_, found, colour) in enumerate(rows):
        axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(found["value"], place, "o", color=colour)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1)


def _draw_progress(axes: Axes, summary: Summary) -> None:
    import matplotlib.dates as mdates
    import pandas as pd

    times = pd.to_datetime([row["from"] for row in summary["progress"]])
    total, sums = 0, []
    for row in summary["progress"]:
        total += row["annotations"]
        sums.append(total)
    axes.step(times, sums, where="post", color=BLUE)
    formatter = mdates.ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.set_ylim(0, total * 1.05 + 1)
    axes.set_ylabel("annotations so far")


def _draw_models(axes: Axes, summary: Summary) -> None:
    models = summary["models"]
    ranking = models["bradley_terry"] if models else []
    for place, row in enumerate(ranking):
        axes.plot([row["score"]["low"], row["score"]["high"]], [place, place], color=BLUE, linewidth=2)
        axes.plot(row["score"]["value"], place, "o", color=BLUE)
    axes.set_yticks(range(len(ranking)), [row["model"] for row in ranking])
    axes.set_ylim(max(len(ranking), 1) - 0.5, -0.5)
    axes.set_xlabel("Bradley-Terry score, log odds")


_PICTURES: dict[str, Callable[[Axes, Summary], None]] = {
    "agreement": _draw_agreement,
    "left": _draw_left,
    "others": _draw_others,
    "progress": _draw_progress,
    "models": _draw_models,
}


def _picture(draw: Callable[[Axes, Summary], None], summary: Summary) -> str:
    rows = len(summary["annotators"]) if draw in {_draw_left, _draw_others} else 5
    return svg(lambda axes: draw(axes, summary), size=(6.4, 1.2 + 0.28 * max(rows, 5)))


def _interval(found: dict[str, Any], *, digits: int = 3) -> str:
    if found["value"] is None:
        return "not known"
    if found["low"] is None:
        return f"{found['value']:.{digits}f}"
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def _percent(found: dict[str, Any]) -> str:
    return "-" if found["value"] is None else f"{found['value']:.0%}"
