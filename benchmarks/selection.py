"""Which comparisons to label next: a reward model's choice against chance, with labels revealed as they are bought.

    RLHF_DATA=../shared/data python benchmarks/selection.py --data demo --results runs/selection.jsonl
    RLHF_DATA=../shared/data python benchmarks/selection.py --report --results runs/selection.jsonl

A run begins with 64 random comparisons of the pool; in each round a reward model is trained on all that were bought so far,
measured on held-out prompts, and the next comparisons are chosen:

- `random`: by chance;
- `uncertain`: where the model's probability is nearest to one half;
- `disagree`: where the heads of an ensemble, each fitted to its own Bayesian bootstrap, differ most (Gleave and Irving 2022,
  arXiv 2203.07472, try the same for reward models);
- `mixed`: a quarter by chance; the others among the four times as many on which heads disagree most, each farthest from those
  already chosen (greedy k-centre, Sener and Savarese 2018).

Data. `demo`: the demo world's base model of 2 layers, tuned as `fit` does (3 epochs, 5e-4, 4 heads); 2,000 comparisons to
choose from. `words`: the same comparisons, and a linear head on counts of the 100 most frequent words and twos of words
(rm_truth.py), 8 heads. In both, accuracy is the expected one, without noise of labels. `ukp`: UKPConvArg1, three of 16 debates
held out, 3,000 comparisons to choose from, a linear head on frozen MiniLM features (frozen.py), 8 heads. All strategies of a seed
share pool, labels, first comparisons and held-out prompts, so differences are paired by seed.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import typer
from frozen import accuracy, best_ridge, fit, real

from lsplugin.files import read_jsonl
from lsplugin.preferences import Pair, split_by_prompt, write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rm_truth import World

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

STRATEGIES = ("random", "uncertain", "disagree", "mixed")
EVERY = (64, 128, 192, 256, 384, 512, 768)
BUDGETS = {"demo": (64, 128, 256, 512), "words": EVERY, "ukp": EVERY}
"""Labels bought before each fit."""
POOL = {"demo": 2000, "words": 2000, "ukp": 3000}
HELD_OUT = 1000
HEADS = {"demo": 4, "words": 8, "ukp": 8}
RANDOM_SHARE = 0.25
SHORTLIST = 4
"""How many times as many are looked at for diversity as are chosen."""


class Row(NamedTuple):
    """One run's line in the results: the accuracy at each budget."""

    data: str
    strategy: str
    seed: int
    budgets: list[int]
    accuracies: list[float]


class Learner(Protocol):
    """A pool of comparisons whose labels can be bought, and held-out ones.

    Attributes:
        size: of the pool.
        places_of: features that say which comparisons are alike, (size, D).
    """

    size: int
    places_of: Floats

    def learn(self, bought: Places) -> tuple[Floats, float]:
        """Train on what was bought: differences of scores over the pool by each head, (size, K), and accuracy."""


class Linear:
    """Frozen features, a linear head, and heads on bootstraps.

    Args:
        seed: of cross-validation and bootstraps.
        x: features of the first answers minus those of the second, (size, F).
        won: 1 where the first was preferred, else -1, (size,).
        test: the same of held-out comparisons, (C, F).
        chance: that the first of these is preferred, (C,).
        heads: how many.
    """

    def __init__(self, seed: int, x: Floats, won: Floats, test: Floats, chance: Floats, heads: int) -> None:
        self.seed, self.x, self.won, self.test, self.chance, self.heads = seed, x, won, test, chance, heads
        self.size = len(x)
        self.places_of = _reduced(x)

    def learn(self, bought: Places) -> tuple[Floats, float]:
        """Fit a head for the accuracy, and the others for their doubt."""
        labelled = self.x[bought] * self.won[bought, None]
        ridge = best_ridge(labelled, self.seed)
        rng = np.random.default_rng([self.seed, len(bought)])
        weights = [np.ones(len(bought)), *(rng.exponential(size=(self.heads, len(bought))))]
        heads = np.stack([fit(labelled, weight, ridge) for weight in weights], axis=1)  # (F, 1 + K)
        right = accuracy(self.test @ heads[:, 0])
        return self.x @ heads[:, 1:], float((right * self.chance + (1 - right) * (1 - self.chance)).mean())


