"""Which of many answers people compare next: where the reward model is unsure, where nothing like it was asked, and at random."""

from __future__ import annotations

import zlib
from collections import Counter
from itertools import combinations, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lsplugin.files import read_jsonl
from rounds.errors import RoundsError
from rounds.prompts import place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from lsplugin.files import PathLike

    Vectors = npt.NDArray[np.float64]

WIDTH = 2048
"""Numbers of a vector of words."""

Row = dict[str, Any]
"""Of a dataset: prompt, answer1, answer2, ..., meta."""


class Shares(NamedTuple):
    """Of a round's tasks.

    Attributes:
        judge: asked about the judge's prompts; all drawn at random.
        again: asked in an earlier round, too.
        uncertain: of the others, where the reward model's members disagree most.
        diverse: of the others, least like those chosen before; the rest is drawn at random.
    """

    judge: float = 0.2
    again: float = 0.0
    uncertain: float = 0.0
    diverse: float = 0.0


class Candidate(NamedTuple):
    """A prompt with distinct answers of one model or several.

    Attributes:
        prompt: its text.
        answers: texts, those of the models in turn, with each one's model.
        meta: of the task, but for the models.
        deviations: (A, A), how far the members disagree about every two answers; None without scores.
    """

    prompt: str
    answers: list[tuple[str, str]]
    meta: Row
    deviations: Vectors | None


def join(files: Sequence[Sequence[Row]], members: Mapping[tuple[str, str], Sequence[float]] | None) -> list[Candidate]:
    """Put the answers of several models to a prompt together, taking turns; a text that two models gave counts for the first.

    Args:
        files: rows of each model's answers.
        members: what each member of the reward model, two or more, gives an answer to a prompt; None without one.
    """
    found: dict[str, list[Row]] = {}
    for rows in files:
        for row in rows:
            found.setdefault(row["prompt"], []).append(row)
    made = []
    for prompt, rows in found.items():
        answers: dict[str, tuple[str, str]] = {}
        for turn in zip_longest(*map(_answers, rows)):
            for text, model in filter(None, turn):
                if members is None or (prompt, text) in members:  # what cannot be scored is not asked about
                    answers.setdefault(text.strip(), (text, model))
        kept = list(answers.values())
        deviations = _deviations([members[prompt, text] for text, _ in kept]) if members is not None and kept else None
        alike = {
            name: value
            for name, value in rows[0]["meta"].items()
            if all(row["meta"].get(name) == value for row in rows)
        }
        made.append(Candidate(prompt, kept, alike, deviations))
    return made


def read_members(path: PathLike) -> dict[tuple[str, str], list[float]]:
    """Read what each member of a reward model gives each answer to a prompt, from the scores of `rm_lightning score`.

    Raises:
        RoundsError: a line has the scores of fewer than two members, who could disagree.
    """
    found = {}
    for number, row in read_jsonl(path):
        members = row.get("members") or []
        if len(members) < 2:
            raise RoundsError(
                f"{path}, line {number}: expected the scores of two members or more, found {len(members)}; fit the reward model "
                "with --model.members 4"
            )
        found[row["prompt"], row["answer"]] = members
    return found


def choose(
    candidates: Sequence[Candidate],
    *,
    judging: set[str],
    earlier: Sequence[Sequence[Row]] = (),
    labels: int,
    answers: int = 2,
    shares: Shares,
    seed: int,
) -> list[Row]:
    """Choose a round's tasks.

    Args:
        candidates: of all prompts that were answered.
        judging: the judge's prompts; what is asked about them is drawn at random, so that the judge sees what is usual.
        earlier: the tasks of each earlier round.
        labels: how many tasks; fewer where there are not enough candidates.
        answers: how many each shows.
        shares: how they are chosen.
        seed: of the round.

    Returns:
        Rows of a dataset; `meta.why` says how each was chosen (random, uncertain, diverse, judge, again).
    """
    repeated = _again(earlier, round(labels * shares.again), seed)
    order = sorted(
        (one for one in candidates if len(one.answers) >= answers), key=lambda one: place(seed, "task", one.prompt)
    )
    judged = [one for one in order if one.prompt in judging][: round(labels * shares.judge)]
    free = [one for one in order if one.prompt not in judging]
    count = labels - len(repeated) - len(judged)
    unsure, unlike = (round(count * share) for share in (shares.uncertain, shares.diverse))
    random, rest = free[: count - unsure - unlike], free[count - unsure - unlike :]
    rest.sort(key=lambda one: -_doubt(one)[0])
    unsure_ones, rest = rest[:unsure], rest[unsure:]
    known = [row["prompt"] for rows in earlier for row in rows] + [
        _text(one) for one in [*judged, *random, *unsure_ones]
    ]
    diverse = [rest[number] for number in farthest([_text(one) for one in rest], known, unlike)]
    made = [
        _task(one, _mixed(one.answers, answers), why)
        for why, found in (("judge", judged), ("random", random), ("diverse", diverse))
        for one in found
    ]
    made += [_task(one, [one.answers[number] for number in disputed(one, answers)], "uncertain") for one in unsure_ones]
    return sorted(
        [*made, *repeated], key=lambda row: place(seed, "order", row["prompt"], row["answer1"], row["answer2"])
    )


