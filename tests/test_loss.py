"""The Bradley-Terry loss against numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rm_lightning.loss import bootstrap_weights, centring, preference_loss, weighted_mean
from rm_lightning.statistics import wilson_interval


def loss(difference: list[float], *, weight: list[float] | None = None, **terms: Any) -> float:
    tensors = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in terms.items()}
    costs = preference_loss(torch.tensor(difference), **tensors)
    return weighted_mean(costs, torch.ones_like(costs) if weight is None else torch.tensor(weight)).item()


def test_equal_scores_cost_one_bit() -> None:
    assert loss([0.0]) == pytest.approx(math.log(2))


def test_a_lead_of_log_3_is_a_probability_of_3_quarters() -> None:
    assert loss([math.log(3)]) == pytest.approx(-math.log(0.75))
    assert loss([-math.log(3)]) == pytest.approx(-math.log(0.25))


def test_margin_is_taken_off_the_lead() -> None:
    assert loss([2.0 + math.log(3)], margin=[2.0]) == pytest.approx(-math.log(0.75))


def test_soft_label_is_the_cross_entropy() -> None:
    expected = -0.8 * math.log(0.75) - 0.2 * math.log(0.25)
    assert loss([math.log(3)], probability=[0.8]) == pytest.approx(expected)
    assert loss([math.log(3)], smoothing=0.2) == pytest.approx(expected)  # one label in five is wrong
    assert loss([math.log(3)], probability=[0.9], smoothing=0.125) == pytest.approx(
        expected
    )  # 0.9 * 7/8 + 0.1 / 8 = 0.8


def test_soft_label_is_least_where_the_model_says_the_same() -> None:
    leads = [lead / 100 for lead in range(-300, 301)]
    costs = [loss([lead], probability=[0.8]) for lead in leads]
    assert leads[costs.index(min(costs))] == pytest.approx(math.log(0.8 / 0.2), abs=0.01)


def test_weight_counts_a_pair_more_often() -> None:
    assert loss([1.0, -2.0], weight=[2.0, 1.0]) == pytest.approx(loss([1.0, 1.0, -2.0]))


def test_huge_leads_stay_finite() -> None:
    for terms in ({}, {"log_tie": torch.zeros(1)}):
        assert loss([1e4], **terms) == pytest.approx(0.0)
        assert loss([-1e4], **terms) == pytest.approx(1e4)


def test_davidson_worked_by_hand() -> None:
    # d = 2 log 2: e^(d/2) = 2, e^(-d/2) = 1/2, v = 3/2: win 2/4, loss 1/8, tie 3/8
    log_tie = torch.tensor([math.log(1.5)])
    lead = 2 * math.log(2)
    assert loss([lead], log_tie=log_tie) == pytest.approx(-math.log(1 / 2))
    assert loss([-lead], log_tie=log_tie) == pytest.approx(-math.log(1 / 8))
    assert loss([lead], probability=[0.5], log_tie=log_tie) == pytest.approx(-math.log(3 / 8))
    mixed = -0.75 * math.log(1 / 2) - 0.25 * math.log(1 / 8)
    assert loss([lead], probability=[0.75], log_tie=log_tie) == pytest.approx(mixed)


def test_davidson_without_ties_is_bradley_terry() -> None:
    never = torch.tensor([-50.0])
    for lead in (-2.0, 0.0, 3.0):
        assert loss([lead], log_tie=never) == pytest.approx(loss([lead]), abs=1e-6)


def test_davidson_finds_the_tie_parameter_and_the_lead_that_made_the_data() -> None:
    win, lost, tie = 0.5, 0.125, 0.375  # as above: d = 2 log 2, v = 3/2
    lead, log_tie = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([lead, log_tie], max_iter=100)
    weight = torch.tensor([win, lost, tie])

    def closure() -> float:
        optimizer.zero_grad()
        differences = torch.stack([lead, -lead, lead])[:, 0]
        costs = preference_loss(differences, probability=torch.tensor([1.0, 1.0, 0.5]), log_tie=log_tie)
        cost = weighted_mean(costs, weight)
        cost.backward()
        return cost.item()

    optimizer.step(closure)
    assert lead.item() == pytest.approx(2 * math.log(2), abs=1e-3)
    assert log_tie.exp().item() == pytest.approx(1.5, abs=1e-3)


def test_every_member_has_its_own_column() -> None:
    difference = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    terms = {"probability": torch.tensor([1.0, 0.7]), "margin": torch.tensor([0.2, 0.0])}
    both = preference_loss(difference, **terms)
    for member in range(2):
        assert torch.allclose(both[:, member], preference_loss(difference[:, member], **terms))


def test_centring_costs_the_square_of_the_sum() -> None:
    assert centring(torch.tensor([2.0]), torch.tensor([-1.5])).item() == pytest.approx(0.25)


def test_bootstrap_weights_are_exponential_independent_and_always_the_same() -> None:
    prompts = torch.randint(-(2**63), 2**63 - 1, (20_000,), generator=torch.Generator().manual_seed(0))
    weights = bootstrap_weights(prompts, 3)
    assert weights.shape == (20_000, 3)
    assert torch.equal(weights, bootstrap_weights(prompts, 3))
    assert weights.mean(dim=0).tolist() == pytest.approx([1.0] * 3, abs=0.03)
    assert weights.var(dim=0).tolist() == pytest.approx([1.0] * 3, abs=0.1)
    assert (weights > 3).float().mean().item() == pytest.approx(math.exp(-3), abs=0.01)
    assert torch.corrcoef(weights.T)[0, 1].item() == pytest.approx(0.0, abs=0.03)
    assert torch.equal(bootstrap_weights(prompts[[0, 0]], 3)[0], weights[0])  # of one prompt, alike
    assert bootstrap_weights(prompts, 1).unique().tolist() == [1.0]


def test_wilson_interval_of_a_published_example() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263 gives 0.2553 to 0.3662
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_interval_at_the_edges() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.2775, abs=1e-4)  # Newcombe 1998: 0 of 10
