"""Pages that need no other file: pictures drawn into them as SVG, or together into one PNG, and text that cannot break them."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    Draw = Callable[[Axes], None]

BLUE, RED, GREY = "#3060a0", "#b03030", "#888888"


def svg(draw: Draw, *, size: tuple[float, float] = (6.4, 3.4)) -> str:
    """Draw one picture, `size` inches wide and high; give it as the address of an SVG image, the same ever again."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "label-studio-rlhf", "svg.fonttype": "path"}):
        figure = Figure(figsize=size, layout="constrained")
        _draw(figure.subplots(), draw)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def png(drawings: Sequence[Draw]) -> bytes:
    """Draw several pictures into one PNG, two a row."""
    from matplotlib.figure import Figure

    rows = max(1, math.ceil(len(drawings) / 2))
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained", dpi=100)
    grid = figure.subplots(rows, 2, squeeze=False).flatten()
    for axes in grid[len(drawings) :]:
        axes.set_axis_off()
    for axes, draw in zip(grid, drawings, strict=False):
        _draw(axes, draw)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def fill(template: Path, **values: object) -> str:
    """Fill in a Jinja template; whatever the values hold is text, and a value that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def _draw(axes: Axes, draw: Draw) -> None:
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
