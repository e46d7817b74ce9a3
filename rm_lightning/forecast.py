"""What more labels would bring: fits on parts of what is labelled, kept for a run that goes on, and what follows from them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning as L
import numpy as np

from lsplugin.files import read_json, write_json
from rm_lightning.curve import FARTHEST, Fit, Measured, forecast, interval, learn, measure, stops_paying
from rm_lightning.data import Part, PreferenceData
from rm_lightning.errors import RewardModelError
from rm_lightning.metrics import decided, right
from rm_lightning.sources import read_preferences
from rm_lightning.subsets import BASE, Job, check_enough, kinds_of, leave_out, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lsplugin.preferences import Pair
    from rm_lightning.module import RewardModel
    from rm_lightning.store import Store

SURE = 0.9
Z = 1.959964


class Asked(NamedTuple):
    """What the forecast is about.

    Attributes:
        more: labels that may be bought.
        worth: the gain in accuracy that so many labels should bring.
        folds: how often prompts are held out; each is held out once.
        kinds: ask which kind of comparison teaches most.
        seed: of folds, subsets and fits.
    """

    more: int = 300
    worth: float = 0.01
    folds: int = 5
    kinds: bool = True
    seed: int = 0

    def check(self) -> Asked:
        """Refuse numbers that mean nothing."""
        if self.more < 1:
            raise RewardModelError(f"--more {self.more}: expected 1 comparison or more")
        if not 0 < self.worth < 0.5:
            raise RewardModelError(
                f"--worth {self.worth}: expected a gain in accuracy above 0 and below 0.5, such as 0.01"
            )
        if self.folds < 3:
            raise RewardModelError(f"--folds {self.folds}: expected 3 or more")
        return self


class SubsetData(PreferenceData):
    """All comparisons of some files, tokenised once; each fit takes some of them."""

    def whole(self) -> Store:
        """Open all comparisons."""
        return self._stores()["train"]

    def take(self, job: Job) -> None:
        """Train and test on a job's examples."""
        store = self.whole()
        self._parts = {"train": Part(store, job.train), "test": Part(store, job.test)}
        self.notes = store.notes.copy()
        self.counts.clear()
        for name, part in self._parts.items():
            self.counts[name] = int(store.comparisons[part.places].sum())
        if ties := store.notes["ties"]:  # their share is that of all comparisons
            self.notes["ties"] = round(ties * sum(self.counts.values()) / int(store.comparisons.sum()))

    def pairs(self) -> list[Pair]:
        """Read each example's first comparison from the files once more, (E,)."""
        store = self.whole()
        examples = [store[place] for place in range(len(store))]
        wanted = {(example.file, example.number[0]) for example in examples}
        rows = read_preferences(self.files["train"], Counter())
        found = {(row.file, row.number): row.pair for row in rows if (row.file, row.number) in wanted}
        return [found[example.file, example.number[0]] for example in examples]


def plan(data: SubsetData, asked: Asked) -> list[Job]:
    """Plan all fits, the small ones first.

    Raises:
        RewardModelError: there are too few comparisons or prompts.
    """
    store = data.whole()
    keys, labels = store.keys.astype(np.int64), store.comparisons.astype(np.int64)
    check_enough(int(labels.sum()), len(np.unique(keys)), ", ".join(data.files["train"]), folds=asked.folds)
    kinds = kinds_of(data.pairs()) if asked.kinds else {}
    return [*steps(keys, labels, asked.folds, asked.seed), *leave_out(keys, kinds, asked.folds, asked.seed)]


def run(
    jobs: Sequence[Job],
    data: SubsetData,
    make: Callable[[], tuple[RewardModel, L.Trainer]],
    folder: Path,
    *,
    seed: int,
    advance: Callable[[float, str | None], object],
) -> dict[str, Fit]:
    """Run the fits whose results are not there yet, and give all of them by name.

    Args:
        jobs: from `plan`.
        data: of all comparisons.
        make: makes a new model and trainer.
        folder: keeps a file for each fit that is done.
        seed: each fold has its own, made of it.
        advance: called after each fit with the comparisons that it was trained on, and what is done next.
    """
    found: dict[str, Fit] = {}
    for number, job in enumerate(jobs, start=1):
        path = folder / f"{job.name}.json"
        labels = int(data.whole().comparisons[job.train].sum())
        advance(0, f"fit {number} of {len(jobs)}, on {labels} comparisons")
        if not path.is_file():
            data.take(job)
            prompt, is_right = fitted(data, make, seed + job.fold)
            write_json(path, {"labels": labels, "prompt": prompt, "right": is_right})
        kept = read_json(path)
        step = -1 if job.step is None else job.step
        found[job.name] = Fit(job.fold, step, kept["labels"], kept["prompt"], kept["right"])
        advance(labels, None)
    return found


def fitted(
    data: SubsetData, make: Callable[[], tuple[RewardModel, L.Trainer]], seed: int
) -> tuple[list[int], list[float]]:
    """Fit and test once: the prompt of each held-out comparison, and whether it is right."""
    L.seed_everything(seed, verbose=False)
    data.seed = seed
    model, trainer = make()
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    observed = decided(model.observed["testing"])
    return [int(key) for key in observed.prompt], [float(value) for value in right(observed)]


