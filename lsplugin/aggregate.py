"""Several votes on the same two answers -> the probability that the first is better.

Three methods, from the plainest to the one that assumes most:

    majority        the share of votes for it, ties counting half
    dawid-skene     every annotator has an error rate for each side (Dawid and Skene 1979), as crowd-kit fits it
    bradley-terry   every answer has a score, every annotator a sharpness and a lean to one side; see `bradley_terry`
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from lsplugin.votes import Votes

    Floats = npt.NDArray[np.float64]

POINTS = 15
"""Points of the Gauss-Hermite rule that integrates over an item's unknown difference of scores."""

ROUNDS = 30
"""Rounds of expectation and maximisation; five suffice on clean data."""


def majority(votes: Votes) -> Floats:
    """Give the share of votes for the first answer of each item, ties counting half; (items,)."""
    item = np.array(votes.item, dtype=int)
    total = np.bincount(item, minlength=votes.items)
    ahead = np.bincount(item, weights=np.array(votes.choice, dtype=float), minlength=votes.items)
    return np.asarray(0.5 + 0.5 * ahead / np.maximum(total, 1))


def dawid_skene(votes: Votes) -> Floats:
    """Give the posterior probability that the first answer of each item is better; a tie's mass is halved; (items,)."""
    if not len(votes):
        return np.zeros(votes.items)
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    table = pd.DataFrame({"task": votes.item, "worker": votes.annotator, "label": votes.choice})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # crowd-kit uses what pandas will take away one day
        found = DawidSkene(n_iter=100).fit_predict_proba(table).reindex(range(votes.items))
    found = found.reindex(columns=[-1, 0, 1]).fillna(0.0).to_numpy(dtype=float)
    return np.asarray(found[:, 2] + 0.5 * found[:, 1])


def bradley_terry(votes: Votes) -> Floats:
    """Give the probability that a typical annotator prefers the first answer of each item; (items,).

    Annotator k prefers answer i to j with probability

        P(i > j by k) = sigmoid(sharpness_k (score_i - score_j) + lean_k side),    side = 1 if i stands left, else -1

    which is Bradley and Terry's model (1952) with the reliability of Chen et al. (2013, "Pairwise ranking aggregation in a
    crowdsourced setting", eq. 6) and an order effect as in Davidson and Beaver (1977). Scores have the prior N(0, 1); annotators
    are fitted with the scores integrated out, then scores are the mode of their posterior. Ties are half a vote for each.
    """
    if not len(votes):
        return np.zeros(votes.items)
    columns = votes.columns()
    sharpness, lean = annotators(votes)
    who = columns["annotator"].astype(int)
    counts = np.bincount(who, minlength=len(sharpness))
    typical = float(np.average(sharpness, weights=counts))
    first, second = (np.array(nodes, dtype=int) for nodes in votes.nodes)
    item = columns["item"].astype(int)
    wins = 0.5 + 0.5 * columns["choice"]
    scores = fit_scores(first[item], second[item], wins, sharpness[who], lean[who] * columns["side"])
    return _sigmoid(typical * (scores[first] - scores[second]))


def annotators(votes: Votes) -> tuple[Floats, Floats]:
    """Fit each annotator's sharpness and lean to the left, in log odds; (annotators,) each.

    Expectation and maximisation: given annotators, the posterior of each item's difference of scores lies on the points of a
    Gauss-Hermite rule; given that, each annotator's two numbers are one Newton step of a logistic fit away. Their priors are
    N(1, 1) and N(0, 1), so somebody with few votes is taken for ordinary.
    """
    columns = votes.columns()
    item, who = columns["item"].astype(int), columns["annotator"].astype(int)
    wins, side = 0.5 + 0.5 * columns["choice"], columns["side"]
    nodes, weights = np.polynomial.hermite_e.hermegauss(POINTS)
    differences = np.sqrt(2.0) * nodes  # the difference of two scores, each N(0, 1)
    prior = np.log(weights / weights.sum())
    count = len(votes.annotators)
    sharpness, lean = np.ones(count), np.zeros(count)
    for _ in range(ROUNDS):
        odds = sharpness[who, None] * differences + (lean[who] * side)[:, None]  # (votes, points)
        likelihood = wins[:, None] * _log_sigmoid(odds) + (1 - wins[:, None]) * _log_sigmoid(-odds)
        posterior = np.stack(
            [np.bincount(item, weights=likelihood[:, point], minlength=votes.items) for point in range(POINTS)], axis=1
        )
        posterior = np.exp(posterior + prior - (posterior + prior).max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)  # (items, points)
        share = posterior[item]
        chance = _sigmoid(odds)
        residual, curvature = share * (wins[:, None] - chance), share * chance * (1 - chance)

        def total(values: Floats) -> Floats:
            return np.bincount(who, weights=values.sum(axis=1), minlength=count).astype(float)

        slope = np.stack([total(residual * differences) - (sharpness - 1), total(residual * side[:, None]) - lean])
        cross = total(curvature * differences * side[:, None])
        hessian = np.stack([total(curvature * differences**2) + 1, cross, cross, total(curvature) + 1])
        step = np.linalg.solve(hessian.T.reshape(-1, 2, 2), slope.T[:, :, None])[:, :, 0]
        step = np.clip(step, -1.0, 1.0)
        sharpness, lean = sharpness + step[:, 0], lean + step[:, 1]
        if np.abs(step).max() < 1e-6:
            break
    return sharpness, lean


def fit_scores(
    first: npt.NDArray[np.int_], second: npt.NDArray[np.int_], wins: Floats, slope: Floats, shift: Floats
) -> Floats:
    """Give the scores of the highest posterior probability: a convex problem, so there is one answer."""
    from scipy.optimize import minimize

    count = int(max(first.max(), second.max())) + 1

    def loss(scores: Floats) -> tuple[float, Floats]:
        odds = slope * (scores[first] - scores[second]) + shift
        value = -(wins * _log_sigmoid(odds) + (1 - wins) * _log_sigmoid(-odds)).sum() + 0.5 * scores @ scores
        pull = slope * (wins - _sigmoid(odds))
        gradient = np.bincount(second, weights=pull, minlength=count) - np.bincount(
            first, weights=pull, minlength=count
        )
        return float(value), gradient + scores

    found = minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12})
    return np.asarray(found.x)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(_log_sigmoid(x))


def _log_sigmoid(x: Floats) -> Floats:
    return np.asarray(-np.logaddexp(0.0, -x))


def probabilities(votes: Votes, method: str) -> Floats:
    """Give the probability that the first answer of each item is better, one half where nobody preferred either; (items,).

    Args:
        votes: what was said.
        method: one of `METHODS`.
    """
    preferred = np.bincount(np.array(votes.item, dtype=int), weights=np.abs(votes.choice), minlength=votes.items) > 0
    return np.where(preferred, METHODS[method](votes), 0.5)


METHODS: dict[str, Callable[[Votes], Floats]] = {
    "majority": majority,
    "dawid-skene": dawid_skene,
    "bradley-terry": bradley_terry,
}
"""What `--aggregate` offers, besides none."""
