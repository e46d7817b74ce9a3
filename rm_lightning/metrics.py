"""What a reward model is measured by: accuracy, log-loss, calibration, and how much of it length or strength explains.

`PreferenceMetrics` collects `Observations` batch by batch, on one process or many; everything else is pure functions over them.
Chosen always stands first in preference data, so whatever asks "is it as sure as it is right" goes by the answer that the model
prefers, not by the first one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from rm_lightning.errors import RewardModelError
from rm_lightning.statistics import (
    DRAWS,
    calibrated_errors,
    calibration_error,
    clustered_interval,
    design_effect,
    distinct,
    equal_mass,
)

BINS = 10
"""Points of a reliability diagram, at most."""
FEWEST = 20
"""Comparisons behind a point; fewer than twice as many make one point."""
FEW_STRENGTHS = 6
"""Different strengths up to which each is a group of its own; above, they make quartiles."""


class Observations(NamedTuple):
    """C comparisons, on the CPU, gathered over processes, each once, in the order of `row`.

    | field | shape | |
    |---|---|---|
    | difference | (C,) | score of chosen - score of rejected |
    | probability | (C,) | that chosen is better: 1 for a plain judgement, 0.5 for a tie, between for aggregated labels |
    | strength | (C,) | the margin that people gave, NaN where not known |
    | longer | (C,) | tokens of chosen - tokens of rejected |
    | prompt | (C,) int64 | equal for comparisons of the same prompt |
    | row | (C,) int64 | which comparison of the data it is, from 0 |
    """

    difference: Tensor
    probability: Tensor
    strength: Tensor
    longer: Tensor
    prompt: Tensor
    row: Tensor


class Figure(NamedTuple):
    """A share with its 95% interval, and from how many comparisons it comes; not a number where there are none."""

    value: float
    low: float
    high: float
    trials: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Give it as JSON, where what is not a number is null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: _known(number) for name, number in numbers.items()} | {"trials": self.trials}


class Calibration(NamedTuple):
    """How far the model is as often right as it is sure.

    | field | |
    |---|---|
    | error | expected calibration error |
    | by_chance | its mean for a calibrated model that is as sure of as many comparisons |
    | by_chance_at_most | what it stays below in 95 of 100 cases for such a model |
    | points | (mean predicted, how often it was right), by how sure it is |
    """

    error: float
    by_chance: float
    by_chance_at_most: float
    points: list[tuple[float, Figure]]


class PreferenceMetrics(Metric):
    """Collects comparisons over batches and processes; `compute` gives scalars, `observations` what they come from.

    Rows below 0 are the padding of a last, uneven batch and are left out; so is a row that another process had as well, as
    samplers deal some out twice to give every process equally many.
    """

    full_state_update = False
    numbers: list[Tensor]
    names: list[Tensor]

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - torchmetrics' own options
        super().__init__(**options)
        self.add_state("numbers", default=[], dist_reduce_fx="cat")  # (B, 4) float32: the first four fields
        self.add_state("names", default=[], dist_reduce_fx="cat")  # (B, 2) int64: prompt, row

    def update(
        self, difference: Tensor, probability: Tensor, strength: Tensor, longer: Tensor, prompt: Tensor, row: Tensor
    ) -> None:
        """Add a batch; see `Observations` for its fields, (B,) each."""
        fields = Observations(difference, probability, strength, longer, prompt, row)
        shapes = {name: tuple(part.shape) for name, part in fields._asdict().items()}
        if difference.ndim != 1 or len(set(shapes.values())) > 1:
            raise RewardModelError(f"a batch of comparisons has one number of each field a comparison, found {shapes}")
        self.numbers.append(torch.stack([part.detach().float() for part in fields[:4]], dim=1))
        self.names.append(torch.stack([part.detach().long() for part in fields[4:]], dim=1))

    def sync(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - torchmetrics' own arguments
        """Gather over processes; one that saw no comparison takes part with tables of no rows."""
        if isinstance(self.numbers, list) and not self.numbers:
            self.numbers.append(torch.empty(0, 4, dtype=torch.float32, device=self.device))
            self.names.append(torch.empty(0, 2, dtype=torch.int64, device=self.device))
        super().sync(*args, **options)

    def observations(self) -> Observations:
        """Give all comparisons of all processes; each process has to ask, as they exchange them.

        Raises:
            RewardModelError: a score is not finite, or a probability is none.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._gathered()

    def compute(self) -> dict[str, Tensor]:
        """Compute the scalars: see `scalars`; float32, on the metric's device, as loggers want them."""
        found = scalars(self._gathered())  # torchmetrics has gathered the states around this call
        return {name: torch.tensor(value, dtype=torch.float32, device=self.device) for name, value in found.items()}

    def _gathered(self) -> Observations:
        numbers, names = dim_zero_cat(self.numbers).cpu().double(), dim_zero_cat(self.names).cpu()
        real = names[:, 1] >= 0
        numbers, names = numbers[real], names[real]
        order = names[:, 1].argsort(stable=True)
        numbers, names = numbers[order], names[order]
        once = torch.ones(len(names), dtype=torch.bool)
        once[1:] = names[1:, 1] != names[:-1, 1]
        found = Observations(*numbers[once].unbind(1), *names[once].unbind(1))
        if broken := int((~found.difference.isfinite()).sum()):
            raise RewardModelError(
                f"the scores of {broken} of {len(names)} comparisons are not finite: "
                "lower the learning rate, or use another precision"
            )
        if not ((found.probability >= 0) & (found.probability <= 1)).all():
            raise RewardModelError("a comparison's probability lies within 0 and 1, found another one: mend the pairs")
        return found