def ukp(seed: int) -> Linear:
    """UKPConvArg1 with three debates held out."""
    data = real("ukp")
    pool, test = split_by_prompt(range(len(data.x)), [str(one) for one in data.debate], held_out=3 / 16, seed=seed)
    rng = np.random.default_rng([seed, 2])
    drawn = rng.permutation(pool)[: POOL["ukp"]]
    won = rng.choice([-1.0, 1.0], size=len(drawn))  # chosen stands first in the data, which a selection must not see
    return Linear(seed, data.x[drawn] * won[:, None], won, data.x[test], np.ones(len(test)), HEADS["ukp"])


def demo_worlds(seed: int) -> tuple[World, World, Floats]:
    """Give pool and held-out comparisons of the demo world, and the labels of the pool: 1 where the first won, else -1."""
    from rm_truth import sigmoid, world

    from demo_world.base import cache_root, source_key

    folder = cache_root() / f"truth-{source_key(('base', 'corpus', 'sampling'))}"
    folder.mkdir(parents=True, exist_ok=True)
    pool, held_out = world(folder, "train", 2 * seed, POOL["demo"]), world(folder, "held out", 4, HELD_OUT)
    won = np.random.default_rng([seed, 2]).random(len(pool.odds)) < sigmoid(pool.odds)
    return pool, held_out, np.where(won, 1.0, -1.0)


class Words(Linear):
    """The demo world by the words of its answers."""

    pool: World
    held_out: World


@cache
def demo_words(seed: int) -> Words:
    """Count the words of the demo world's answers."""
    from rm_truth import sigmoid, words
    from sklearn.feature_extraction.text import CountVectorizer

    pool, held_out, won = demo_worlds(seed)
    counts = CountVectorizer(analyzer=lambda both: words(*both), max_features=100)
    counts.fit([(prompt, answer) for prompt, *answers in pool.texts for answer in answers])

    def features(texts: Sequence[tuple[str, str, str]]) -> Floats:
        first, second = (counts.transform([(row[0], row[place]) for row in texts]) for place in (1, 2))
        return np.asarray((first - second).toarray(), dtype=np.float64)

    x = features(pool.texts)
    scale = x.std(axis=0).clip(1e-9)
    made = Words(seed, x / scale, won, features(held_out.texts) / scale, sigmoid(held_out.odds), HEADS["words"])
    made.pool, made.held_out = pool, held_out
    return made


