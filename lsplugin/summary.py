"""Labels -> figures: how much people agree, how each of them labels, which model wins, what a reward model can reach."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lsplugin import flags
from lsplugin.aggregate import fit_scores
from lsplugin.agreement import (
    Estimate,
    ceiling,
    cohen_kappa,
    estimate,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    share,
)
from lsplugin.labels import USED

if TYPE_CHECKING:
    import numpy.typing as npt

    from lsplugin.labels import Labels

    Floats = npt.NDArray[np.float64]

MOST_PAIRED = 30
"""Annotators up to whom every two are compared with Cohen's kappa."""

RESAMPLES = 200
"""Bootstrap samples of the votes behind a ranking of models."""

ROUNDS = 5
"""How often, at most, the flagged are taken out and the others compared anew."""


def summarise(labels: Labels, *, seed: int = 0) -> dict[str, Any]:
    """Compute everything that the report shows, as JSON.

    Args:
        labels: what people said.
        seed: of the bootstraps.
    """
    once = labels.votes.drop_duplicates(["item", "annotator"])  # a mirrored task is no second opinion
    people = annotators(labels, once)
    flagged = [person["annotator"] for person in people if person["flags"]]
    agreement = _agreement(labels.votes, once, seed)
    if flagged:
        votes, alone = (table[~table["annotator"].isin(flagged)] for table in (labels.votes, once))
        agreement["without_flagged"] = _agreement(votes, alone, seed)
    return {
        "tasks": labels.tasks,
        "annotations": len(labels.annotations),
        "outcomes": {str(name): int(count) for name, count in labels.annotations["outcome"].value_counts().items()},
        "votes": len(labels.votes),
        "items": int(labels.votes["item"].nunique()),
        "sides_balanced": labels.balanced,
        "agreement": agreement,
        "length_floor": share(*_shares(labels.votes, "longer")).to_dict(),
        "annotators": people,
        "anchoring": _anchoring(labels.votes),
        "models": _models(labels, seed),
        "reasons": _reasons(labels.annotations),
        "criteria": _criteria(labels.annotations),
        "progress": _progress(labels.annotations),
    }


def counts_of(votes: pd.DataFrame) -> Floats:
    """Count how many votes each item has for its second answer, a tie, its first; (items, 3)."""
    if votes.empty:
        return np.zeros((0, 3))
    items, place = np.unique(votes["item"], return_inverse=True)
    counts = np.zeros((len(items), 3))
    np.add.at(counts, (place, votes["choice"].to_numpy() + 1), 1)
    return counts


def _agreement(votes: pd.DataFrame, once: pd.DataFrame, seed: int) -> dict[str, Any]:
    counts = counts_of(once)
    measures = {"raw": raw_agreement, "fleiss_kappa": fleiss_kappa, "krippendorff_alpha": krippendorff_alpha}
    made: dict[str, Any] = {name: estimate(measure, counts, seed=seed).to_dict() for name, measure in measures.items()}
    made["cohen_kappa"] = _cohen(once)
    again = votes[votes.duplicated(["item", "annotator"], keep=False)]
    agreed = [bool(group.nunique() == 1) for _, group in again.groupby(["item", "annotator"])["choice"]]
    made["self"] = share(sum(agreed), len(agreed)).to_dict()
    made["ceiling"] = _ceiling(counts, again, seed)
    return made


