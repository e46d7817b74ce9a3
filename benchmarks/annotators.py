"""Simulated annotators with known faults among honest ones: how soon they are flagged, and which aggregation sees past them.

    python benchmarks/annotators.py            # both tables, as Markdown
    python benchmarks/annotators.py --no-labels --crews 50

Answers have a quality, N(0, 1), so two of them differ by N(0, sqrt 2), and a length. An honest annotator prefers the first with
probability sigmoid(sharpness x difference + taste x log ratio of lengths + lean x side); people differ in all of these, and in
their pace of reading. What the faulty do is in `choose`; a half-faulty one does so with every second answer, else is honest.

Flags. Twelve people judge in rounds of four items, three people an item, so everybody has as many labels; 5% of the items are
gold. After every 10 labels of each, everything that the report asks is asked, in the report's way: the norms of a person are the
pooled shares of the others who are not flagged at that look (found in rounds, starting from everybody; the defaults below 50
trials; one half for left, as sides are balanced), and agreement is with the majority of those others on the shared items.
`check` holds this against `lsplugin.summary` itself. Somebody counts as flagged once any look has flagged them.

Labels. Ten people judge some 1,000 items, one, three or five of them an item, drawn anew for each. Accuracy is against the sign
of the difference in quality; log-loss and calibration error are against the share of honest people who prefer the first. Nothing
has a smaller log-loss than that share itself; it is not always right, as most honest people like length. Probabilities are kept
within 0.01 and 0.99.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import typer

from lsplugin import flags, summary
from lsplugin.aggregate import METHODS, probabilities
from lsplugin.console import progress
from lsplugin.labels import USED, Labels
from lsplugin.votes import Votes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int_]
    Booleans = npt.NDArray[np.bool_]

WIDE = "all honest, differing more"
KINDS = ("honest", "random clicker", "left-leaner", "longest-picker", "hasty")
HONEST, RANDOM, LEFT, LONGEST, HASTY = range(5)
ROUNDS, EVERY, SEATS, TABLES = 1000, 10, 3, 4
CREW = SEATS * TABLES
ASKED = ("one-sided", "longest", "too fast", "random", "misses gold")


@dataclass(frozen=True)
class Crew:
    """People, (people,) each.

    Attributes:
        kind: number in `KINDS`.
        faulty: share of the answers in which the fault shows.
        sharpness: what a difference in quality of 1 is to them, in log odds.
        lean: to the left, in log odds.
        taste: what an answer e times as long is to them, in log odds.
        pace: how many times as long as usual they read.
    """

    kind: Integers
    faulty: float
    sharpness: Floats
    lean: Floats
    taste: Floats
    pace: Floats

    @classmethod
    def drawn(cls, rng: np.random.Generator, kinds: Sequence[int], faulty: float = 1.0, *, wide: bool = False) -> Crew:
        """Draw people: sharpness 0.7 to 2, up to 4 points of lean, a taste of 0 to 0.8, a pace within some 50% of each other.

        Args:
            rng: what is drawn from.
            kinds: of each of them.
            faulty: share of the answers in which a fault shows.
            wide: they differ more: sharpness 0.5 to 2.5, 7 points, a taste of up to 1.6, a pace within some 60%.
        """
        count = len(kinds)
        blunt, sharp, leaning, tasting, pacing = (0.5, 2.5, 0.07, 1.6, 0.3) if wide else (0.7, 2.0, 0.04, 0.8, 0.25)
        sharpness = rng.uniform(blunt, sharp, count)
        points = rng.uniform(-leaning, leaning, count)
        # the mean of sigmoid(b + x), x ~ N(0, v), has the slope 1 / (4 sqrt(1 + pi v / 8)) in b (MacKay 1992)
        lean = 4 * points * np.sqrt(1 + np.pi / 8 * 2 * sharpness**2)
        pace = np.exp(rng.normal(0, pacing, count))
        return cls(np.array(kinds), faulty, sharpness, lean, rng.uniform(0, tasting, count), pace)


@dataclass(frozen=True)
class Items:
    """Two answers each, any shape.

    Attributes:
        difference: in quality, of the first from the second.
        longer: log of the ratio of their lengths.
        characters: of prompt and answers.
        side: 1 where the first stands left, else -1.
        gold: whether the better one is known; then it is plain.
    """

    difference: Floats
    longer: Floats
    characters: Floats
    side: Integers
    gold: Booleans

    def at(self, index: Any) -> Items:  # noqa: ANN401 - whatever numpy takes
        """Give some of them."""
        return Items(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def lengths(rng: np.random.Generator, shape: tuple[int, ...], middle: float = 300) -> Floats:
    """Draw lengths in characters."""
    return np.exp(rng.normal(np.log(middle), 0.6, shape))


def choose(rng: np.random.Generator, crew: Crew, who: Integers, items: Items) -> tuple[Integers, Floats]:
    """Give what people choose, 1 for the first and -1 for the second, and in how many seconds; `who` has the items' shape."""
    odds = crew.sharpness[who] * items.difference + crew.taste[who] * items.longer + crew.lean[who] * items.side
    honest = np.where(rng.random(who.shape) < sigmoid(odds), 1, -1)
    shows = np.where(rng.random(who.shape) < crew.faulty, crew.kind[who], HONEST)
    coin = rng.choice([-1, 1], who.shape)
    left = np.where(rng.random(who.shape) < 0.8, items.side, honest)
    longest = np.where(rng.random(who.shape) < 0.95, np.sign(items.longer).astype(int), honest)
    reading = items.characters / 25 * crew.pace[who] * np.exp(rng.normal(0, 0.5, who.shape))
    seconds = np.where(shows == HASTY, rng.uniform(0.5, 2, who.shape), reading)
    return np.choose(shows, [honest, coin, left, longest, coin]), seconds


