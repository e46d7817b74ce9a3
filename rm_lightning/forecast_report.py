"""A forecast for people to read: one HTML page that needs no other file, its picture as PNG and SVG, and the figures as JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsplugin.files import atomic_file, write_json, write_text
from lsplugin.pictures import BLUE, GREY, RED, fill, png, svg
from rm_lightning.forecast import teaches_most, when_to_stop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

SIZE = (8.0, 4.2)


def write_forecast(output: Path, told: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write report.html, forecast.png, forecast.svg and, last, forecast.json.

    Args:
        output: the folder.
        told: from `rm_lightning.forecast.conclude`.
        settings: what the fits were made with.
    """
    drawings = {"curve": lambda axes: _draw_curve(axes, told)}
    if told["kinds"]["rows"]:
        drawings["kinds"] = lambda axes: _draw_kinds(axes, told)
    pictures = {name: svg(draw, size=SIZE) for name, draw in drawings.items()}
    page = fill(
        Path(__file__).with_name("forecast.html.j2"),
        told=told,
        pictures=pictures,
        settings={name: _plain(value) for name, value in _flat(settings).items()},
        percent=_percent,
        points=_points,
        teaches_most=teaches_most,
        when_to_stop=when_to_stop,
    )
    with atomic_file(output / "forecast.png") as temporary:
        temporary.write_bytes(png(list(drawings.values())))
    with atomic_file(output / "forecast.svg") as temporary:
        temporary.write_bytes(base64.b64decode(pictures["curve"].partition(",")[2]))
    write_text(output / "report.html", page)
    write_json(output / "forecast.json", told)


def _draw_curve(axes: Axes, told: Mapping[str, Any]) -> None:
    """Draw what was measured, the curve with its band, and what so many more labels bring."""
    line = told["curve"]
    labels = [point["labels"] for point in line]
    low, high = ([100 * point[name] for point in line] for name in ("low", "high"))
    axes.fill_between(labels, low, high, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(labels, [100 * point["value"] for point in line], color=BLUE)
    for point in told["measured"]:
        axes.plot([point["labels"]] * 2, [100 * point["low"], 100 * point["high"]], color=GREY, linewidth=1.5)
        axes.plot(point["labels"], 100 * point["value"], "o", color=GREY)
    for name, at, colour in (("now", told["labels"], BLUE), ("then", told["labels"] + told["more"], RED)):
        found = told[name]
        axes.plot([at] * 2, [100 * found["low"], 100 * found["high"]], color=colour, linewidth=2)
        axes.plot(at, 100 * found["value"], "o", color=colour)
        side = "right" if name == "now" else "left"  # they may lie close together
        axes.annotate(
            f"{100 * found['value']:.1f}", (at, 100 * found["high"]), xytext=(0, 4), textcoords="offset points",
            ha=side, color=colour,
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = [point["labels"] for point in told["measured"][:-1]] + [told["labels"], told["labels"] + told["more"]]
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("comparisons trained on")
    axes.set_ylabel("accuracy, %")
    axes.set_title("Measured (grey), now (blue), forecast (red); bars and band: 95%")


def _draw_kinds(axes: Axes, told: Mapping[str, Any]) -> None:
    """Draw what it costs to leave each kind out."""
    rows = told["kinds"]["rows"][::-1]
    for place, row in enumerate(rows):
        cost = row["cost"]
        axes.plot([100 * cost["low"], 100 * cost["high"]], [place] * 2, color=BLUE, linewidth=2)
        axes.plot(100 * cost["value"], place, "o", color=BLUE)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), labels=[row["kind"][:40] for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("points of accuracy lost")
    axes.set_title("What it costs to leave a kind out, at equally many labels")


def _percent(found: Mapping[str, float]) -> str:
    return f"{100 * found['value']:.1f}% ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _points(found: Mapping[str, float]) -> str:
    return f"{100 * found['value']:+.1f} points ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name the settings of each part as options are named; those that are off are left out."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return {name: value for name, value in found.items() if value is not None and value is not False}


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