def conclude(
    jobs: Sequence[Job], fits: Mapping[str, Fit], labels: int, asked: Asked, shares: Mapping[str, float]
) -> dict[str, Any]:
    """Say what follows from the fits; see the docs for the fields.

    Args:
        jobs: from `plan`.
        fits: from `run`.
        labels: comparisons there are.
        asked: what is asked.
        shares: of each kind among the comparisons.
    """
    measured = measure([fits[job.name] for job in jobs if job.step is not None])
    curves = learn(measured, seed=asked.seed)
    found = forecast(curves, measured.scatter, labels, asked.more)
    stop = stops_paying(curves, labels, asked.more, asked.worth, sure=SURE)
    half = Z * np.sqrt(np.diag(measured.covariance))
    points = [
        {"labels": round(float(n)), "value": float(p), "low": float(max(0, p - h)), "high": float(min(1, p + h))}
        for n, p, h in zip(measured.labels, measured.accuracy, half, strict=True)
    ]
    far = np.unique(np.geomspace(measured.labels[0], 2 * (labels + asked.more), 40).round()).astype(np.float64)
    drawn = curves.at(far)
    line = [{"labels": int(n), **interval(d)._asdict()} for n, d in zip(far, drawn.T, strict=True)]
    kinds = _kinds(jobs, fits, measured, shares)
    told: dict[str, Any] = {
        "labels": labels,
        "more": asked.more,
        "worth": asked.worth,
        "now": found.now._asdict(),
        "then": found.then._asdict(),
        "gain": found.gain._asdict(),
        "ceiling": interval(curves.ceiling)._asdict(),
        "stops_paying": {"from": stop, "sure": SURE, "looked_until": FARTHEST * labels},
        "measured": points,
        "scatter": measured.scatter,
        "curve": line,
        "kinds": kinds,
    }
    return {"said": said(told), **told}


def _kinds(
    jobs: Sequence[Job], fits: Mapping[str, Fit], measured: Measured, shares: Mapping[str, float]
) -> dict[str, Any]:
    """Say what it costs to leave each kind out, at equally many labels, with intervals that hold 95% together (Bonferroni)."""
    from scipy.stats import norm

    by_kind = {
        name: [fits[job.name] for job in jobs if job.kind == name] for name in {job.kind: 0 for job in jobs if job.kind}
    }
    base = by_kind.pop(BASE, [])
    z = float(norm.ppf(1 - 0.025 / max(1, len(by_kind))))
    rows = []
    for name, without in by_kind.items():
        # each held-out comparison: right with all kinds - right without this one
        apart = np.concatenate([np.subtract(one.right, other.right) for one, other in zip(base, without, strict=True)])
        prompt = np.concatenate([one.prompt for one in base])
        error = np.bincount(np.unique(prompt, return_inverse=True)[1], weights=apart - apart.mean()) / len(apart)
        # two sets of fits, whose own scatter is in their means
        half = z * float(np.sqrt((error**2).sum() + 2 * measured.scatter**2 / len(base)))
        cost = {"value": float(apart.mean()), "low": float(apart.mean() - half), "high": float(apart.mean() + half)}
        rows.append({"kind": name, "share": shares[name], "cost": cost})
    return {
        "labels": round(float(np.mean([fit.labels for fit in base]))) if base else None,
        "rows": sorted(rows, key=lambda row: -row["cost"]["value"]),
    }


def said(told: Mapping[str, Any]) -> str:
    """Sum the forecast up in one line."""
    now, then, gain = (told[name] for name in ("now", "then", "gain"))
    line = (
        f"{told['more']} more comparisons: accuracy {_points(now['value'])} -> {_points(then['value'])} "
        f"({_points(then['low'])}-{_points(then['high'])}), gain {_gain(gain)}; {when_to_stop(told)}"
    )
    rows = told["kinds"]["rows"]
    return f"{line}; {teaches_most(rows)}" if rows else line


def when_to_stop(told: Mapping[str, Any]) -> str:
    """Say from when on more labels stop paying."""
    stop, until, sure = (told["stops_paying"][name] for name in ("from", "looked_until", "sure"))
    points = f"{100 * told['worth']:g} point{'s' * (told['worth'] != 0.01)}"
    bring = f"{told['more']} more bring less than {points}"
    if stop is None:
        return f"at no number up to {until:,} labels is it {sure:.0%} certain that {bring}"
    since = "already" if stop <= told["labels"] else f"from about {_round(stop):,} labels on,"
    return f"{since} {bring} ({sure:.0%} certain)"


def teaches_most(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which kind of comparison teaches most, where that can be seen."""
    sure = [row for row in rows if row["cost"]["low"] > 0]
    if not sure:
        return "which kind of pair teaches most: no difference seen"
    names = ", ".join(f"{row['kind']} (left out, accuracy falls by {_gain(row['cost'], sign='')})" for row in sure)
    return f"teaches most: {names}"


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _gain(found: Mapping[str, float], sign: str = "+") -> str:
    return f"{100 * found['value']:{sign}.1f} ({100 * found['low']:{sign}.1f} to {100 * found['high']:{sign}.1f})"


def _round(number: int) -> int:
    """Keep two digits."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return int(round(number / unit) * unit)


def remaining(jobs: Sequence[Job], data: SubsetData, folder: Path) -> tuple[int, int, int]:
    """Count the fits, the comparisons that they train on, and those of them that are done."""
    labels = {job.name: int(data.whole().comparisons[job.train].sum()) for job in jobs}
    done = sum(count for name, count in labels.items() if (folder / f"{name}.json").is_file())
    return len(jobs), sum(labels.values()), done
