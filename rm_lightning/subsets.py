"""Which comparisons each fit of a forecast is trained on and tested on: nested subsets of whole prompts, and kinds left out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rm_lightning.errors import RewardModelError
from rm_lightning.store import TIE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lsplugin.preferences import Pair

Places = npt.NDArray[np.int64]

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the labels that a fold leaves to train on; those with less than `SMALLEST` are left out."""
SMALLEST = 16
FEWEST_LABELS, FEWEST_PROMPTS = 80, 10
MOST_KINDS = 8
KIND_SHARE = (0.15, 0.6)
"""Kinds that hold less than that say nothing, those that hold more leave too little without them."""
MOST_VALUES = 6
"""A field of the meta with more different values is no kind."""
NO_KIND = {"task", "key", "annotation", "annotator", "annotators", "chosen_side", "lead_time", "reason", "verdict"}
BASE = "all kinds"


class Job(NamedTuple):
    """One fit.

    Attributes:
        name: says which it is; also the name of the file that keeps its result.
        fold: which prompts are held out.
        step: which of the sizes, from the smallest; None for a fit that asks after kinds.
        kind: which kind is left out, or `BASE`; empty for a step.
        train: examples to train on.
        test: examples of the held-out prompts.
    """

    name: str
    fold: int
    step: int | None
    kind: str
    train: Places
    test: Places


def check_enough(labels: int, prompts: int, where: str, *, folds: int) -> None:
    """Refuse what is too little to see a curve in."""
    least = max(FEWEST_PROMPTS, 2 * folds)
    if labels < FEWEST_LABELS or prompts < least:
        raise RewardModelError(
            f"{where}: expected {FEWEST_LABELS} comparisons of {least} prompts at least, found {labels} of {prompts}: too few "
            "to see a learning curve in; label more first"
        )


def deal(keys: Places, folds: int, seed: int) -> Places:
    """Deal whole prompts to folds of about equally many prompts: the fold of each example, (E,).

    Args:
        keys: the prompt of each example, (E,).
        folds: how many.
        seed: another seed deals anew.
    """
    prompts, whose = np.unique(keys, return_inverse=True)
    fold_of = np.random.default_rng([seed, 0]).permutation(len(prompts)) % folds
    return np.asarray(fold_of[whose], dtype=np.int64)


def steps(keys: Places, labels: Places, folds: int, seed: int) -> list[Job]:
    """Plan the fits of a learning curve: in each fold nested subsets of whole prompts, tested on the same held-out ones.

    Args:
        keys: the prompt of each example, (E,).
        labels: comparisons in each example, (E,).
        folds: how many.
        seed: of folds and subsets.
    """
    fold_of = deal(keys, folds, seed)
    least = min(int(labels[fold_of != fold].sum()) for fold in range(folds))
    shares = [share for share in SHARES if share * least >= SMALLEST]
    jobs = []
    for fold in range(folds):
        left, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        prompts, whose = np.unique(keys[left], return_inverse=True)
        place = np.random.default_rng([seed, 1, fold]).permutation(len(prompts))[whose]  # of each example's prompt
        order = np.argsort(place, kind="stable")
        ends = np.flatnonzero(np.diff(place[order], append=-1))  # the last example of each prompt
        sums = labels[left][order].cumsum()
        for step, share in enumerate(shares):
            end = ends[np.abs(sums[ends] - share * sums[-1]).argmin()]
            train = np.sort(left[order[: end + 1]])
            jobs.append(Job(f"step{step}-fold{fold}", fold, step, "", train, test))
    return sorted(jobs, key=lambda job: len(job.train))


def leave_out(keys: Places, kinds: Mapping[str, npt.NDArray[np.bool_]], folds: int, seed: int) -> list[Job]:
    """Plan fits that leave each kind out, and fits that leave none out, all of equally many examples.

    Args:
        keys: the prompt of each example, (E,).
        kinds: which examples are of each kind, (E,).
        folds: how many.
        seed: of folds and subsets.
    """
    if not kinds:
        return []
    fold_of = deal(keys, folds, seed)
    without = {BASE: np.ones(len(keys), dtype=bool), **{name: ~which for name, which in kinds.items()}}
    size = min(int((which & (fold_of != fold)).sum()) for which in without.values() for fold in range(folds))
    jobs = []
    for fold in range(folds):
        left, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        order = left[np.random.default_rng([seed, 2, fold]).permutation(len(left))]
        for number, (name, which) in enumerate(without.items()):
            train = np.sort(order[which[order]][:size])
            jobs.append(Job(f"kind{number}-fold{fold}", fold, None, name, train, test))
    return jobs


def kinds_of(pairs: Sequence[Pair]) -> dict[str, npt.NDArray[np.bool_]]:
    """Find kinds of comparisons in what pairs tell of themselves: which are of each kind, (E,).

    By strength (margin), by agreement (probability), by the difference in length, by the models that wrote the answers, and by
    fields of the meta with few values, such as a source. The largest `MOST_KINDS` are given.
    """
    lengths = [
        abs(len(pair.chosen) - len(pair.rejected)) / max(1, len(pair.chosen) + len(pair.rejected)) for pair in pairs
    ]
    found: dict[str, npt.NDArray[np.bool_]] = _halves(lengths, "answers about as long", "answers of unlike length")
    if all(pair.margin is not None for pair in pairs):
        found |= _halves([pair.margin or 0.0 for pair in pairs], "slightly better", "much better")
    if all(pair.probability not in {None, TIE} for pair in pairs):
        found |= _halves([abs((pair.probability or 0.0) - TIE) for pair in pairs], "disputed", "agreed on")
    for name, told in _fields(pairs).items():
        found |= {f"{name} {value}": np.array([one == value for one in told]) for value in dict.fromkeys(told) if value}
    low, high = KIND_SHARE
    usable = {name: which for name, which in found.items() if low <= which.mean() <= high}
    return dict(sorted(usable.items(), key=lambda kind: -int(kind[1].sum()))[:MOST_KINDS])


def _halves(values: Sequence[float], lower: str, upper: str) -> dict[str, npt.NDArray[np.bool_]]:
    """Halve at the median; where most share one value, it is with the larger half."""
    number = np.array(values)
    middle = np.median(number)
    above = number > middle
    if above.mean() < KIND_SHARE[0]:
        above = number >= middle
    return {lower: ~above, upper: above}


def _fields(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Give what the metas say in fields of few values: {name: the value of each pair}; empty where it has none."""
    tables: dict[str, Callable[[Mapping[str, Any]], Any]] = {"models": lambda meta: _models(meta.get("models"))}
    metas = [{**_object(pair.meta.get("task_meta")), **pair.meta} for pair in pairs]
    names = Counter(name for meta in metas for name, value in meta.items() if isinstance(value, str))
    tables |= {name: lambda meta, name=name: meta.get(name) for name in names if name not in NO_KIND}  # type: ignore[misc]
    found = {}
    for name, read in tables.items():
        told = [value if isinstance(value := read(meta), str) else "" for meta in metas]
        if 2 <= len(set(told)) <= MOST_VALUES:
            found[name] = told
    return found


def _models(models: object) -> str:
    return " against ".join(sorted(map(str, models.values()))) if isinstance(models, dict) and len(models) == 2 else ""


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