def sigmoid(x: Floats) -> Floats:
    """Give a probability for log odds."""
    return np.asarray(0.5 + 0.5 * np.tanh(x / 2))


# flags


@dataclass(frozen=True)
class Sitting:
    """What a crew said in all rounds.

    Attributes:
        seat: who sat where, (rounds, tables, seats).
        choice: what they chose, the same shape.
        done: of what is asked about each person alone, whether it happened and whether it was a trial; (rounds, people) each.
        items: (rounds, tables, seats); the same along the last.
        seconds: (rounds, tables, seats).
    """

    seat: Integers
    choice: Integers
    done: dict[str, tuple[Booleans, Booleans]]
    items: Items
    seconds: Floats


def by_person(seat: Integers, values: Booleans) -> Booleans:
    """Reorder (rounds, tables, seats) to (rounds, people)."""
    made = np.zeros((len(seat), CREW), bool)
    np.put_along_axis(made, seat.reshape(len(seat), CREW), values.reshape(len(seat), CREW), axis=1)
    return made


def sit(rng: np.random.Generator, crew: Crew, rounds: int = ROUNDS) -> Sitting:
    """Let a crew judge."""
    seat = rng.permuted(np.tile(np.arange(CREW), (rounds, 1)), axis=1).reshape(rounds, TABLES, SEATS)
    side = rng.permuted(np.tile([1, 1, -1, -1], (rounds, 1)), axis=1)
    shape = rounds, TABLES
    gold = rng.random(shape) < 0.05
    difference = np.where(gold, rng.choice([-4.0, 4.0], shape), rng.normal(0, np.sqrt(2), shape))
    one, other = lengths(rng, shape), lengths(rng, shape)
    total = lengths(rng, shape, 100) + one + other
    items = Items(difference, np.log(one / other), total, side, gold).at((..., None))
    items = Items(*(np.broadcast_to(getattr(items, name), seat.shape) for name in items.__dataclass_fields__))
    choice, seconds = choose(rng, crew, seat, items)
    always = np.ones(seat.shape, bool)
    done = {
        "left": (choice == items.side, always),
        "longer": (choice == np.sign(items.longer), always),
        "fast": (seconds < items.characters / flags.READING, always),
        "gold": (items.gold & (choice == np.sign(items.difference)), items.gold),
    }
    mine = {name: (by_person(seat, true), by_person(seat, trial)) for name, (true, trial) in done.items()}
    return Sitting(seat, choice, mine, items, seconds)


