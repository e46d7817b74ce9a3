"""The Bradley-Terry loss against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rm_lightning.loss import bradley_terry_loss
from rm_lightning.statistics import wilson_interval


def loss(chosen: list[float], rejected: list[float], **terms: list[float]) -> float:
    tensors = {name: torch.tensor(value) for name, value in terms.items()}
    return bradley_terry_loss(torch.tensor(chosen), torch.tensor(rejected), **tensors).item()


def test_equal_scores_cost_one_bit() -> None:
    assert loss([3.0], [3.0]) == pytest.approx(math.log(2))


def test_a_lead_of_log_3_is_a_probability_of_3_quarters() -> None:
    assert loss([math.log(3)], [0.0]) == pytest.approx(-math.log(0.75))
    assert loss([0.0], [math.log(3)]) == pytest.approx(-math.log(0.25))


def test_margin_is_taken_off_the_lead() -> None:
    assert loss([2.0 + math.log(3)], [0.0], margin=[2.0]) == pytest.approx(-math.log(0.75))


def test_soft_label_is_the_cross_entropy() -> None:
    expected = -0.8 * math.log(0.75) - 0.2 * math.log(0.25)
    assert loss([math.log(3)], [0.0], probability=[0.8]) == pytest.approx(expected)


def test_soft_label_is_least_where_the_model_says_the_same() -> None:
    leads = [lead / 100 for lead in range(-300, 301)]
    costs = [loss([lead], [0.0], probability=[0.8]) for lead in leads]
    assert leads[costs.index(min(costs))] == pytest.approx(math.log(0.8 / 0.2), abs=0.01)


def test_weight_counts_a_pair_more_often() -> None:
    twice = loss([1.0, 1.0, -2.0], [0.0, 0.0, 0.0])
    assert loss([1.0, -2.0], [0.0, 0.0], weight=[2.0, 1.0]) == pytest.approx(twice)


def test_huge_leads_stay_finite() -> None:
    assert loss([1e4], [-1e4]) == pytest.approx(0.0)
    assert loss([-1e4], [1e4]) == pytest.approx(2e4)


def test_wilson_interval_of_a_published_example() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263 gives 0.2553 to 0.3662
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_interval_at_the_edges() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.2775, abs=1e-4)  # Newcombe 1998: 0 of 10
