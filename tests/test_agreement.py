"""Agreement against published libraries, its ceiling against numerical integration, evidence against its promise."""

from __future__ import annotations

import math
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater
from statsmodels.stats.proportion import proportion_confint

from lsplugin.agreement import (
    ceiling,
    cohen_kappa,
    estimate,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    share,
)
from lsplugin.evidence import above, below, outside
from lsplugin.flags import ALPHA, Counts, Norms, least, most, questions, threshold


def said(seed: int, *, missing: float = 0.0, raters: int = 4, items: int = 60) -> Any:
    """(raters, items): a category from 0 to 2, not a number where somebody did not judge."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, items)
    votes = np.where(rng.random((raters, items)) < 0.6, truth, rng.integers(0, 3, (raters, items))).astype(float)
    votes[rng.random(votes.shape) < missing] = np.nan
    return votes


def counts_of(votes: Any) -> Any:
    return np.stack([(votes == category).sum(axis=0) for category in range(3)], axis=1).astype(float)


@pytest.mark.parametrize("seed", range(10))
def test_kappas_and_alpha_agree_with_published_libraries(seed: int) -> None:
    votes = said(seed)
    counts = counts_of(votes)
    ones = np.ones(len(counts))
    assert fleiss_kappa(counts, ones) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-9)
    table = np.zeros((3, 3))
    np.add.at(table, (votes[0].astype(int), votes[1].astype(int)), 1)
    assert cohen_kappa(table) == pytest.approx(cohen_kappa_score(votes[0], votes[1]), abs=1e-9)
    some = said(seed, missing=0.4, items=200)
    theirs = krippendorff.alpha(reliability_data=some, level_of_measurement="nominal")
    assert estimate(krippendorff_alpha, counts_of(some)).value == pytest.approx(theirs, abs=1e-9)


def test_raw_agreement_counts_twos_of_annotators() -> None:
    counts = np.array([[2.0, 0, 0], [1, 1, 0], [3, 0, 1], [1, 0, 0]])  # 1 of 1, 0 of 1, 3 of 6 agree; one is alone
    assert estimate(raw_agreement, counts).value == pytest.approx(4 / 8)
    assert estimate(raw_agreement, counts).trials == 3
    nothing = estimate(raw_agreement, np.zeros((3, 3)))
    assert math.isnan(nothing.value)
    assert nothing.to_dict() == {"value": None, "low": None, "high": None, "trials": 0}


def test_intervals_hold_what_they_promise() -> None:
    """Of 200 projects drawn from a known truth, about 95% of the intervals hold it."""
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first = rng.binomial(3, rng.beta(1, 1, 150)).astype(float)
        found = estimate(raw_agreement, np.stack([first, 0 * first, 3 - first], axis=1), seed=seed)
        inside += found.low <= 2 / 3 <= found.high  # E[p^2 + (1 - p)^2] of a uniform p
    assert 180 <= inside <= 199


@given(st.integers(0, 200), st.integers(1, 200))
def test_shares_have_wilsons_interval(successes: int, more: int) -> None:
    trials = successes + more
    low, high = proportion_confint(successes, trials, method="wilson")
    assert share(successes, trials)[:3] == pytest.approx((successes / trials, low, high), abs=1e-9)


@pytest.mark.parametrize("a", [0.05, 0.3, 1, 4, 30])
def test_the_ceiling_is_what_integration_gives(a: float) -> None:
    beta = stats.beta(a, a)
    agreement = integrate.quad(lambda p: (p**2 + (1 - p) ** 2) * beta.pdf(p), 0, 1, limit=500)[0]
    best = 2 * integrate.quad(lambda p: (1 - p) * beta.pdf(p), 0, 0.5, limit=500)[0]
    assert ceiling(agreement) == pytest.approx(best, abs=2e-4)
    assert agreement <= ceiling(agreement) <= 0.5 + math.sqrt((agreement - 0.5) / 2)


def test_the_ends_of_the_ceiling() -> None:
    assert (ceiling(1.0), ceiling(0.5), ceiling(0.3)) == (1.0, 0.5, 0.5)


class TestEvidence:
    def test_it_is_the_integral_that_it_says(self) -> None:
        for k, n, p in ((0, 0, 0.3), (7, 10, 0.5), (1, 12, 0.4), (30, 30, 0.9)):
            exact = integrate.quad(lambda q: (q / p) ** k * ((1 - q) / (1 - p)) ** (n - k), p, 1)[0] / (1 - p)  # noqa: B023
            assert math.exp(above(k, n, p)) == pytest.approx(exact, rel=1e-6)
            assert below(n - k, n, 1 - p) == pytest.approx(float(above(k, n, p)))

    @pytest.mark.parametrize("share_", [0.1, 0.5, 0.75])
    def test_the_innocent_are_rarely_ever_accused(self, share_: float) -> None:
        """At the very edge of innocence, looked at after every one of 300 labels, 1,500 people."""
        rng = np.random.default_rng(1)
        successes = np.cumsum(rng.random((1500, 300)) < share_, axis=1)
        trials = np.arange(1, 301)
        accused = (above(successes, trials, share_) >= np.log(1 / 0.05)).any(axis=1).mean()
        assert 0.005 < accused < 0.06
        accused = (outside(successes, trials, share_, share_) >= np.log(1 / 0.05)).any(axis=1).mean()
        assert 0.005 < accused < 0.06

    def test_the_guilty_are_accused_in_the_end(self) -> None:
        assert above(90, 100, 0.6) > threshold()
        assert outside(10, 100, 0.4, 0.6) > threshold()
        assert below(50, 100, 0.7) > 0
        assert above(40, 100, 0.6) < 0

    def test_huge_counts_overflow_nothing(self) -> None:
        assert np.isfinite(above(600_000, 1_000_000, 0.5))
        assert above(400_000, 1_000_000, 0.5) < 0


def test_each_question_finds_its_fault() -> None:
    honest = Counts(left=(103, 200), longer=(130, 200), fast=(4, 200), agreed=(150, 200), gold=(19, 20))
    norms = Norms(left=0.5, longer=0.62, agreement=0.75, gold=0.9)
    assert threshold() == pytest.approx(math.log(5 / ALPHA))
    assert not any(question.flagged for question in questions(honest, norms))
    faults = {
        "one-sided": {"left": (160, 200)},
        "longest": {"longer": (195, 200)},
        "too fast": {"fast": (80, 200)},
        "random": {"agreed": (95, 200)},
        "misses gold": {"gold": (10, 40)},
    }
    for flag, change in faults.items():
        counts = Counts(**{**vars(honest), **change})
        assert [question.flag for question in questions(counts, norms) if question.flagged] == [flag]
    nothing = Counts(*[(0, 0)] * 5)
    assert not any(question.flagged for question in questions(nothing, norms))


def test_what_is_innocent_lies_between_the_others_and_the_fault() -> None:
    assert least(0.8) == pytest.approx(0.68)  # three fifths of the way from 0.5
    assert most(0.6) == pytest.approx(0.7)  # a quarter of the way to 1
    half = Counts(left=(300, 600), longer=(460, 600), fast=(0, 600), agreed=(330, 430), gold=(28, 30))
    norms = Norms(longer=0.55, agreement=0.8, gold=0.98)
    assert [question.flag for question in questions(half, norms) if question.flagged] == ["longest"]