def _ceiling(counts: Floats, again: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Say how accurate a model can be at best, from votes that prefer something; from self-agreement where none share items."""
    source, shared = "agreement between annotators", counts[:, [0, 2]]
    if not (shared.sum(axis=1) >= 2).any():
        source = "agreement of annotators with themselves"
        alone = [counts_of(group)[:, [0, 2]] for _, group in again.groupby("annotator")]
        shared = np.concatenate(alone) if alone else np.zeros((0, 2))
    agreed = estimate(raw_agreement, shared, seed=seed)
    value, low, high = (ceiling(value) if np.isfinite(value) else value for value in agreed[:3])
    found = Estimate(value, low, high, agreed.trials)
    bounds: dict[str, Any] = {"at_least": None, "at_most": None, "from": None}
    if np.isfinite(agreed.value):
        above = max(0.0, agreed.value - 0.5)
        bounds = {"at_least": 0.5 + above, "at_most": 0.5 + math.sqrt(above / 2), "from": source}
    return found.to_dict() | bounds


def _cohen(once: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare every two annotators on the items that both judged."""
    names = sorted(once["annotator"].unique())
    if len(names) > MOST_PAIRED:
        return []
    table = once.pivot(index="item", columns="annotator", values="choice")
    made = []
    for one, other in combinations(names, 2):
        both = table[[one, other]].dropna()
        if len(both):
            said = np.zeros((3, 3))
            np.add.at(said, (both[one].to_numpy(int) + 1, both[other].to_numpy(int) + 1), 1)
            kappa = cohen_kappa(said)
            made.append(
                {"annotators": [one, other], "items": len(both), "kappa": kappa if np.isfinite(kappa) else None}
            )
    return made


def annotators(labels: Labels, once: pd.DataFrame) -> list[dict[str, Any]]:
    """Say of each annotator how they label, what stands out, and by which test; most labels first.

    The others, whom each is compared with, are those who are not flagged themselves: that is found in rounds.

    Args:
        labels: what people said.
        once: votes without an annotator's second opinion on the same item.
    """
    everybody = set(labels.annotations["annotator"])
    trusted = everybody
    for _ in range(ROUNDS):
        done = _done(labels, once, trusted)
        asked = {name: _questions(done, str(name), trusted, balanced=labels.balanced) for name in done.index}
        unflagged = {name for name in everybody if not any(question.flagged for question in asked[name])}
        if unflagged == trusted:
            break
        trusted = unflagged
    order = done.sort_values("annotations", ascending=False, kind="stable").index
    return [_annotator(labels, done.loc[name], asked[name]) for name in order]


def _questions(done: pd.DataFrame, name: str, trusted: set[str], *, balanced: bool) -> list[flags.Question]:
    others = done.loc[[other for other in done.index if other in trusted and other != name]].sum()
    norms = flags.Norms(**{key: _rate(others, column, default) for key, column, default in _NORMS})
    if balanced:
        norms = replace(norms, left=0.5)
    return flags.questions(_counted(done.loc[name]), norms)


def _counted(row: pd.Series[Any]) -> flags.Counts:
    return flags.Counts(*((int(row[key]), int(row[f"{key}_of"])) for key in _COUNTED))


def _annotator(labels: Labels, row: pd.Series[Any], asked: list[flags.Question]) -> dict[str, Any]:
    own = labels.annotations[labels.annotations["annotator"] == row.name]
    counts = _counted(row)
    needed = round(flags.threshold(), 3)
    return {
        "annotator": str(row.name),
        "annotations": int(row["annotations"]),
        "outcomes": {str(key): int(count) for key, count in own["outcome"].value_counts().items()},
        "median_seconds": _known(own["seconds"].median()),
        **{key: share(*getattr(counts, key)).to_dict() for key in _COUNTED},
        "flags": [question.flag for question in asked if question.flagged],
        "questions": [
            asdict(question) | {"evidence": round(question.evidence, 3), "needed": needed}
            for question in asked
            if question.trials
        ],
    }


_COUNTED = ("left", "longer", "fast", "agreed", "gold")
_NORMS = (
    ("left", "left", flags.Norms.left),
    ("longer", "longer", flags.Norms.longer),
    ("agreement", "agreed", flags.Norms.agreement),
    ("gold", "gold", flags.Norms.gold),
)
ENOUGH = 50
"""Trials of the others from which on they are the norm."""


def _rate(others: pd.Series[Any], column: str, default: float) -> float:
    successes, trials = float(others[column]), float(others[f"{column}_of"])
    return successes / trials if trials >= ENOUGH else default


def _done(labels: Labels, once: pd.DataFrame, trusted: set[str]) -> pd.DataFrame:
    """Count for each annotator successes and trials of everything that is asked; a row each.

    Args:
        labels: what people said.
        once: one vote an annotator and item.
        trusted: whose votes are the others'.
    """
    votes, said = labels.votes, labels.annotations
    table = pd.DataFrame({"annotations": said.groupby("annotator").size()})
    for column in ("left", "longer"):
        table[column] = votes[votes[column] > 0].groupby("annotator").size()
        table[f"{column}_of"] = votes[votes[column] != 0].groupby("annotator").size()
    timed = said[said["seconds"].notna() & (said["characters"] > 0)]
    table["fast"] = timed[timed["seconds"] < timed["characters"] / flags.READING].groupby("annotator").size()
    table["fast_of"] = timed.groupby("annotator").size()
    heard = once["choice"].where(once["annotator"].isin(trusted), 0)
    others = heard.groupby(once["item"]).transform("sum") - heard
    shared = once[(np.sign(others) != 0) & (once["choice"] != 0)]
    agreed = shared[np.sign(others[shared.index]) == shared["choice"]]
    table["agreed"], table["agreed_of"] = agreed.groupby("annotator").size(), shared.groupby("annotator").size()
    known = votes[votes["gold"].notna()]
    table["gold"] = known[known["gold"].astype(bool)].groupby("annotator").size()
    table["gold_of"] = known.groupby("annotator").size()
    return table.fillna(0)


def _shares(votes: pd.DataFrame, column: str) -> tuple[int, int]:
    return int((votes[column] > 0).sum()), int((votes[column] != 0).sum())


def _anchoring(votes: pd.DataFrame) -> dict[str, Any] | None:
    """Compare agreement with pre-labels where people saw them and where they did not; None without pre-labels."""
    known = votes[votes["prelabel"].notna()]
    if known.empty:
        return None
    seen = known["shown"].astype(bool)
    agreed = known["prelabel"].astype(bool)
    shown, hidden = (share(int(agreed[which].sum()), int(which.sum())) for which in (seen, ~seen))
    difference = shown.value - hidden.value
    # Newcombe (1998), method 10: from the two Wilson intervals
    low = difference - np.hypot(shown.value - shown.low, hidden.high - hidden.value)
    high = difference + np.hypot(shown.high - shown.value, hidden.value - hidden.low)
    pulled = Estimate(difference, low, high, len(known))
    return {"shown": shown.to_dict(), "hidden": hidden.to_dict(), "difference": pulled.to_dict()}


def _models(labels: Labels, seed: int) -> dict[str, Any] | None:
    """Compare the models that wrote the answers; None where fewer than two are known."""
    votes = labels.votes.dropna(subset=["first_model", "second_model"])
    votes = votes[votes["first_model"] != votes["second_model"]]
    names = sorted({*votes["first_model"], *votes["second_model"]})
    if len(names) < 2:
        return None
    number = {name: place for place, name in enumerate(names)}
    first, second = (votes[column].map(number).to_numpy(int) for column in ("first_model", "second_model"))
    wins = 0.5 + 0.5 * votes["choice"].to_numpy(float)
    rates = []
    for one, other in combinations(range(len(names)), 2):
        forward, backward = (first == one) & (second == other), (first == other) & (second == one)
        won = float(wins[forward].sum() + (1 - wins[backward]).sum())
        if count := int(forward.sum() + backward.sum()):
            rates.append({"model": names[one], "against": names[other], "win_rate": share(won, count).to_dict()})
    rng = np.random.default_rng(seed)
    plain = np.ones(len(votes)), np.zeros(len(votes))
    scores = _padded(fit_scores(first, second, wins, *plain), len(names))
    drawn = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(votes), len(votes))
        drawn.append(_padded(fit_scores(first[rows], second[rows], wins[rows], *plain), len(names)))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    played = np.bincount(np.concatenate([first, second]), minlength=len(names))
    ranking = [
        {"model": names[place], "score": Estimate(scores[place], low[place], high[place], played[place]).to_dict()}
        for place in np.argsort(-scores)
    ]
    return {"win_rates": rates, "bradley_terry": ranking}