class Tuned:
    """The demo world's base model, all of it trained anew in each round."""

    def __init__(self, seed: int) -> None:
        from rm_truth import sigmoid

        self.pool, self.held_out, won = demo_worlds(seed)
        rows = zip(self.pool.texts, won, strict=True)
        self.pairs = [Pair(p, *((a, b) if first > 0 else (b, a))) for (p, a, b), first in rows]
        self.p, self.seed, self.size = sigmoid(self.held_out.odds), seed, len(self.pairs)
        self.places_of = _reduced(_words([a for _, a, _ in self.pool.texts], [b for _, _, b in self.pool.texts]))

    def learn(self, bought: Places) -> tuple[Floats, float]:
        """Tune the backbone with all heads."""
        import lightning as L
        from rm_truth import RECIPE, World, _scored

        from demo_world.base import base_model
        from rm_lightning.data import PreferenceData
        from rm_lightning.module import RewardModel

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pairs.jsonl"
            write_pairs(file, (self.pairs[place] for place in bought))
            L.seed_everything(self.seed, verbose=False)
            backbone = str(base_model(0))
            data = PreferenceData(
                str(file), backbone=backbone, validation=0, test=0, seed=self.seed, cache=Path(folder) / "tokens"
            )
            model = RewardModel(backbone, members=HEADS["demo"], **RECIPE)
            trainer = L.Trainer(
                max_epochs=3, accelerator="cpu", precision="32-true", gradient_clip_val=1.0, logger=False,
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(model, data)
            both = World(self.pool.texts + self.held_out.texts, np.empty(0))
            found = _scored(model.eval(), data, both)  # (pool + held out, K)
        difference, p = found[self.size :].mean(axis=1), self.p
        right = np.where(difference == 0, 0.5, np.where(difference > 0, p, 1 - p))
        return found[: self.size], float(right.mean())


def _words(first: Sequence[str], second: Sequence[str]) -> Floats:
    """Differences of the words' counts, (C, W)."""
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(min_df=20, token_pattern=r"\S+").fit([*first, *second])
    return np.asarray((counts.transform(first) - counts.transform(second)).toarray(), dtype=np.float64)


def _reduced(x: Floats) -> Floats:
    """Give the first 32 principal coordinates, (C, 32)."""
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return np.asarray((u * s)[:, :32])


LEARNERS: dict[str, Callable[[int], Learner]] = {"demo": Tuned, "words": demo_words, "ukp": ukp}


def choose(
    strategy: str, scores: Floats, bought: Places, count: int, places_of: Floats, rng: np.random.Generator
) -> Places:
    """Choose the next comparisons to buy.

    Args:
        strategy: one of `STRATEGIES`.
        scores: differences of scores over the pool by each head, (C, K).
        bought: what has its label already.
        count: how many to choose.
        places_of: features that say which comparisons are alike, (C, D).
        rng: draws what is left to chance.

    Returns:
        places in the pool, (count,).
    """
    left = np.setdiff1d(np.arange(len(scores)), bought)
    chance = rng.permutation(left)
    if strategy == "random":
        return chance[:count]
    # p = sigmoid(mean difference) is nearest to one half where the difference is smallest
    doubt = -np.abs(scores.mean(axis=1)) if strategy == "uncertain" else scores.std(axis=1, ddof=1)
    if strategy != "mixed":
        return left[np.argsort(-doubt[left], kind="stable")][:count]
    drawn = chance[: round(RANDOM_SHARE * count)]
    others = np.setdiff1d(left, drawn)
    wanted = count - len(drawn)
    shortlist = others[np.argsort(-doubt[others], kind="stable")][: SHORTLIST * wanted]
    return np.concatenate([drawn, farthest(places_of, drawn, shortlist, wanted)])


def farthest(places_of: Floats, start: Places, shortlist: Places, count: int) -> Places:
    """Take, one after the other, what lies farthest from all that is taken; a comparison and its mirror image are alike."""

    def apart(one: int) -> Floats:
        here, there = places_of[shortlist], places_of[one]
        return np.asarray(np.minimum(((here - there) ** 2).sum(axis=1), ((here + there) ** 2).sum(axis=1)))

    distance = np.min([apart(int(one)) for one in start], axis=0)
    taken = []
    for _ in range(count):
        best = int(distance.argmax())
        taken.append(int(shortlist[best]))
        distance = np.minimum(distance, apart(taken[-1]))
    return np.array(taken, dtype=np.int64)


def run(data: str, strategy: str, seed: int, budgets: Sequence[int]) -> Row:
    """Buy labels round by round by one strategy."""
    learner = LEARNERS[data](seed)
    bought = np.random.default_rng([seed, 0]).permutation(learner.size)[: budgets[0]].astype(np.int64)
    found = []
    for number, budget in enumerate(budgets):
        scores, right = learner.learn(bought)
        found.append(right)
        if number + 1 < len(budgets):
            rng = np.random.default_rng([seed, 1, number])
            more = choose(strategy, scores, bought, budgets[number + 1] - budget, learner.places_of, rng)
            bought = np.concatenate([bought, more])
    return Row(data, strategy, seed, list(budgets), found)


# report


def labels_needed(row: Row, target: float) -> float:
    """Say how many labels it took to reach an accuracy, between budgets by their logarithm, on the curve made to rise."""
    from sklearn.isotonic import IsotonicRegression

    logs = np.log(row.budgets)
    curve = IsotonicRegression().fit_transform(logs, row.accuracies)
    reached = int(np.argmax(curve >= target - 1e-12))
    if reached == 0:
        return float(row.budgets[0])
    share = (target - curve[reached - 1]) / (curve[reached] - curve[reached - 1])
    return float(np.exp(logs[reached - 1] + share * (logs[reached] - logs[reached - 1])))


def highest(row: Row) -> float:
    """Give the end of the curve made to rise."""
    from sklearn.isotonic import IsotonicRegression

    return float(IsotonicRegression().fit_transform(np.log(row.budgets), row.accuracies)[-1])


def paired(values: Sequence[float]) -> tuple[float, float, float]:
    """Give the mean of values, one a seed, and its 95% interval (t)."""
    from scipy.stats import t

    mean = statistics.mean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def report(rows: Sequence[Row]) -> None:
    """Print accuracies over seeds, and each strategy against chance, paired by seed."""
    for data in dict.fromkeys(row.data for row in rows):
        runs = {(row.strategy, row.seed): row for row in rows if row.data == data}
        seeds = sorted({seed for _, seed in runs})
        budgets = next(iter(runs.values())).budgets
        print(f"\n{data}, accuracy, mean of {len(seeds)} seeds\n")
        print(f"| labels | {' | '.join(map(str, budgets))} |\n|---|{'---|' * len(budgets)}")
        for name in STRATEGIES:
            table = np.array([runs[name, seed].accuracies for seed in seeds if (name, seed) in runs])
            print(f"| {name} | {' | '.join(f'{value:.3f}' for value in table.mean(axis=0))} |")
        print(
            "\n| against random | accuracy, mean over budgets after the first (95%) | at the last | labels needed, ratio (95%) |"
        )
        print("|---|---|---|---|")
        for name in STRATEGIES[1:]:
            both = [seed for seed in seeds if (name, seed) in runs and ("random", seed) in runs]
            pairs = [(runs[name, seed], runs["random", seed]) for seed in both]
            apart = [np.subtract(one.accuracies, other.accuracies) for one, other in pairs]
            over, last = paired([float(d[1:].mean()) for d in apart]), paired([float(d[-1]) for d in apart])
            ratios = []
            for one, other in pairs:
                target = min(highest(one), highest(other))
                ratios.append(math.log(labels_needed(one, target) / labels_needed(other, target)))
            ratio = [math.exp(value) for value in paired(ratios)]
            cells = [f"{v:+.3f} ({low:+.3f} to {high:+.3f})" for v, low, high in (over, last)]
            print(f"| {name} | {cells[0]} | {cells[1]} | {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f}) |")


def main(
    data: str = "demo",
    seeds: int = 5,
    results: Path = Path("runs/selection.jsonl"),
    strategies: str = ",".join(STRATEGIES),
    *,
    only_report: bool = typer.Option(False, "--report"),  # noqa: FBT003
) -> None:
    """Run what has no line in the results yet, then print the tables of all that is there."""
    from rm_lightning.quiet import quiet

    if data not in LEARNERS:
        raise SystemExit(f"--data: expected one of {', '.join(LEARNERS)}, found {data!r}")
    quiet()
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = [Row(**row) for _, row in read_jsonl(results)] if results.exists() else []
    done = {row[:3] for row in rows}
    for seed in range(0 if only_report else seeds):
        for strategy in strategies.split(","):
            if (data, strategy, seed) in done:
                continue
            rows.append(run(data, strategy, seed, BUDGETS[data]))
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[-1]._asdict()) + "\n")
    report(rows)


if __name__ == "__main__":
    typer.run(main)
