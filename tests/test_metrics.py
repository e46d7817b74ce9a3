"""The reward model's figures: by hand, by other libraries, by simulation, and over processes that see unequal shares."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import statsmodels.api as sm
import torch
import torch.multiprocessing
from scipy.special import expit
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from rm_lightning.errors import RewardModelError
from rm_lightning.metrics import (
    Observations,
    PreferenceMetrics,
    accuracy,
    calibration,
    confidence,
    length_floor,
    log_loss,
    margin,
    scalars,
    summarise,
)
from rm_lightning.statistics import clustered_interval, design_effect, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence


def observed(difference: Sequence[float] | torch.Tensor, **fields: Any) -> Observations:
    """Comparisons with these differences; plain judgements of prompts of their own, where nothing else is said."""
    count = len(difference)
    unknown = {
        "probability": [1.0] * count,
        "strength": [math.nan] * count,
        "longer": [0.0] * count,
        "prompt": range(count),
        "row": range(count),
    }
    given = {name: value if torch.is_tensor(value) else list(value) for name, value in (unknown | fields).items()}
    made = {name: torch.as_tensor(value) for name, value in given.items()}
    return Observations(torch.as_tensor(difference), **made)


def made_up(count: int, seed: int = 0, *, scale: float = 1.0) -> Observations:
    """Comparisons of a model that is calibrated where `scale` is 1: the better answer is better with probability sigmoid(d)."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, count)
    chosen_first = rng.random(count) < expit(true)
    difference = np.where(chosen_first, true, -true) * scale
    return observed(
        torch.tensor(difference).float().double(),
        strength=rng.integers(0, 9, count).astype(float),
        longer=rng.integers(-30, 31, count).astype(float),
        prompt=rng.integers(0, count // 3, count),
    )


HAND = observed(
    # right; wrong; equal scores; a tie; the rejected one is likelier, rightly scored; right
    [2.0, -1.0, 0.0, 3.0, -0.5, 0.25],
    probability=[1.0, 1.0, 1.0, 0.5, 0.25, 0.75],
    strength=[1.0, 2.0, 2.0, math.nan, 1.0, math.nan],
    longer=[10.0, -4.0, 0.0, 9.0, 5.0, 5.0],
    prompt=[0, 0, 1, 1, 2, 3],
)


def test_figures_worked_by_hand() -> None:
    found = summarise(HAND)
    assert (found["comparisons"], found["decided"], found["ties"], found["soft"], found["prompts"]) == (6, 5, 1, 2, 4)
    assert found["accuracy"] == pytest.approx((1 + 0 + 0.5 + 1 + 1) / 5)
    # longer wins the first, loses the second, is nowhere in the third, loses the fifth (the shorter is likelier), wins the last
    assert found["length_floor"] == pytest.approx((1 + 0 + 0.5 + 0 + 1) / 5)
    assert found["shorter"] == pytest.approx(1 - found["length_floor"])
    assert found["margin"] == pytest.approx(3.75 / 6)
    losses = [
        math.log1p(math.exp(-2)),
        math.log1p(math.exp(1)),
        math.log(2),
        0.25 * math.log1p(math.exp(0.5)) + 0.75 * math.log1p(math.exp(-0.5)),
        0.75 * math.log1p(math.exp(-0.25)) + 0.25 * math.log1p(math.exp(0.25)),
    ]
    assert found["log_loss"] == pytest.approx(
        sum(losses) / 5
    )  # the tie says nothing of who wins where somebody decides
    sure, agreed = confidence(HAND)
    assert sure.tolist() == pytest.approx([expit(abs(d)) for d in (2, 1, 0, 3, 0.5, 0.25)])
    assert agreed.tolist() == [1.0, 0.0, 0.5, 0.5, 0.75, 0.75]
    assert [point["trials"] for point in found["calibration"]["points"]] == [5]  # too few for more than one point
    mean = sum(expit(d) for d in (2, 1, 0, 0.5, 0.25)) / 5
    assert found["calibration_error"] == pytest.approx(abs(mean - 3 / 5))
    # the better answer is longer by 10, -4, 0, -5 and 5 tokens; a third of five differ by 4 at most
    assert found["by_length"]["within"] == 4.0
    assert [found["by_length"][name]["value"] for name in ("longer", "shorter", "about_equal")] == [1.0, 1.0, 0.25]
    assert [found["by_length"][name]["trials"] for name in ("longer", "shorter", "about_equal")] == [2, 1, 2]
    rows = [(row["from"], row["to"], row["value"], row["trials"]) for row in found["by_strength"]]
    assert rows == [(1.0, 1.0, 1.0, 2), (2.0, 2.0, 0.25, 2), (None, None, 1.0, 1)]


def test_as_scikit_learn_has_it() -> None:
    rows = made_up(500)
    soft = rows._replace(probability=torch.rand(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    chance, labels = expit(soft.difference.numpy()), soft.probability.numpy()
    assert accuracy(soft).value == pytest.approx(sk.accuracy_score(labels > 0.5, chance > 0.5))
    twice = sk.log_loss(  # each comparison as one label of each kind, weighed by its probability
        np.repeat([1, 0], 500), np.tile(chance, 2), sample_weight=np.concatenate([labels, 1 - labels])
    )
    assert log_loss(soft) == pytest.approx(twice)
    assert margin(soft) == pytest.approx(float(soft.difference.mean()))


def test_strengths_make_groups_or_quartiles() -> None:
    rows = made_up(400)  # nine strengths: quartiles, which part no two equal ones
    groups = summarise(rows)["by_strength"]
    assert len(groups) == 4
    strength, right = rows.strength.numpy(), rows.difference.numpy() > 0
    assert sum(group["trials"] for group in groups) == 400
    for group in groups:
        within = (strength >= group["from"]) & (strength <= group["to"])
        assert within.sum() == group["trials"]
        assert group["value"] == pytest.approx(right[within].mean())
        assert 50 <= group["trials"] <= 150
    few = rows._replace(strength=rows.strength.clamp(max=5))
    assert [group["from"] for group in summarise(few)["by_strength"]] == [0, 1, 2, 3, 4, 5]
    assert summarise(rows._replace(strength=torch.full((400,), math.nan)))["by_strength"] == []


class TestInterval:
    def test_of_prompts_with_one_comparison_is_wilsons(self) -> None:
        rows = made_up(83)
        alone = rows._replace(prompt=torch.arange(83) * 7 + 10**17)
        figure = accuracy(alone)
        low, high = proportion_confint(figure.value * 83, 83, method="wilson")
        assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-6)
        assert design_effect(torch.rand(83), alone.prompt) == 1.0

    def test_design_effect_is_that_of_cluster_robust_regression(self) -> None:
        rng = np.random.default_rng(0)
        groups = rng.integers(0, 25, 200)
        values = (rng.random(200) < rng.beta(1, 1, 25)[groups]).astype(float)
        fit = sm.OLS(values, np.ones(200))
        robust = fit.fit(cov_type="cluster", cov_kwds={"groups": groups}).cov_params()[0, 0]
        plain = fit.fit().cov_params()[0, 0]
        assert robust / plain > 1.5
        assert design_effect(torch.tensor(values), torch.tensor(groups)) == pytest.approx(robust / plain)

    def test_holds_what_it_promises_where_prompts_go_alike(self) -> None:
        """Accuracy differs from prompt to prompt as Beta(2, 1): its mean is 2/3."""
        rng = np.random.default_rng(0)
        groups = torch.arange(40).repeat_interleave(8)
        held = {"clustered": 0, "plain": 0}
        for _ in range(400):
            right = torch.tensor(rng.random(320) < np.repeat(rng.beta(2, 1, 40), 8)).double()
            intervals = [clustered_interval(right, groups), wilson_interval(float(right.sum()), 320)]
            for name, (low, high) in zip(held, intervals, strict=True):
                held[name] += low <= 2 / 3 <= high
        assert held["plain"] / 400 < 0.85
        assert 0.92 <= held["clustered"] / 400 <= 0.98

    def test_comparisons_that_are_all_right_count_as_many_as_there_are_prompts(self) -> None:
        """They do not show how far those of a prompt go together, so nothing is taken for granted."""
        figure = accuracy(observed([1.0] * 30, prompt=[number // 3 for number in range(30)]))
        assert (figure.value, figure.trials) == (1.0, 30)
        assert (figure.low, figure.high) == pytest.approx(wilson_interval(10, 10))
        assert accuracy(observed([1.0, -1.0], prompt=[5, 5])).low == pytest.approx(wilson_interval(0.5, 1)[0])


class TestCalibration:
    def test_points_are_scikit_learns(self) -> None:
        rows = made_up(1000)
        found = calibration(rows)
        sure, agreed = confidence(rows)
        observed_at, predicted_at = calibration_curve(agreed.numpy(), sure.numpy(), n_bins=10, strategy="quantile")
        assert [predicted for predicted, _ in found.points] == pytest.approx(predicted_at.tolist())
        assert [figure.value for _, figure in found.points] == pytest.approx(observed_at.tolist())
        assert found.error == pytest.approx(float(np.abs(observed_at - predicted_at).mean()))  # bins of 100 each

    @pytest.mark.parametrize("count", [100, 2000])
    def test_a_calibrated_model_errs_by_chance_alone(self, count: int) -> None:
        worlds = [calibration(made_up(count, seed)) for seed in range(60)]
        errors = np.array([found.error for found in worlds])
        assert errors.mean() == pytest.approx(np.mean([found.by_chance for found in worlds]), rel=0.12)
        assert np.mean([found.error <= found.by_chance_at_most for found in worlds]) >= 0.88
        # by the normal approximation: E|sum of a bin| = sqrt(2/pi sum p (1 - p))
        sure = confidence(made_up(count))[0].sort().values.view(len(worlds[0].points), -1)
        assert worlds[0].by_chance == pytest.approx(
            float((2 / math.pi * (sure * (1 - sure)).sum(1)).sqrt().sum()) / count, rel=0.1
        )

    def test_a_model_too_sure_of_itself_errs_more(self) -> None:
        calm, bold = calibration(made_up(1000, 1)), calibration(made_up(1000, 1, scale=3))
        assert calm.error <= calm.by_chance_at_most
        assert bold.error > 2 * bold.by_chance_at_most
        assert bold.points[-1][0] > bold.points[-1][1].high

    def test_it_goes_by_the_preferred_answer_not_by_the_first(self) -> None:
        """Of a calibrated model, sigmoid(d) against "chosen is better", which is always so, would look broken."""
        rows = made_up(2000)
        first = rows.difference.sigmoid()
        assert float((1 - first).abs().mean()) > 0.3
        assert calibration(rows).error < 0.05

    def test_equal_scores_are_one_point(self) -> None:
        found = calibration(observed([0.0] * 70 + [1.0] * 30))
        assert [(round(at, 3), figure.value, figure.trials) for at, figure in found.points] == [
            (0.5, 0.5, 70),
            (0.731, 1.0, 30),
        ]


def test_the_order_of_comparisons_does_not_count() -> None:
    rows = made_up(300)
    rows = rows._replace(difference=rows.difference.round(decimals=1))  # many are equal
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    one, other = (scalars(Observations(*(part[which] for part in rows))) for which in (torch.arange(300), order))
    one.pop("calibration_error_by_chance"), other.pop("calibration_error_by_chance")  # labels are drawn in order
    assert one == pytest.approx(other)


def test_what_nobody_knows_is_null() -> None:
    found = summarise(observed([1.0, 2.0], probability=[0.5, 0.5]))
    assert found["accuracy"] is found["length_floor"] is found["design_effect"] is None
    assert found["accuracy_interval"] == [None, None]
    assert found["margin"] == 1.5
    nothing = summarise(observed([]))
    assert nothing["comparisons"] == 0
    json.dumps([found, nothing], allow_nan=False)


def batches(rows: Observations, size: int) -> list[Observations]:
    """Cut comparisons into batches, the last one filled up with padding."""
    count = len(rows.row)
    padding = (-count) % size
    filler = [torch.full((padding,), 0.3, dtype=part.dtype) for part in rows[:-1]]
    padded = [torch.cat([part, more]) for part, more in zip(rows[:-1], filler, strict=True)]
    row = torch.cat([rows.row, torch.full((padding,), -1)])
    return [Observations(*parts) for parts in zip(*(part.split(size) for part in [*padded, row]), strict=True)]


def test_batches_and_padding_change_nothing() -> None:
    rows = made_up(101)
    whole = summarise(rows)
    metric = PreferenceMetrics()
    for batch in reversed(batches(rows, 16)):
        metric.update(*batch)
    assert summarise(metric.observations()) == whole
    computed = metric.compute()
    assert {name: value.item() for name, value in computed.items()} == pytest.approx(scalars(rows))
    assert all(value.ndim == 0 for value in computed.values())
    metric.reset()
    metric.update(*rows)
    assert summarise(metric.observations()) == whole


def test_what_cannot_be_measured_is_one_line() -> None:
    metric = PreferenceMetrics()
    with pytest.raises(RewardModelError, match=r"one number of each field.*'longer': \(2,\)"):
        metric.update(*observed([1.0, 2.0, 3.0])._replace(longer=torch.zeros(2)))
    metric = PreferenceMetrics()
    metric.update(*observed([1.0, math.nan, math.inf]))
    with pytest.raises(RewardModelError, match="the scores of 2 of 3 comparisons are not finite"):
        metric.compute()
    metric = PreferenceMetrics()
    metric.update(*observed([1.0], probability=[1.5]))
    with pytest.raises(RewardModelError, match="within 0 and 1"):
        metric.observations()


def share_of(process: int, folder: str) -> None:
    """Measure one process' share of 101 comparisons: 32 of them, or the other 69 and one that both have."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/met", world_size=2, rank=process)
    rows = made_up(101)
    mine = torch.arange(32) if process else torch.cat([torch.arange(32, 101), torch.tensor([7])])
    metric, lopsided = PreferenceMetrics(), PreferenceMetrics()
    for batch in batches(Observations(*(part[mine] for part in rows)), 16):
        metric.update(*batch)
    if process:  # the other one sees nothing at all
        lopsided.update(*rows)
    computed = {name: value.item() for name, value in metric.compute().items()}
    found = [summarise(one.observations()) for one in (metric, lopsided, metric)]
    metric.update(*(part[:0] for part in rows))  # it goes on with its own share
    found.append(summarise(metric.observations()))
    Path(folder, f"{process}.json").write_text(json.dumps([computed, *found]), encoding="utf-8")
    torch.distributed.destroy_process_group()


def test_two_processes_with_unequal_shares_find_what_one_finds(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(share_of, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    rows = made_up(101)
    alone = PreferenceMetrics()
    alone.update(*rows)
    expected = [{name: value.item() for name, value in alone.compute().items()}, *[summarise(rows)] * 4]
    for process in range(2):
        assert json.loads((tmp_path / f"{process}.json").read_text()) == expected


def test_the_length_floor_is_the_longer_answers() -> None:
    """Where the shorter wins, the floor is below a half: it is the accuracy of a rule, not of the better of two rules."""
    rows = observed([1.0] * 4, longer=[-3.0, -2.0, -1.0, 5.0])
    assert length_floor(rows).value == 0.25
    assert scalars(rows)["shorter"] == 0.75
