"""The reward model where the truth is known: how near it comes, and what soft labels, ties, margins and spread are worth.

    OMP_NUM_THREADS=2 python benchmarks/rm_truth.py --seeds 3                 # every table, as Markdown
    python benchmarks/rm_truth.py --only votes --only margins --quick         # a smoke run

The demo world's base model answers the world's prompts; whoever compares two answers prefers the first with probability
sigmoid((gold of the first - gold of the second) / 0.7), the temperature of the demo's honest annotators (Bradley and Terry
1952), unless a table says otherwise. Training prompts and held-out prompts are different ones. Answers are drawn once and kept;
a seed stands for other training pairs, labels, order and head. Settings were chosen with seeds 3 and 4, on other held-out pairs.

Accuracy is the expected one, the mean of P(the answer that the model prefers is chosen), which has no noise of labels; best
attainable is that of the gold score. Log-loss and calibration error (ten bins of equally many) are against the true
probability; the error against labels drawn from it stands beside, with what chance alone would make of it.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lsplugin.console import say
from lsplugin.files import read_jsonl, write_jsonl
from lsplugin.preferences import Pair, write_pairs
from rm_lightning.statistics import calibrated_errors, calibration_error, equal_mass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Floats = npt.NDArray[np.float64]
Features = Callable[[str, str], list[str]]

TEMPERATURE = 0.7
CHUNK = 1000
"""Twos of answers that are drawn and kept together."""
HELD_OUT = 2100
CREW = (0.4, 0.7, 0.7, 3.0, 3.0)
"""Temperatures of the people who vote: two of five are noisy."""
TIES = 1.25
"""Davidson's v that makes about 30% of these comparisons ties."""
STRENGTHS = (1 / 3, 2 / 3, 1.0)
"""Margins of slightly, clearly and much better, as `lsplugin.judgement` gives them."""
BANDS = (1.2, 2.8)
"""Noisy differences from which a judgement is clearly and much better: about a third of the judgements each."""
RECIPE: dict[str, Any] = {"learning_rate": 5e-4}
RIDGES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
SEEDS = 5
"""Later seeds label the training pairs of earlier ones anew."""
TUNED = (3, 4)
"""Seeds that the recipe was chosen with."""
EPOCHS = 3
BATCH = 16


class World(NamedTuple):
    """Twos of answers: (prompt, first, second) each, and the log odds that the first is preferred, (C,)."""

    texts: list[tuple[str, str, str]]
    odds: Floats


class Case(NamedTuple):
    """A way to label a world and to learn from it.

    Attributes:
        label: makes pairs, with random numbers that are the same for all cases of a seed.
        model: settings of RewardModel that differ from `RECIPE`.
        data: settings of PreferenceData.
        pairs: how many twos of answers are labelled.
        epochs: passes over them.
    """

    label: Callable[[World, np.random.Generator], list[Pair]]
    model: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    data: dict[str, Any] = {}  # noqa: RUF012
    pairs: int = 2000
    epochs: int = EPOCHS


def world(folder: Path, part: str, first: int, count: int) -> World:
    """Give `count` twos of answers, from a chunk on; chunks are drawn from the base model once, and kept."""
    from demo_world.gold import score

    chunks = [row for number in range(-(-count // CHUNK)) for row in _chunk(folder, part, first + number)][:count]
    texts = [row for row in chunks if row[1].strip() != row[2].strip() and row[1].strip() and row[2].strip()]
    gold = np.array([score(prompt, one) - score(prompt, other) for prompt, one, other in texts])
    return World(texts, gold / TEMPERATURE)


def _chunk(folder: Path, part: str, number: int) -> list[tuple[str, str, str]]:
    from demo_world.base import base_model
    from demo_world.corpus import prompts, split
    from demo_world.sampling import sample_answers

    path = folder / f"{part}-{number}-{CHUNK}.jsonl"
    if not path.is_file():
        rng = random.Random(f"{part} {number}")
        drawn = rng.choices(split(prompts(0))[part == "held out"], k=CHUNK)
        twice = [text for text in drawn for _ in range(2)]
        answers = sample_answers(base_model(0), twice, seed=rng.randrange(2**31), batch=500)
        write_jsonl(path, ({"task": task} for task in zip(drawn, answers[::2], answers[1::2], strict=True)))
    return [(str(row["task"][0]), str(row["task"][1]), str(row["task"][2])) for _, row in read_jsonl(path)]


def sigmoid(odds: npt.ArrayLike) -> Floats:
    """1 / (1 + exp(-odds)), which does not overflow."""
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(odds) / 2)))