def at_looks(values: Booleans) -> Integers:
    """Count up to each look; (rounds, people) to (looks, people)."""
    return np.asarray(values.cumsum(axis=0)[EVERY - 1 :: EVERY])


def agreement(sitting: Sitting, trusted: Booleans) -> tuple[Integers, Integers]:
    """Count agreements with the majority of the trusted others, and shared items; `trusted` and both are (looks, people)."""
    sets, which = np.unique(trusted, axis=0, return_inverse=True)
    agreed, shared = np.zeros(trusted.shape, int), np.zeros(trusted.shape, int)
    for number, trust in enumerate(sets):
        looks = which.reshape(-1) == number
        heard = np.where(trust[sitting.seat], sitting.choice, 0)
        others = np.sign(heard.sum(axis=-1, keepdims=True) - heard)
        shared[looks] = at_looks(by_person(sitting.seat, others != 0))[looks]
        agreed[looks] = at_looks(by_person(sitting.seat, others == sitting.choice))[looks]
    return agreed, shared


def evidence(sitting: Sitting) -> Floats:
    """Give the evidence of each question at each look with the report's norms; (questions, looks, people)."""
    done = {name: (at_looks(true), at_looks(trial)) for name, (true, trial) in sitting.done.items()}
    trusted = np.ones(done["left"][0].shape, bool)
    for _ in range(summary.ROUNDS):
        done["agreed"] = agreement(sitting, trusted)
        norms: Any = flags.Norms(
            longer=norm(done["longer"], trusted, flags.Norms.longer),
            agreement=norm(done["agreed"], trusted, flags.Norms.agreement),
            gold=norm(done["gold"], trusted, flags.Norms.gold),
        )
        found = np.stack(
            [
                flags.one_sided(*done["left"], norms),
                flags.longest(*done["longer"], norms),
                flags.too_fast(*done["fast"]),
                flags.random(*done["agreed"], norms),
                flags.misses_gold(*done["gold"], norms),
            ]
        )
        unflagged = np.all(found < flags.threshold(), axis=0)
        if (unflagged == trusted).all():
            break
        trusted = unflagged
    return found


def norm(counts: tuple[Integers, Integers], trusted: Booleans, default: float) -> Any:  # noqa: ANN401 - Norms holds one share
    """Give the share of the trusted others, the default where they have too few trials; (looks, people)."""
    successes, trials = (np.where(trusted, values, 0) for values in counts)
    successes, trials = (values.sum(axis=1, keepdims=True) - values for values in (successes, trials))
    return np.where(trials >= summary.ENOUGH, successes / np.maximum(trials, 1), default)