def scalars(observations: Observations) -> dict[str, float]:
    """Compute what is logged: numbers only, not a number where nothing is known.

    Returns:
        accuracy with its interval (accuracy_low, accuracy_high); log_loss in nats; margin, the mean difference; calibration_error
        beside that of a calibrated model (calibration_error_by_chance); length_floor, the accuracy of always the longer answer;
        shorter, that of always the shorter.
    """
    right, floor, calibrated = accuracy(observations), length_floor(observations), calibration(decided(observations))
    return {
        "accuracy": right.value,
        "accuracy_low": right.low,
        "accuracy_high": right.high,
        "log_loss": log_loss(observations),
        "margin": margin(observations),
        "calibration_error": calibrated.error,
        "calibration_error_by_chance": calibrated.by_chance,
        "length_floor": floor.value,
        "shorter": 1 - floor.value,
    }


def summarise(observations: Observations) -> dict[str, Any]:
    """Compute everything that the report shows, as JSON; null where nothing is known."""
    chosen, found = decided(observations), scalars(observations)
    ties = len(observations.row) - len(chosen.row)
    probability, calibrated = observations.probability, calibration(chosen)
    low, high = found.pop("accuracy_low"), found.pop("accuracy_high")
    return {
        "comparisons": len(observations.row),
        "decided": len(chosen.row),
        "ties": ties,
        "soft": int(((probability > 0) & (probability < 1)).sum()) - ties,
        "prompts": len(distinct(observations.prompt).values),
        **{name: _known(value) for name, value in found.items()},
        "accuracy_interval": [_known(low), _known(high)],
        "design_effect": _known(design_effect(right(chosen), chosen.prompt)) if len(chosen.row) else None,
        "length_floor_interval": [_known(bound) for bound in length_floor(observations)[1:3]],
        "calibration": {
            "error": _known(calibrated.error),
            "by_chance": _known(calibrated.by_chance),
            "by_chance_at_most": _known(calibrated.by_chance_at_most),
            "points": [{"predicted": predicted} | figure.to_dict() for predicted, figure in calibrated.points],
        },
        "by_length": by_length(observations),
        "by_strength": by_strength(observations),
    }


def decided(observations: Observations) -> Observations:
    """Leave out the ties, for which no answer is the better one."""
    return _where(observations, observations.probability != 0.5)


def right(observations: Observations) -> Tensor:
    """Say of each comparison whether the likelier answer scores higher: 1, 0, or 0.5 where both score alike; (C,) float64."""
    return 0.5 + 0.5 * observations.difference.double().sign() * (observations.probability.double() - 0.5).sign()


def accuracy(observations: Observations) -> Figure:
    """Give the share of decided comparisons whose likelier answer scores higher; equal scores count half.

    The interval is Wilson's with the effective number of comparisons, as those of one prompt go alike; see `clustered_interval`.
    """
    chosen = decided(observations)
    return _share(right(chosen), chosen.prompt)


def length_floor(observations: Observations) -> Figure:
    """Give the accuracy of always preferring the answer with more tokens; equally many count half."""
    return accuracy(observations._replace(difference=observations.longer))


