"""What a trained reward model is worth, for people to read: one HTML page with pictures that needs no other file, and a PNG."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsplugin.files import PathLike, as_path, atomic_file, read_json, write_text
from lsplugin.pictures import BLUE, GREY, RED, fill, png, svg
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

MOST_POINTS = 200
"""Points of a learning curve; more steps are drawn as means of equally many."""


@dataclass(frozen=True)
class Record:
    """What is known of a trained reward model.

    Attributes:
        title: the page's heading.
        metrics: as `rm_lightning.metrics.summarise` gives it, of the comparisons that chose nothing.
        data: where every pair went: {"in": pairs, "used": {part: pairs}, "dropped": {reason: pairs}}; in = used + dropped.
        history: rows of {"step", "epoch", "train_loss", "train_accuracy", "learning_rate"} and of
            {"step", "val_log_loss", "val_accuracy"}; what a row lacks is not drawn.
        ceiling: from `read_ceiling`; None where nobody knows.
        settings: what it was trained with.
        worst: the comparisons it got most wrong, as {"where", "prompt", "chosen", "rejected", "difference", "probability"}.

    Raises:
        RewardModelError: pairs went missing: in is not used + dropped.
    """

    title: str
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    ceiling: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    worst: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        used, dropped = (sum(self.data[kind].values()) for kind in ("used", "dropped"))
        if self.data["in"] != used + dropped:
            raise RewardModelError(
                f"{self.data['in']} pairs came in, but {used} are used and {dropped} dropped: count every pair once"
            )


def read_ceiling(path: PathLike) -> dict[str, Any] | None:
    """Read from the figures of `lsplugin report` (report.json) how accurate a reward model can be at best.

    Returns:
        {"value", "low", "high", "at_least", "at_most", "from"}: the ceiling with its 95% interval (null where not known), and the
        bounds between which it lies however opinions are spread; None where nothing was judged twice.

    Raises:
        RewardModelError: the file holds no such figures.
    """
    found = read_json(path)
    for key in ("agreement", "ceiling"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict) or "value" not in found:
        raise RewardModelError(
            f"{path}: expected the figures of `lsplugin report` with agreement.ceiling, found none; name its report.json"
        )
    if found["value"] is None:
        return None
    made: dict[str, Any] = {}
    for name in ("value", "low", "high", "at_least", "at_most"):
        number = found.get(name)
        unknown = number is None and name in {"low", "high"}
        if not unknown and not (isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1):
            raise RewardModelError(f"{path}: expected agreement.ceiling.{name} from 0 to 1, found {number!r}")
        made[name] = number
    return made | {"from": str(found.get("from") or "not said")}


def leak_warning(metrics: Mapping[str, Any], ceiling: Mapping[str, Any] | None) -> str | None:
    """Say so where a model is surely better than labels this noisy allow; None where it is not, or nobody knows."""
    low = metrics["accuracy_interval"][0]
    if ceiling is None or low is None or ceiling["at_most"] is None or low <= ceiling["at_most"]:
        return None
    return (
        f"Too good to be true: accuracy is {low:.3f} at least, but people agree so little that no model can be above "
        f"{ceiling['at_most']:.3f} against single votes. Was it trained on the pairs, or on prompts, that it is measured on? "
        "(Labels that sum up several votes are less noisy than the votes: for those, the ceiling is higher.)"
    )


def floor_warning(metrics: Mapping[str, Any]) -> str | None:
    """Say so where a model is no better, or not surely better, than always choosing the longer answer."""
    accuracy, floor, low = metrics["accuracy"], metrics["length_floor"], metrics["accuracy_interval"][0]
    if accuracy is None or low > floor:
        return None
    if accuracy <= floor:
        return (
            f"It does not beat length: always choosing the longer answer is right in {floor:.3f} of the comparisons, this model "
            f"in {accuracy:.3f}. It needs more labels, more training, or a better backbone."
        )
    return (
        f"Not surely better than length: always choosing the longer answer is right in {floor:.3f} of the comparisons, which is "
        f"within this model's interval ({_interval(*metrics['accuracy_interval'])}). Measure it on more comparisons."
    )


def write_report(path: PathLike, record: Record) -> None:
    """Write the page, and its pictures together as a PNG of the same name beside it."""
    drawn = {name: _of_record(draw, record) for name, (known, draw) in _PICTURES.items() if known(record)}
    sizes = {"headline": (9.6, 2.6)}
    write_text(path, _page(record, {name: svg(draw, size=sizes.get(name, (6.4, 3.4))) for name, draw in drawn.items()}))
    with atomic_file(as_path(path).with_suffix(".png")) as temporary:
        temporary.write_bytes(png(list(drawn.values())))


def _of_record(draw: Callable[[Axes, Record], None], record: Record) -> Callable[[Axes], None]:
    return lambda axes: draw(axes, record)


def _page(record: Record, pictures: Mapping[str, str]) -> str:
    warnings = [leak_warning(record.metrics, record.ceiling), floor_warning(record.metrics)]
    return fill(
        Path(__file__).with_name("report.html.j2"),
        record=record,
        metrics=record.metrics,
        pictures=pictures,
        warnings=[warning for warning in warnings if warning],
        settings={name: _plain(value) for name, value in record.settings.items()},
        share=_share,
        interval=_interval,
        number=_number,
    )


def _draw_headline(axes: Axes, record: Record) -> None:
    """Draw floor, model and ceiling on one scale."""
    metrics, ceiling = record.metrics, record.ceiling
    rows = [
        ("always the longer answer (floor)", _of(metrics, "length_floor"), GREY),
        ("this reward model", _of(metrics, "accuracy"), BLUE),
    ]
    if ceiling is not None:
        best = {"value": ceiling["value"], "low": ceiling["at_least"], "high": ceiling["at_most"]}
        rows.append(("a perfect reward model (ceiling)", best, RED))
    _draw_shares(axes, rows)
    for place, (_, found, colour) in enumerate(rows):
        at, text = (found["value"], place), f"{found['value']:.3f}"
        axes.annotate(text, at, xytext=(0, 7), textcoords="offset points", ha="center", color=colour)
        if colour != BLUE:
            axes.axvline(found["value"], color=colour, linewidth=0.8, linestyle="--", alpha=0.6, zorder=0)
    axes.set_title("Accuracy between floor and ceiling")


def _draw_loss(axes: Axes, record: Record) -> None:
    _draw_curves(axes, record, "train_loss", "val_log_loss")
    axes.axhline(math.log(2), color=GREY, linewidth=0.8, linestyle=":")  # a coin's
    axes.set_title("Log-loss by step (dotted: a coin)")


def _draw_accuracy(axes: Axes, record: Record) -> None:
    _draw_curves(axes, record, "train_accuracy", "val_accuracy")
    axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_title("Accuracy by step (dotted: a coin)")


def _draw_rate(axes: Axes, record: Record) -> None:
    axes.plot(*zip(*_series(record, "learning_rate"), strict=True), color=GREY)
    axes.set_ylim(bottom=0)
    axes.set_title("Learning rate by step")


def _draw_reliability(axes: Axes, record: Record) -> None:
    """Draw how often the model is right against how sure it is."""
    axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=0.8, linestyle=":")
    for point in record.metrics["calibration"]["points"]:
        axes.plot([point["predicted"]] * 2, [point["low"], point["high"]], color=BLUE, linewidth=2)
        axes.plot(point["predicted"], point["value"], "o", color=BLUE)
    axes.set_xlim(0.49, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("how sure the model is")
    axes.set_ylabel("how often it is right")
    axes.set_title("Calibration (dotted: as it should be)")


def _draw_length(axes: Axes, record: Record) -> None:
    found = record.metrics["by_length"]
    names = {"longer": "better answer is longer", "about_equal": "about as long", "shorter": "better answer is shorter"}
    _draw_shares(axes, [(f"{text} ({found[name]['trials']})", found[name], BLUE) for name, text in names.items()])
    axes.set_title("Accuracy by length")


def _draw_strength(axes: Axes, record: Record) -> None:
    rows = record.metrics["by_strength"]
    _draw_shares(axes, [(f"{_strength(row)} ({row['trials']})", row, BLUE) for row in rows])
    axes.set_title("Accuracy by strength of the preference")


def _draw_shares(axes: Axes, rows: Sequence[tuple[str, Mapping[str, Any], str]]) -> None:
    for place, (_, found, colour) in enumerate(rows):
        if found["value"] is not None:
            axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(found["value"], place, "o", color=colour)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)


def _draw_curves(axes: Axes, record: Record, train: str, held_out: str) -> None:
    if points := _series(record, train):
        axes.plot(*zip(*_thinned(points), strict=True), color=GREY, linewidth=1, label="training")
    if points := _series(record, held_out):
        axes.plot(*zip(*points, strict=True), "o-", color=BLUE, label="validation")
    axes.legend(frameon=False)


_PICTURES: dict[str, tuple[Callable[[Record], object], Callable[[Axes, Record], None]]] = {
    "headline": (lambda record: record.metrics["accuracy"] is not None, _draw_headline),
    "calibration": (lambda record: record.metrics["calibration"]["points"], _draw_reliability),
    "loss": (lambda record: _series(record, "train_loss") or _series(record, "val_log_loss"), _draw_loss),
    "accuracy": (lambda record: _series(record, "train_accuracy") or _series(record, "val_accuracy"), _draw_accuracy),
    "rate": (lambda record: _series(record, "learning_rate"), _draw_rate),
    "length": (lambda record: record.metrics["decided"], _draw_length),
    "strength": (lambda record: record.metrics["by_strength"], _draw_strength),
}
"""Each picture: whether there is anything to draw, and how."""


def _series(record: Record, key: str) -> list[tuple[float, float]]:
    """Find the (step, value) of a column of the history, where it has one."""
    found = ((row["step"], row.get(key)) for row in record.history)
    return [(float(step), float(value)) for step, value in found if value is not None and math.isfinite(value)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Take means of neighbours, so that at most `MOST_POINTS` are left."""
    size = math.ceil(len(points) / MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(_mean(x for x, _ in part), _mean(y for _, y in part)) for part in parts]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _of(metrics: Mapping[str, Any], name: str) -> dict[str, Any]:
    low, high = metrics[f"{name}_interval"]
    return {"value": metrics[name], "low": low, "high": high}


def _strength(row: Mapping[str, Any]) -> str:
    if row["from"] is None:
        return "not said"
    return f"{row['from']:g}" if row["from"] == row["to"] else f"{row['from']:g} to {row['to']:g}"


def _share(found: Mapping[str, Any]) -> str:
    return "not known" if found["value"] is None else f"{found['value']:.3f} ({_interval(found['low'], found['high'])})"


def _interval(low: float | None, high: float | None) -> str:
    return "not known" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