def disputed(candidate: Candidate, count: int) -> list[int]:
    """Find answers on whose order the members disagree most: the two most disputed, then what adds most, one at a time.

    Source: Christiano et al. 2017 (arXiv 1706.03741), section 2.2.4, where the ensemble's variance chooses the queries.
    """
    spread = candidate.deviations
    assert spread is not None  # only candidates with scores are asked
    chosen = list(_doubt(candidate)[1])
    while len(chosen) < count:
        rest = [number for number in range(len(spread)) if number not in chosen]
        chosen.append(max(rest, key=lambda number: float(spread[number, chosen].sum())))
    return sorted(chosen)


def farthest(texts: Sequence[str], known: Sequence[str], count: int) -> list[int]:
    """Choose texts one at a time, each the least like any that is known or chosen already, by the cosine of their words' counts.

    Farthest-first traversal (Gonzalez 1985): it leaves no text more than twice as far from a chosen one as the best choice of so
    many would.

    Returns:
        Places in `texts`; fewer than `count` where there are not so many.
    """
    vectors, chosen = _vectors(texts), []
    nearest = np.full(len(texts), -1.0)  # (N,), cosine to the most similar one
    for other in _vectors(known):
        nearest = np.maximum(nearest, vectors @ other)
    for _ in range(min(count, len(texts))):
        number = int(nearest.argmin())
        chosen.append(number)
        nearest = np.maximum(nearest, vectors @ vectors[number])
        nearest[chosen] = np.inf
    return chosen


def _vectors(texts: Sequence[str]) -> Vectors:
    """Count words, each in the place that its hash names; (N, WIDTH), of length 1."""
    made = np.zeros((len(texts), WIDTH))
    for row, text in zip(made, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.encode("utf-8", "surrogatepass")) % WIDTH] += 1
    lengths = np.linalg.norm(made, axis=1, keepdims=True)
    return np.asarray(made / np.maximum(lengths, 1e-12))


def _doubt(candidate: Candidate) -> tuple[float, tuple[int, int]]:
    """Give the largest deviation between two answers, and which two they are."""
    spread = candidate.deviations
    if spread is None:
        return 0.0, (0, 1)
    twos = combinations(range(len(spread)), 2)
    return max(((float(spread[two]), two) for two in twos), key=lambda found: found[0])


def _deviations(scores: Sequence[Sequence[float]]) -> Vectors:
    """Give the standard deviation over members of the difference of every two answers' scores: (A, K) -> (A, A)."""
    table = np.array(scores, dtype=float)
    return np.asarray((table[:, None] - table[None]).std(axis=2, ddof=1))


def _answers(row: Row) -> list[tuple[str, str]]:
    names = sorted((name for name in row if name.removeprefix("answer").isdecimal()), key=lambda name: int(name[6:]))
    return [(row[name], row["meta"]["models"][name]) for name in names]


def _mixed(answers: Sequence[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Take some answers in their order, always of a model that has the fewest so far."""
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        used = Counter(model for _, model in chosen)
        chosen.append(min((one for one in answers if one not in chosen), key=lambda one: used[one[1]]))
    return chosen


def _text(candidate: Candidate) -> str:
    return " ".join([candidate.prompt, *(text for text, _ in candidate.answers)])


def _task(candidate: Candidate, answers: Iterable[tuple[str, str]], why: str) -> Row:
    shown = {f"answer{number}": answer for number, answer in enumerate(answers, start=1)}
    models = {name: model for name, (_, model) in shown.items()}
    texts = {name: text for name, (text, _) in shown.items()}
    return {"prompt": candidate.prompt, **texts, "meta": {**candidate.meta, "models": models, "why": why}}


def _again(earlier: Sequence[Sequence[Row]], count: int, seed: int) -> list[Row]:
    """Draw tasks of earlier rounds to ask once more; those that were themselves asked again do not count."""
    fresh = [
        (number, row) for number, rows in enumerate(earlier, start=1) for row in rows if row["meta"]["why"] != "again"
    ]
    fresh.sort(key=lambda found: place(seed, "again", found[1]["prompt"], found[1]["answer1"], found[1]["answer2"]))
    return [{**row, "meta": {**row["meta"], "why": "again", "asked": number}} for number, row in fresh[:count]]
