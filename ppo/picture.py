"""An evaluation as a picture: reward against the square root of the KL, as Gao et al. 2022 (arXiv 2210.10760) draw it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from lsplugin.files import as_path, atomic_file
from lsplugin.pictures import BLUE, GREY, RED, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lsplugin.files import PathLike


def write_picture(path: PathLike, report: dict[str, Any]) -> None:
    """Draw each reward of an evaluation (see `ppo.evaluate.evaluate`), by KL and by length, into a PNG."""
    names = [name for name in report["measures"] if name != "length"]
    drawings = [partial(draw, report=report, name=name) for name in names for draw in (_by_kl, _by_length)]
    with atomic_file(as_path(path)) as temporary:
        temporary.write_bytes(png(drawings))


def _by_kl(axes: Axes, report: dict[str, Any], name: str) -> None:
    measure, kl = report["measures"][name], report["kl"]
    yardstick = report["best_of_n"]
    if yardstick is not None:
        x = [math.sqrt(point["kl"]) for point in yardstick["points"]]
        low, mean, high = ([point[name][key] for point in yardstick["points"]] for key in ("low", "mean", "high"))
        axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(x, mean, "o-", color=BLUE, label="best of n of the base")
        for place, point, height in zip(x, yardstick["points"], mean, strict=True):
            text = f"n = {point['n']}" + (" (base)" if point["n"] == 1 else "")
            axes.annotate(text, (place, height), (4, -12), textcoords="offset points", fontsize=8)
    else:
        _point(axes, 0.0, None, measure["base"], BLUE, "base")
    if kl is not None:
        left, place, right = (math.sqrt(max(0.0, kl[key])) for key in ("low", "mean", "high"))
        _point(axes, place, [[place - left], [right - place]], measure["tuned"], RED, "tuned policy")
    else:
        axes.axhline(measure["tuned"]["mean"], color=RED, label="tuned policy (no KL)")
    level = measure["base"] if yardstick is None else yardstick["points"][0][name]
    axes.axhline(level["mean"], color=GREY, linewidth=0.8, linestyle=":")
    axes.margins(y=0.12)
    axes.set_xlim(left=-0.05)
    axes.set_xlabel("square root of the KL to the base, in nats")
    axes.set_ylabel(name)
    axes.set_title(f"{name}, mean of {report['prompts']} prompts with 95% interval", fontsize=10)
    axes.legend(frameon=False)


def _by_length(axes: Axes, report: dict[str, Any], name: str) -> None:
    """Draw each prompt's gain against how much longer its answer became: a slope tells of a reward for length."""
    longer, better = ([sample[key][1] - sample[key][0] for sample in report["samples"]] for key in ("length", name))
    axes.plot(longer, better, "o", color=BLUE, alpha=0.4, markersize=4, markeredgewidth=0)
    for line in (axes.axhline, axes.axvline):
        line(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlabel("tokens of the tuned policy's answer minus the base's")
    axes.set_ylabel(f"{name}, tuned minus base")
    axes.set_title(f"{name} by length, a dot for each prompt", fontsize=10)


def _point(
    axes: Axes, x: float, across: list[list[float]] | None, found: dict[str, float], colour: str, label: str
) -> None:
    up = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
    axes.errorbar([x], [found["mean"]], yerr=up, xerr=across, fmt="s", color=colour, capsize=3, label=label)