def _padded(scores: Floats, count: int) -> Floats:
    """Give the scores of all models, 0 for those that a sample left out, around a mean of 0."""
    made = np.zeros(count)
    made[: len(scores)] = scores
    return np.asarray(made - made.mean())


def _reasons(annotations: pd.DataFrame) -> dict[str, int]:
    given = annotations["reasons"].explode().dropna()
    return {str(reason): int(count) for reason, count in given.value_counts().items()}


def _criteria(annotations: pd.DataFrame) -> dict[str, Any]:
    """Say how often each criterion goes with the choice as a whole, where it prefers something: which of them decide."""
    used = annotations[annotations["outcome"] == USED]["criteria"]
    names = sorted({name for said in used for name in said})
    followed = {name: [said[name] for said in used if said.get(name)] for name in names}
    return {name: share(found.count(1), len(found)).to_dict() for name, found in followed.items()}


def _progress(annotations: pd.DataFrame) -> list[dict[str, Any]]:
    """Count annotations by day, or by hour where they took less than three days."""
    times = annotations["created"].dropna()
    if times.empty:
        return []
    by = "D" if times.max() - times.min() > pd.Timedelta(days=3) else "h"
    counts = times.dt.floor(by).value_counts().sort_index()
    return [{"from": moment.isoformat(), "annotations": int(count)} for moment, count in counts.items()]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