def log_loss(observations: Observations) -> float:
    """Give the mean cross-entropy between labels and sigmoid(difference), in nats (Bradley and Terry 1952); a coin has log 2.

    Ties are left out: sigmoid(difference) is the probability that the better one wins where somebody decides.
    """
    chosen = decided(observations)
    difference, probability = chosen.difference.double(), chosen.probability.double()
    # -p log sigmoid(d) - (1 - p) log sigmoid(-d)
    loss = -probability * F.logsigmoid(difference) - (1 - probability) * F.logsigmoid(-difference)
    return float(loss.mean())


def margin(observations: Observations) -> float:
    """Give the mean difference between the scores of chosen and rejected."""
    return float(observations.difference.double().mean())


def confidence(observations: Observations) -> tuple[Tensor, Tensor]:
    """Say how sure the model is of the answer that it prefers, and how likely people prefer that one; (C,), (C,).

    The first is sigmoid(|d|), 0.5 or more; the second is p where d > 0, 1 - p where d < 0, and 0.5 where it prefers none.
    """
    difference, probability = observations.difference.double(), observations.probability.double()
    return difference.abs().sigmoid(), 0.5 + difference.sign() * (probability - 0.5)


def calibration(observations: Observations, *, bins: int = BINS, seed: int = 0) -> Calibration:
    """Compare how sure the model is with how often it is right, in bins of equally many comparisons.

    With few comparisons nobody's error is 0: labels are drawn anew from the model's own confidences, one judgement each, and the
    error measured again (the consistency resampling of Broecker and Smith 2007). Aggregated labels scatter less than that, and
    comparisons of the same prompt more.

    Source: Naeini, Cooper and Hauskrecht 2015; in bins of equal mass, Nguyen and O'Connor 2015 (arXiv 1508.05154).

    Args:
        observations: ties count as 0.5.
        bins: at most; each holds at least 20 comparisons, or all of them.
        seed: of the simulation.
    """
    predicted, observed = confidence(observations)
    count = len(predicted)
    if not count:
        return Calibration(math.nan, math.nan, math.nan, [])
    bins = max(1, min(bins, count // FEWEST))
    place = equal_mass(predicted, bins)
    draws = max(50, min(DRAWS, 20_000_000 // count))  # of a million comparisons all errors are alike
    drawn = calibrated_errors(predicted, place, draws=draws, seed=seed)
    parts = [place == number for number in distinct(place).values]
    return Calibration(
        calibration_error(predicted, observed, place),
        float(drawn.mean()),
        float(drawn.quantile(0.95)),
        [(float(predicted[part].mean()), _share(observed[part], observations.prompt[part])) for part in parts],
    )


def by_length(observations: Observations) -> dict[str, Any]:
    """Give the accuracy where the better answer is longer, shorter, or about as long as the other.

    About as long are the third of the comparisons whose lengths differ least: by `within` tokens at most.
    """
    chosen = decided(observations)
    longer = chosen.longer.double() * (chosen.probability.double() - 0.5).sign()  # tokens of the better - of the other
    size = longer.abs()
    within = float(size.sort().values[(len(size) - 1) // 3]) if len(size) else math.nan
    parts = {
        "longer": (longer > 0) & (size > within),
        "shorter": (longer < 0) & (size > within),
        "about_equal": size <= within,
    }
    return {"within": _known(within)} | {name: accuracy(_where(chosen, part)).to_dict() for name, part in parts.items()}


def by_strength(observations: Observations) -> list[dict[str, Any]]:
    """Give the accuracy by how strongly people preferred: by value, or by quartile where there are more than six values.

    Returns:
        Figures with the strengths that they are `from` and `to`, both null for comparisons without one; [] where nobody gave any.
    """
    chosen = decided(observations)
    known = ~chosen.strength.isnan()
    given = _where(chosen, known)
    values, place, _ = distinct(given.strength)
    if not len(values):
        return []
    if len(values) > FEW_STRENGTHS:
        place = equal_mass(given.strength, 4)
    rows: list[dict[str, Any]] = []
    for number in distinct(place).values:
        part = _where(given, place == number)
        bounds = {"from": float(part.strength.min()), "to": float(part.strength.max())}
        rows.append(bounds | accuracy(part).to_dict())
    if not known.all():
        rows.append({"from": None, "to": None} | accuracy(_where(chosen, ~known)).to_dict())
    return rows


def _share(values: Tensor, prompt: Tensor) -> Figure:
    if not len(values):
        return Figure(math.nan, math.nan, math.nan, 0)
    return Figure(float(values.mean()), *clustered_interval(values, prompt), len(values))


def _where(observations: Observations, which: Tensor) -> Observations:
    return Observations(*(part[which] for part in observations))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