# labels


def _pair(texts: tuple[str, str, str], first: bool, **more: Any) -> Pair:  # noqa: ANN401, FBT001 - Pair's own fields; who won
    prompt, one, other = texts
    return Pair(prompt, one, other, **more) if first else Pair(prompt, other, one, **more)


def single(made: World, rng: np.random.Generator) -> list[Pair]:
    """One noisy judgement of each."""
    won = rng.random(len(made.odds)) < sigmoid(made.odds)
    return [_pair(*row) for row in zip(made.texts, won, strict=True)]


def truth(made: World, _: np.random.Generator) -> list[Pair]:
    """Take the true probability of each: labels without any noise."""
    rows = zip(made.texts, sigmoid(made.odds).tolist(), strict=True)
    return [_pair(texts, p >= 0.5, probability=max(p, 1 - p)) for texts, p in rows]


def votes(made: World, rng: np.random.Generator) -> list[tuple[int, int]]:
    """One to five people of `CREW` vote on each: (votes, votes for the first)."""
    cast = []
    for gold in made.odds * TEMPERATURE:
        who = rng.permutation(CREW)[: rng.integers(1, len(CREW) + 1)]
        cast.append((len(who), int((rng.random(len(who)) < sigmoid(gold / who)).sum())))
    return cast


def majority(made: World, rng: np.random.Generator) -> list[Pair]:
    """Take what most said; nothing where as many said the one as the other."""
    rows = zip(made.texts, votes(made, rng), strict=True)
    return [_pair(texts, 2 * first > count) for texts, (count, first) in rows if 2 * first != count]


def shares(made: World, rng: np.random.Generator, *, weigh: bool) -> list[Pair]:
    """Take the share of the votes, and maybe their number as the weight."""
    pairs = []
    for texts, (count, first) in zip(made.texts, votes(made, rng), strict=True):
        more = {"weight": float(count)} if weigh else {}
        pairs.append(_pair(texts, 2 * first >= count, probability=max(first, count - first) / count, **more))
    return pairs


def each_vote(made: World, rng: np.random.Generator) -> list[Pair]:
    """Every vote as a pair of its own."""
    cast = votes(made, rng)
    return [_pair(t, place < first) for t, (n, first) in zip(made.texts, cast, strict=True) for place in range(n)]


def davidson(made: World, rng: np.random.Generator, *, keep: bool) -> list[Pair]:
    """Wins and ties after Davidson (1970); ties have the probability one half, or are left out."""
    # P(win) = e^(d/2) / (e^(d/2) + e^(-d/2) + v), P(tie) = v / (e^(d/2) + e^(-d/2) + v)
    up, down = np.exp(made.odds / 2), np.exp(-made.odds / 2)
    drawn = rng.random(len(up)) * (up + down + TIES)
    pairs = []
    for texts, at, win, loss in zip(made.texts, drawn, up, down, strict=True):
        if at < win + loss:
            pairs.append(_pair(texts, bool(at < win)))
        elif keep:
            pairs.append(_pair(texts, True, probability=0.5))  # noqa: FBT003
    return pairs


def strengths(made: World, rng: np.random.Generator, *, chances: tuple[float, ...] = ()) -> list[Pair]:
    """How much better, from the size of a noisy difference: as a margin, or as the probability that stands for it."""
    felt = made.odds + rng.logistic(size=len(made.odds))  # its sign is a Bradley-Terry judgement
    pairs = []
    for texts, difference, band in zip(made.texts, felt, np.digitize(np.abs(felt), BANDS), strict=True):
        more = {"probability": chances[band]} if chances else {"margin": STRENGTHS[band]}
        pairs.append(_pair(texts, bool(difference > 0), **more))
    return pairs


# learning


