"""An evaluation as a picture: reward against the square root of the KL, as Gao et al. 2022 (arXiv 2210.10760) draw it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lsplugin.files import as_path, atomic_file

if TYPE_CHECKING:
    from lsplugin.files import PathLike

_BLUE, _RED, _GREY = "#3060a0", "#b03030", "#888888"


def write_picture(path: PathLike, report: dict[str, Any]) -> None:
    """Draw each reward of an evaluation (see `ppo.evaluate.evaluate`) in a panel of its own, into a PNG."""
    from matplotlib.figure import Figure

    names = [name for name in report["measures"] if name != "length"]
    figure = Figure(figsize=(6.4 * len(names), 4), layout="constrained", dpi=100)
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False).flatten(), strict=True):
        _draw(axes, report, name)
    with atomic_file(as_path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _draw(axes: Any, report: dict[str, Any], name: str) -> None:  # noqa: ANN401 - matplotlib has no types
    measure, kl = report["measures"][name], report["kl"]
    yardstick = report["best_of_n"]
    if yardstick is not None:
        x = [math.sqrt(point["kl"]) for point in yardstick["points"]]
        low, mean, high = ([point[name][key] for point in yardstick["points"]] for key in ("low", "mean", "high"))
        axes.fill_between(x, low, high, color=_BLUE, alpha=0.15, linewidth=0)
        axes.plot(x, mean, "o-", color=_BLUE, label="best of n of the base")
        for place, point, height in zip(x, yardstick["points"], mean, strict=True):
            text = f"n = {point['n']}" + (" (base)" if point["n"] == 1 else "")
            axes.annotate(text, (place, height), (4, -12), textcoords="offset points", fontsize=8)
    else:
        _point(axes, 0.0, None, measure["base"], _BLUE, "base")
    if kl is not None:
        left, place, right = (math.sqrt(max(0.0, kl[key])) for key in ("low", "mean", "high"))
        _point(axes, place, [[place - left], [right - place]], measure["tuned"], _RED, "tuned policy")
    else:
        axes.axhline(measure["tuned"]["mean"], color=_RED, label="tuned policy (no KL)")
    level = measure["base"] if yardstick is None else yardstick["points"][0][name]
    axes.axhline(level["mean"], color=_GREY, linewidth=0.8, linestyle=":")
    axes.set_xlim(left=-0.05)
    axes.set_xlabel("square root of the KL to the base, in nats")
    axes.set_ylabel(name)
    axes.set_title(f"{name}, mean of {report['prompts']} prompts with 95% interval", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _point(axes: Any, x: float, across: Any, found: dict[str, float], colour: str, label: str) -> None:  # noqa: ANN401
    up = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
    axes.errorbar([x], [found["mean"]], yerr=up, xerr=across, fmt="s", color=colour, capsize=3, label=label)
