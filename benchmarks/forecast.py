"""Backtest of `python -m rm_lightning forecast`: stand at n labels, forecast, and look what later labels really gave.

    RLHF_DATA=../shared/data python benchmarks/forecast.py --results runs/forecast-backtest.jsonl
    python benchmarks/forecast.py --report --results runs/forecast-backtest.jsonl

In each set there are several orders in which labels come in; a seed draws order, labels and held-out prompts.

- `hh`: harmless-base; `ukp`: UKPConvArg1, whose prompts are 32 sides of debates; `polarity`: good beside bad sentences of film
  reviews. 40% of the prompts are held out; a linear head (frozen.py), ridge 30.
- `words`: the demo world labelled by honest annotators (temperature 0.7), and a linear head on counts of words
  (selection.py); `words noisy`: the same by a crew whose temperatures are 0.4 to 3 (rm_truth.py).
- `demo` and `demo noisy`: the same labels, and the demo world's base model tuned as `fit` does (3 epochs, 5e-4); only when
  asked for, as they take some minutes an order.

A forecast sees the first n labels only, by the very functions of the command. What came later is the accuracy of one model
trained on the first n' labels, on comparisons of other prompts: by the true probabilities in the demo world, by the labels
elsewhere. The noise of this test counts against the forecast. Beside it: the last measured accuracy taken as it is, and a
least-squares power law c - a n^-b.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer
from frozen import accuracy, fit, real
from rm_truth import CREW, TEMPERATURE, World, sigmoid
from selection import demo_words, demo_worlds

from lsplugin.files import read_jsonl
from lsplugin.preferences import Pair, write_pairs
from rm_lightning.curve import Fit, forecast, interval, learn, measure
from rm_lightning.subsets import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

RIDGE = 30.0
FOLDS = 5
REAL = ("hh", "ukp", "polarity")
WORDS = ("words", "words noisy")
DEMO = ("demo", "demo noisy")
STANDS = dict.fromkeys(REAL, (150, 300, 600)) | dict.fromkeys((*WORDS, *DEMO), (150, 300))
LATER = dict.fromkeys(REAL, (300, 600, 1200)) | dict.fromkeys(WORDS, (300, 600, 1200)) | dict.fromkeys(DEMO, (300, 600))
ORDERS = dict.fromkeys((*REAL, *WORDS), 10) | dict.fromkeys(DEMO, 3)


class Row(NamedTuple):
    """One order of one set, as it is kept.

    Attributes:
        data: the set.
        order: the seed.
        stands: {n: fits on parts of the first n labels}.
        later: {n': accuracy of a model of the first n' labels}.
    """

    data: str
    order: int
    stands: dict[str, list[list[Any]]]
    later: dict[str, float]


class Stand(NamedTuple):
    """Comparisons of a pool in the order in which their labels come in, and held-out ones.

    Attributes:
        x: features of chosen minus those of rejected, (C, F).
        prompt: a number for each one's prompt, (C,).
        test: features of held-out comparisons, (T, F).
        chance: that the first answer of these is preferred, (T,).
    """

    x: Floats
    prompt: Places
    test: Floats
    chance: Floats


def real_stand(data: str, order: int) -> Stand:
    """Hold out 40% of a real set's prompts."""
    kept = real(data)
    rng = np.random.default_rng([order, 7])
    prompts = np.unique(kept.prompt)
    held_out = np.isin(kept.prompt, rng.permutation(prompts)[: round(0.4 * len(prompts))])
    pool = rng.permutation(np.flatnonzero(~held_out))
    return Stand(kept.x[pool], kept.prompt[pool], kept.x[held_out], np.ones(int(held_out.sum())))


def words_stand(data: str, order: int) -> Stand:
    """Take the demo world by the words of its answers."""
    world = demo_words(order % 5)
    held_out = world.held_out.odds
    rng = np.random.default_rng([order, 7])
    won, _ = preferred(world.pool.odds, data, rng)
    prompt = np.unique([prompt for prompt, *_ in world.pool.texts], return_inverse=True)[1].astype(np.int64)
    drawn = rng.permutation(world.size)
    return Stand((world.x * won[:, None])[drawn], prompt[drawn], world.test, preferred(held_out, data, rng)[1])