def differences(case: Case, train: World, held_out: World, seed: int) -> Floats:
    """Label, fit with the best epoch kept, as `fit` does, and score held-out twos: score of the first - of the second, (C, K)."""
    import lightning as L

    from demo_world.base import base_model
    from rm_lightning.callbacks import Best
    from rm_lightning.data import PreferenceData
    from rm_lightning.finish import weights_of
    from rm_lightning.module import RewardModel

    backbone = str(base_model(0))
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "pairs.jsonl"
        write_pairs(file, case.label(train, np.random.default_rng(seed)))
        L.seed_everything(seed, verbose=False)
        model = RewardModel(backbone, **{**RECIPE, **case.model})
        data: dict[str, Any] = {"batch_size": BATCH, "test": 0.0, "seed": seed, **case.data}
        module = PreferenceData(str(file), backbone=backbone, cache=Path(temporary) / "tokens", **data)
        best = Best(dirpath=temporary, monitor="val/log_loss", save_weights_only=True)
        trainer = L.Trainer(
            max_epochs=case.epochs, accelerator="cpu", precision="32-true", gradient_clip_val=1.0, logger=False,
            callbacks=[best], enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(model, module)
        model.load_state_dict(weights_of(best.best_model_path))
    return _scored(model.eval(), module, held_out)


@torch.inference_mode()
def _scored(model: Any, data: Any, held_out: World) -> Floats:  # noqa: ANN401 - imported late
    from rm_lightning.packing import pack

    trees = data.encoder.trees([(prompt, [one, other]) for prompt, one, other in held_out.texts])
    pad = int(data.encoder.tokenizer.pad_token_id)
    order = sorted(range(len(trees)), key=lambda place: len(trees[place]))
    found = np.zeros((len(trees), model.hparams["members"]))
    for at in range(0, len(order), 64):
        places = order[at : at + 64]
        scores = model(pack([trees[place] for place in places], pad=pad))  # (2C, K)
        found[places] = (scores[0::2] - scores[1::2]).numpy()
    return found


# linear rewards, on which losses compare in seconds


def words(prompt: str, answer: str) -> list[str]:
    """Give the words of an answer and its twos of neighbours, where the aspect asked about is called so."""
    from demo_world.corpus import question

    single = answer.replace(question(prompt)[1], "ASKED").split()
    return [*single, *(f"{one} {other}" for one, other in pairwise(single))]


def points(prompt: str, answer: str) -> list[str]:
    """Give what the gold score counts in an answer, each as often as it counts."""
    from demo_world.gold import breakdown

    return [name for name, count in breakdown(prompt, answer).items() for _ in range(count)]


def linear_differences(case: Case, train: World, held_out: World, seed: int, count: Features) -> Floats:
    """Fit a linear reward of counted features with the same labels and loss, and score held-out twos: (C, 1).

    The ridge is the one with the least loss on a tenth of the prompts.
    """
    from rm_lightning.loss import preference_loss, weighted_mean

    pairs = case.label(train, np.random.default_rng(seed))
    rows = [(str(pair.prompt), pair.chosen, pair.rejected) for pair in pairs]
    known = {
        name: place
        for place, name in enumerate(dict.fromkeys(n for p, *both in rows for a in both for n in count(p, a)))
    }
    x, unseen = (_counted(some, known, count) for some in (rows, held_out.texts))  # (C, F)
    ones = torch.ones(len(pairs))
    given = {name: torch.tensor([float("nan") if (v := getattr(pair, name)) is None else v for pair in pairs])
             for name in ("probability", "weight", "margin")}  # fmt: skip
    probability, weight = (given[name].where(~given[name].isnan(), ones) for name in ("probability", "weight"))
    margin = case.model.get("margin", 1.0) * given["margin"].nan_to_num(0.0)
    prompts = sorted({prompt for prompt, *_ in rows})
    out = set(np.random.default_rng(seed).choice(prompts, len(prompts) // 10, replace=False).tolist())
    kept = torch.tensor([prompt not in out for prompt, *_ in rows])

    def fitted(ridge: float) -> tuple[float, Floats]:
        weights = torch.zeros(x.shape[1], requires_grad=True)
        log_tie = torch.zeros(1, requires_grad=True) if case.model.get("ties") == "davidson" else None
        learning = [weights] if log_tie is None else [weights, log_tie]
        optimizer = torch.optim.LBFGS(learning, max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            cost = preference_loss(
                x[kept] @ weights, probability=probability[kept], margin=margin[kept], log_tie=log_tie
            )
            loss = weighted_mean(cost, weight[kept]) + ridge / 2 * weights.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            loss = preference_loss(x[~kept] @ weights, probability=probability[~kept], log_tie=log_tie)
            return float(weighted_mean(loss, weight[~kept])), (unseen @ weights)[:, None].double().numpy()

    return min((fitted(ridge) for ridge in RIDGES), key=lambda found: found[0])[1]


def _counted(rows: Sequence[tuple[str, str, str]], known: dict[str, int], count: Features) -> Tensor:
    """Count features of the first answer minus those of the second: (C, F)."""
    found = torch.zeros(len(rows), len(known))
    for place, (prompt, *both) in enumerate(rows):
        for sign, answer in zip((1, -1), both, strict=True):
            for name in count(prompt, answer):
                if name in known:
                    found[place, known[name]] += sign
    return found


# measures


def log_loss(difference: Floats, p: Floats) -> float:
    """Mean cost in nats of the model's probability where the first is preferred with probability p; (C,) each."""
    # -p log sigmoid(d) - (1 - p) log sigmoid(-d) = log(1 + e^d) - p d
    return float((np.logaddexp(0, difference) - p * difference).mean())


def ece(difference: Floats, observed: Floats) -> float:
    """Calibration error of the model's probability, in ten bins of equally many; (C,) each."""
    predicted = torch.from_numpy(sigmoid(difference))
    return calibration_error(predicted, torch.from_numpy(observed), equal_mass(predicted, 10))


def measured(difference: Floats, p: Floats, seed: int) -> dict[str, float]:
    """Hold the model's differences against the true probability that the first is preferred; (C,) each."""
    labels = (np.random.default_rng([seed, 1]).random(len(p)) < p).astype(float)
    predicted = torch.from_numpy(sigmoid(difference))
    scale = min(np.exp(np.linspace(-2.5, 1.5, 161)), key=lambda factor: log_loss(factor * difference, p))
    best = float(np.maximum(p, 1 - p).mean())
    accuracy = float(np.where(difference == 0, 0.5, np.where(difference > 0, p, 1 - p)).mean())
    return {
        "accuracy": accuracy,
        "best attainable": best,
        "ratio": accuracy / best,
        "log-loss": log_loss(difference, p),
        "lowest log-loss": log_loss(np.log(p / (1 - p)), p),
        "log-loss, rescaled": log_loss(scale * difference, p),
        "calibration error": ece(difference, p),
        "against labels": ece(difference, labels),
        "of that by chance": float(calibrated_errors(predicted, equal_mass(predicted, 10), draws=100).mean()),
    }


def spread_measures(found: Floats, made: World) -> dict[str, float]:
    """Ask whether the spread of K heads says where they are wrong; differences (C, K)."""
    middle, spread = found.mean(axis=1), found.std(axis=1, ddof=1)
    p, error = sigmoid(made.odds), np.abs(middle - made.odds)
    told = {"correlation with the error": float(np.corrcoef(spread, error)[0, 1])}
    for name, places in zip(("low", "middle", "high"), np.array_split(np.argsort(spread), 3), strict=True):
        right = np.where(middle > 0, p, 1 - p)[places].mean()
        told[f"accuracy, {name} spread"] = float(right)
        told[f"of the attainable, {name}"] = float(right / np.maximum(p, 1 - p)[places].mean())
    return told


# tables


def cases() -> dict[str, dict[str, Case]]:
    """Everything that is compared: {table: {row: case}}, the row to compare with first."""
    few: dict[str, Any] = {"pairs": 1000}
    return {
        "learn": {"2,000 noisy labels": Case(single)},
        "causes": {
            "2,000 noisy labels": Case(single),
            "2,000 true probabilities": Case(truth),
            "10,000 noisy labels": Case(single, pairs=10_000),
        },
        "votes": {
            "majority": Case(majority, **few),
            "share": Case(lambda made, rng: shares(made, rng, weigh=False), **few),
            "share, weighed by votes": Case(lambda made, rng: shares(made, rng, weigh=True), **few),
            "each vote a pair, balance prompts": Case(each_vote, **few),
            "each vote a pair, balance pairs": Case(each_vote, data={"balance": "pairs"}, **few),
        },
        "ties": {
            "ties left out": Case(lambda made, rng: davidson(made, rng, keep=False), **few),
            "half": Case(lambda made, rng: davidson(made, rng, keep=True), **few),
            "davidson": Case(lambda made, rng: davidson(made, rng, keep=True), {"ties": "davidson"}, **few),
        },
        "margins": {
            **{f"margin {factor:g}": Case(strengths, {"margin": factor}, **few) for factor in (0.0, 0.3, 1.0)},
            "as probability": Case(lambda made, rng: strengths(made, rng, chances=(0.6, 0.8, 0.95)), **few),
        },
        "spread": {"4 members": Case(single, {"members": 4}, **few)},
    }


COLUMNS = {
    "learn": ("accuracy", "best attainable", "ratio", "log-loss", "lowest log-loss", "calibration error", "against labels",
              "of that by chance"),
    "causes": ("accuracy", "ratio", "log-loss", "lowest log-loss", "calibration error"),
}  # fmt: skip
COMPARED = ("accuracy", "ratio", "log-loss", "log-loss, rescaled", "calibration error")


def row_of(table: str, case: Case, seed: int, folder: Path, count: int, reward: str) -> dict[str, float]:
    """Fit and measure one case with one seed."""
    train = world(folder, "train", 2 * (seed % SEEDS), min(case.pairs, count))
    held_out = world(folder, "held out", 2 if seed % SEEDS in TUNED else 4, min(HELD_OUT, count))
    if reward == "model":
        found = differences(case, train, held_out, seed)
    else:
        found = linear_differences(case, train, held_out, seed, {"words": words, "points": points}[reward])
    if table == "spread":
        return spread_measures(found, held_out)
    p = sigmoid(held_out.odds)
    if table == "votes":  # what the next vote would be
        p = np.mean([sigmoid(held_out.odds * TEMPERATURE / temperature) for temperature in CREW], axis=0)
    return measured(found.mean(axis=1), p, seed)


def lines_of(table: str, rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """Give a table: means over seeds and their standard deviation, then the difference from the first row and its own."""
    first = next(iter(rows.values()))
    columns = COLUMNS.get(table) or (tuple(first[0]) if table == "spread" else COMPARED)
    lines = [f"{table}:", "", f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name, found in rows.items():
        cells = []
        for column in columns:
            values = np.array([row[column] for row in found])
            cell = spread(values)
            if found is not first:
                cell += f"; {spread(values - [row[column] for row in first], sign='+')}"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def spread(values: Floats, *, sign: str = "") -> str:
    """Give the mean and, of several, the standard deviation."""
    middle = f"{values.mean():{sign}.3f}"
    return f"{middle} ± {values.std(ddof=1):.3f}" if len(values) > 1 else middle


def main(
    seeds: int = 3,
    first: int = 0,
    only: list[str] | None = None,
    reward: str = "model",
    *,
    quick: bool = False,
) -> None:
    """Print the tables.

    Args:
        seeds: of each row; causes take one.
        first: the first seed; settings were chosen with 3 and 4.
        only: learn, causes, votes, ties, margins, spread; all when not given.
        reward: model; or a linear one of `words` (and the aspect asked about) or of the gold score's own `points`, which fits
            in seconds, so that many seeds can compare losses. It has no members and knows nothing of batches.
        quick: 200 pairs each, to see that it runs.
    """
    from demo_world.base import cache_root, source_key
    from rm_lightning.quiet import quiet

    quiet()
    folder = cache_root() / f"truth-{source_key(('base', 'corpus', 'sampling'))}"
    folder.mkdir(parents=True, exist_ok=True)
    for table, compared in cases().items():
        if (only and table not in only) or (table == "spread" and reward != "model"):
            continue
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in compared}
        for seed in range(first, first + (1 if table == "causes" else seeds)):
            for name, case in compared.items():
                rows[name].append(row_of(table, case, seed, folder, 200 if quick else 10**6, reward))
                say(f"{table}, {name}, seed {seed}: {rows[name][-1]}")
        print("\n".join(lines_of(table, rows)), flush=True)


if __name__ == "__main__":
    import typer

    typer.run(main)