def check(seed: int = 0, looks: tuple[int, ...] = (1, 5, 20, 40)) -> None:
    """Hold the evidence at some looks against the report's own, computed from the votes as it reads them."""
    rng = np.random.default_rng(seed)
    sitting = sit(rng, Crew.drawn(rng, [HONEST] * 7 + [RANDOM, LEFT, LONGEST, HASTY, RANDOM]))
    found = evidence(sitting)
    for look in looks:
        upto = slice(look * EVERY)
        items, choice = sitting.items.at(upto), sitting.choice[upto]
        names = np.char.mod("%02d", sitting.seat[upto]).ravel()
        number = np.repeat(np.arange(choice.size // SEATS), SEATS)
        gold = (choice == np.sign(items.difference)).astype(object)
        gold[~items.gold] = None
        flat = {"left": choice * items.side, "longer": choice * np.sign(items.longer), "gold": gold}
        votes = pd.DataFrame({"item": number, "annotator": names, "choice": choice.ravel()})
        votes = votes.assign(**{name: values.ravel() for name, values in flat.items()})
        said = pd.DataFrame({"annotator": names, "outcome": USED})
        said = said.assign(seconds=sitting.seconds[upto].ravel(), characters=items.characters.ravel())
        for person in summary.annotators(Labels(votes, said, Votes(), int(number[-1]) + 1, balanced=True), votes):
            for question in person["questions"]:
                ours = found[ASKED.index(question["flag"]), look - 1, int(person["annotator"])]
                assert abs(ours - question["evidence"]) < 1e-3, (look, person, question, ours)


def flag_table(crews: int) -> list[str]:
    """Measure how many labels it takes until each kind is flagged, and how many honest people ever are."""
    one_each = [RANDOM, LEFT, LONGEST, HASTY]
    worlds: list[tuple[str, list[int], float]] = [
        ("all honest", [], 1.0),
        (WIDE, [], 1.0),
        ("8 honest, one of each fault", one_each, 1.0),
        ("8 honest, one of each, half-faulty", one_each, 0.5),
        ("4 honest, two of each fault", one_each * 2, 1.0),
    ]
    lines = [
        "| crew of 12 | kind | people | ever flagged | labels until then: median | 90th percentile | flagged as |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, (name, faults, faulty) in enumerate(worlds):
        rng = np.random.default_rng(seed)
        kinds = np.array([HONEST] * (CREW - len(faults)) + faults)
        first = []
        with progress(name, total=crews) as advance:
            for _ in range(crews):
                over = (
                    evidence(sit(rng, Crew.drawn(rng, kinds.tolist(), faulty, wide=name == WIDE))) >= flags.threshold()
                )
                first.append(np.where(over.any(axis=1), EVERY * (1 + over.argmax(axis=1)), np.inf))
                advance(1)
        when = np.stack(first, axis=1)  # (questions, crews, people)
        lines += [kind_row(name, kind, when[:, :, kinds == kind]) for kind in dict.fromkeys(kinds.tolist())]
    return lines


def kind_row(name: str, kind: int, when: Floats) -> str:
    """Say of one kind of people, (questions, crews, people), when they were first flagged."""
    when = when.reshape(len(ASKED), -1)
    soonest = when.min(axis=0)
    median, late = np.quantile(soonest, [0.5, 0.9], method="higher")
    as_what = sorted(zip(np.isfinite(when).sum(axis=1).tolist(), ASKED, strict=True), reverse=True)
    named = ", ".join(f"{asked} {count}" for count, asked in as_what if count)
    ever = np.isfinite(soonest)
    times = [f"{labels:.0f}" if np.isfinite(labels) else f"over {ROUNDS}" for labels in (median, late)]
    cells = [name, KINDS[kind], f"{soonest.size}", f"{ever.sum()} ({ever.mean():.1%})"]
    return f"| {' | '.join([*cells, *(['-', '-'] if kind == HONEST else times), named or '-'])} |"


# labels


@dataclass(frozen=True)
class World:
    """Votes whose truth is known.

    Attributes:
        votes: what was said.
        better: 1 where an item's first answer is better, else -1; (items,).
        share: of honest people who prefer the first; (items,).
    """

    votes: Votes
    better: Integers
    share: Floats


def world(seed: int, answers: int, part: float, faulty: int, labels: int, items: int = 1000) -> World:
    """Let ten people compare answers to prompts, two at a time.

    Args:
        seed: of everything.
        answers: per prompt.
        part: share of the twos of each prompt's answers that are compared.
        faulty: how many of the ten are.
        labels: per item, by different people.
        items: how many, about.
    """
    rng = np.random.default_rng(seed)
    crew = Crew.drawn(rng, [HONEST] * (10 - faulty) + [RANDOM, LEFT, LONGEST, HASTY, RANDOM][:faulty])
    pairs = np.stack(np.triu_indices(answers, 1), axis=1)
    taken = max(1, round(part * len(pairs)))
    prompts = items // taken
    which = rng.permuted(np.tile(np.arange(len(pairs)), (prompts, 1)), axis=1)[:, :taken]
    nodes = (pairs[which] + answers * np.arange(prompts)[:, None, None]).reshape(-1, 2)  # (items, 2)
    quality, size = rng.normal(0, 1, prompts * answers), lengths(rng, (prompts * answers,))
    total = size[nodes].sum(axis=1)
    first, second = nodes.T
    side = rng.permutation(np.resize([1, -1], len(nodes)))
    ratio = np.log(size[first] / size[second])
    all_items = Items(quality[first] - quality[second], ratio, total, side, np.zeros(len(nodes), bool))
    number = np.repeat(np.arange(len(nodes)), labels)
    who = rng.permuted(np.tile(np.arange(10), (len(nodes), 1)), axis=1)[:, :labels].ravel()
    choice, _ = choose(rng, crew, who, all_items.at(number))
    votes = Votes(
        item=array("l", number.tolist()),
        annotator=array("l", who.tolist()),
        choice=array("b", choice.tolist()),
        side=array("b", side[number].tolist()),
        margin=array("f", [float("nan")] * len(number)),
        bad=array("b", [0] * len(number)),
        nodes=(array("l", first.tolist()), array("l", second.tolist())),
        annotators={str(person): person for person in range(10)},
    )
    return World(votes, np.sign(all_items.difference).astype(int), honest_share(all_items))


def honest_share(items: Items, people: int = 500) -> Floats:
    """Give the share of honest people who prefer the first answers, whichever side they stand on; (items,)."""
    some = Crew.drawn(np.random.default_rng(0), [HONEST] * people)
    odds = np.outer(items.difference, some.sharpness) + np.outer(items.longer, some.taste)
    return np.asarray((sigmoid(odds + some.lean) + sigmoid(odds - some.lean)).mean(axis=1) / 2)


def scores_of(chances: Floats, better: Integers, share: Floats) -> tuple[float, float, float]:
    """Give accuracy against the truth; log-loss and calibration error (ten bins) against the share; (items,) each."""
    right = np.where(chances == 0.5, 0.5, (chances > 0.5) == (better > 0)).mean()
    kept = np.clip(chances, 0.01, 0.99)
    loss = -(share * np.log(kept) + (1 - share) * np.log(1 - kept)).mean()
    bins = np.minimum((10 * kept).astype(int), 9)
    error = np.abs(np.bincount(bins, weights=kept - share, minlength=10)).sum() / len(kept)
    return float(right), float(loss), float(error)


def measured(made: World) -> dict[str, tuple[float, float, float]]:
    """Score single labels, each taken for certain, every method, and the share itself."""
    item = np.array(made.votes.item)
    single = 0.5 + 0.5 * np.array(made.votes.choice, dtype=float)
    found = {"none": scores_of(single, made.better[item], made.share[item])}
    found |= {name: scores_of(probabilities(made.votes, name), made.better, made.share) for name in METHODS}
    return found | {"the share itself": scores_of(made.share, made.better, made.share)}


def label_tables(seeds: int) -> list[str]:
    """Measure every method on worlds of each kind: medians over seeds, and the range."""
    kinds = {"2 answers": (2, 1.0), "4 answers, all twos": (4, 1.0), "4 answers, a third of the twos": (4, 1 / 3)}
    cases = [(name, faulty, labels) for name in kinds for faulty in (0, 3, 5) for labels in (1, 3, 5)]
    cases = [case for case in cases if case[0] == "2 answers" or case[2] < 5]
    found = {}
    with progress("aggregating", total=len(cases) * seeds) as advance:
        for case in cases:
            name, faulty, labels = case
            rows = []
            for seed in range(seeds):
                rows.append(measured(world(seed, *kinds[name], faulty, labels)))
                advance(1)
            found[case] = {method: np.array([row[method] for row in rows]) for method in rows[0]}  # (seeds, 3)
    lines = []
    for place, title in enumerate(("accuracy", "log-loss", "calibration error")):
        methods = ["none", *METHODS, *(["the share itself"] if place < 2 else [])]
        lines += [f"{title}:", "", f"| answers per prompt | faulty of 10 | labels | {' | '.join(methods)} |"]
        lines.append("|---|---|---|" + "---|" * len(methods))
        for (name, faulty, labels), by_method in found.items():
            cells = [spread(by_method[method][:, place]) for method in methods]
            lines.append(f"| {name} | {faulty} | {labels} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def spread(values: Floats) -> str:
    """Give the median and the range."""
    return f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})"


def main(*, crews: int = 250, seeds: int = 5, people: bool = True, labels: bool = True) -> None:
    """Print both tables.

    Args:
        crews: of each kind.
        seeds: of each world.
        people: print the table of flags.
        labels: print the tables of aggregation.
    """
    if people:
        check()
        print("\n".join([*flag_table(crews), ""]))
    if labels:
        print("\n".join(label_tables(seeds)))


if __name__ == "__main__":
    typer.run(main)