def preferred(odds: Floats, data: str, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Label twos of answers: 1 where the first was preferred, else -1, and the chance of that before anybody was asked; (C,)."""
    noisy = data.endswith("noisy")
    who = rng.choice(CREW, size=len(odds)) / TEMPERATURE if noisy else np.ones(len(odds))
    p = np.mean([sigmoid(odds * TEMPERATURE / t) for t in CREW], axis=0) if noisy else sigmoid(odds)
    return np.where(rng.random(len(odds)) < sigmoid(odds / who), 1.0, -1.0), np.asarray(p)


def linear(data: str, order: int) -> Row:
    """Stand in a set, with linear heads."""
    x, prompt, test, chance = (real_stand if data in REAL else words_stand)(data, order)

    def right(train: Floats, tested: Floats) -> Floats:
        return accuracy(tested @ fit(train, np.ones(len(train)), RIDGE))

    stands = {}
    for n in STANDS[data]:
        jobs = steps(prompt[:n], np.ones(n, dtype=np.int64), FOLDS, order)
        stands[str(n)] = [
            [job.fold, job.step, len(job.train), prompt[job.test].tolist(), right(x[job.train], x[job.test]).tolist()]
            for job in jobs
        ]
    later = {}
    for n in LATER[data]:
        found = right(x[:n], test)
        later[str(n)] = float((found * chance + (1 - found) * (1 - chance)).mean())
    return Row(data, order, stands, later)


def tuned(data: str, order: int) -> Row:
    """Stand in the demo world, with models tuned by the command's own functions."""
    import lightning as L
    from rm_truth import RECIPE

    from demo_world.base import base_model
    from rm_lightning.forecast import Asked, SubsetData, fitted, plan, run
    from rm_lightning.module import RewardModel
    from rm_lightning.subsets import Job

    pool, held_out, _ = demo_worlds(order)
    rng = np.random.default_rng([order, 7])

    def labelled(made: World) -> tuple[list[Pair], Floats]:
        won, p = preferred(made.odds, data, rng)
        rows = zip(made.texts, won, strict=True)
        pairs = [Pair(q, *((a, b) if first > 0 else (b, a))) for (q, a, b), first in rows]
        return pairs, np.where(won > 0, p, 1 - p)

    ours, (tests, chance) = labelled(pool)[0], labelled(held_out)
    backbone = str(base_model(0))

    def make() -> tuple[RewardModel, L.Trainer]:
        trainer = L.Trainer(
            max_epochs=3, accelerator="cpu", precision="32-true", gradient_clip_val=1.0, logger=False, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        return RewardModel(backbone, **RECIPE), trainer

    stands, later = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for n in STANDS[data]:
            write_pairs(place / f"{n}.jsonl", ours[:n])
            some = SubsetData(str(place / f"{n}.jsonl"), backbone=backbone, cache=place)
            jobs = plan(some, Asked(folds=FOLDS, kinds=False, seed=order))
            found = run(jobs, some, make, place / str(n), seed=order, advance=lambda *_: None)
            stands[str(n)] = [[f.fold, f.step, f.labels, list(f.prompt), list(f.right)] for f in found.values()]
        write_pairs(place / "all.jsonl", [*ours, *tests])
        whole = SubsetData(str(place / "all.jsonl"), backbone=backbone, cache=place)
        size, most = len(whole.whole()), len(ours)
        assert size == most + len(tests), "each comparison is an example of its own"
        for n in (n for n in LATER[data] if n <= most):
            whole.take(Job("", 0, None, "", np.arange(n), np.arange(most, size)))
            right = np.array(fitted(whole, make, order + 50)[1])
            later[str(n)] = float((right * chance + (1 - right) * (1 - chance)).mean())
    return Row(data, order, stands, later)


# report


def power_law(labels: Floats, accuracies: Floats, then: float) -> float:
    """Extrapolate c - a n^-b, fitted by least squares with c up to 1 and b from 0.05 to 2."""
    best, found = np.inf, float(accuracies[-1])
    for b in np.geomspace(0.05, 2, 40):
        design = np.stack([np.ones(len(labels)), -(labels**-b)], axis=1)
        (c, a), *_ = np.linalg.lstsq(design, accuracies, rcond=None)
        cost = float(((design @ (c, a) - accuracies) ** 2).sum())
        if cost < best and a >= 0 and c <= 1:
            best, found = cost, float(c - a * then**-b)
    return found


def outcomes(row: Row) -> list[dict[str, Any]]:
    """Hold each forecast of an order against what came later."""
    found = []
    for n, kept in row.stands.items():
        fits = [Fit(*one) for one in kept]
        measured = measure(fits)
        curves = learn(measured)
        for then, real_accuracy in row.later.items():
            if int(then) <= int(n):
                continue
            told = forecast(curves, measured.scatter, int(n), int(then) - int(n))
            noise = np.random.default_rng(1).normal(size=len(curves.ceiling)) * measured.scatter
            draws = curves.at([int(n), int(then)])[:, 1] + noise
            low, high = np.quantile(draws, [0.1, 0.9])
            found.append(
                {
                    "data": row.data, "n": int(n), "then": int(then), "real": real_accuracy, "value": told.then.value,
                    "low": told.then.low, "high": told.then.high, "covered": told.then.low <= real_accuracy <= told.then.high,
                    "covered80": bool(low <= real_accuracy <= high), "last": float(measured.accuracy[-1]),
                    "power": power_law(measured.labels, measured.accuracy, float(then)), "mean": interval(draws).value,
                }
            )  # fmt: skip
    return found


def report(rows: Sequence[Row]) -> None:
    """Print how often intervals held, how wide they were, and how far off the middle was."""
    every = [found for row in rows for found in outcomes(row)]
    columns = (
        "set",
        "from n to n'",
        "forecasts",
        "95% held",
        "80% held",
        "half width",
        "error",
        "of the last measured",
        "power law",
    )
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    names = list(dict.fromkeys(found["data"] for found in every))
    groups = [
        (name, str(n), [f for f in every if (f["data"], f["n"]) == (name, n)]) for name in names for n in STANDS[name]
    ]
    groups += [(f"**{name}**", "all", [f for f in every if f["data"] == name]) for name in names]
    for times in ((1, 2), (2, 4), (4, 100)):
        some = [f for f in every if times[0] < f["then"] / f["n"] <= times[1]]
        groups.append(("**all**", f"{times[0]} to {times[1]} times" if times[1] < 100 else "more than 4 times", some))
    groups.append(("**all**", "all", every))
    for name, n, some in groups:
        if not some:
            continue
        thens = sorted({f["then"] for f in some})
        span = n if not n.isdigit() else f"{n} to {', '.join(map(str, thens))}"

        def mean(values: list[float]) -> float:
            return float(np.mean(values))

        cells = [
            f"{len(some)}", f"{mean([f['covered'] for f in some]):.0%}", f"{mean([f['covered80'] for f in some]):.0%}",
            f"{50 * mean([f['high'] - f['low'] for f in some]):.1f}",
            *(f"{100 * mean([abs(f[key] - f['real']) for f in some]):.1f}" for key in ("value", "last", "power")),
        ]  # fmt: skip
        print(f"| {name} | {span} | {' | '.join(cells)} |")


SETS: dict[str, Callable[[str, int], Row]] = dict.fromkeys((*REAL, *WORDS), linear) | dict.fromkeys(DEMO, tuned)


def main(
    results: Path = Path("runs/forecast-backtest.jsonl"),
    data: str = ",".join((*REAL, *WORDS)),
    *,
    only_report: bool = typer.Option(False, "--report"),  # noqa: FBT003
) -> None:
    """Run what has no line in the results yet, then print the table."""
    from rm_lightning.quiet import quiet

    quiet()
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = [Row(**row) for _, row in read_jsonl(results)] if results.exists() else []
    done = {row[:2] for row in rows}
    for name in data.split(","):
        for order in range(0 if only_report else ORDERS[name]):
            if (name, order) in done:
                continue
            rows.append(SETS[name](name, order))
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[-1]._asdict()) + "\n")
    report(rows)


if __name__ == "__main__":
    typer.run(main)
