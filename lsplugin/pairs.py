"""Annotations -> preference pairs.

Left as they are, two annotators who disagree give two pairs that disagree: what a Bradley-Terry fit wants to see. Aggregated,
everything that was said of the same two answers to the same prompt becomes one pair, with a probability and a weight.
A ranking or a rating gives a pair for every two answers that it does not put level.

Two answers that are called equally good give a pair only where ties are asked for: with probability one half, and marked as a tie
in its meta. That both are bad is no tie: it says how good they are, not which is better, and two bad answers may be far apart.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from lsplugin.dataset import KEY, ORDER
from lsplugin.interface import Interface
from lsplugin.judged import Accounting, Judged, read_judged
from lsplugin.notes import SIDES, notes, rewrites
from lsplugin.preferences import Pair, prompt_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lsplugin.votes import Said, Votes

OWN_META = {KEY, ORDER, "models"}
"""What of a task's meta has a place of its own in a pair's."""

TIE = "tie"
"""The `verdict` in the meta of a pair that is a tie."""

_TIED = {"verdict": TIE, "strength": None, "chosen_side": None}
"""What the meta of a tie says instead of how much better the chosen answer is, and where it stood."""

_UNKNOWN: tuple[object, ...] = (None, {}, [])


def pairs_from_export(
    tasks: Iterable[dict[str, Any]],
    accounting: Accounting,
    *,
    interface: Interface | None = None,
    skip_bad: bool = False,
    ties: bool = False,
) -> Iterator[Pair]:
    """Turn the tasks of an export into pairs, each from one annotation.

    Args:
        tasks: as `read_export` yields them.
        accounting: is filled while the pairs are taken.
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: count what cannot be understood instead of stopping at it.
        ties: make a pair, with probability one half, of every two answers that an annotation calls equally good.

    Raises:
        LspluginError: a value that no template stores, or a field that is missing, with the task's id.
    """
    for judged in read_judged(tasks, accounting, interface or Interface(), skip_bad=skip_bad):
        found = [*_compared(judged, ties=ties), *_rewritten(judged)]
        _count(accounting, judged, found, ties=ties)
        yield from found
    assert accounting.balanced, accounting


def aggregated_pairs(
    read: Callable[[], Iterable[dict[str, Any]]],
    accounting: Accounting,
    method: str,
    *,
    interface: Interface | None = None,
    skip_bad: bool = False,
    ties: bool = False,
) -> Iterator[Pair]:
    """Turn an export into one pair for every two answers that were compared, whoever compared them, on whatever sides.

    The export is read twice: once for the votes, once for the texts.

    Args:
        read: opens the export anew and yields its tasks.
        accounting: is filled while the pairs are taken; an annotation is used when one of its votes counts in a pair.
        method: majority, dawid-skene or bradley-terry (see lsplugin.aggregate).
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: count what cannot be understood instead of stopping at it.
        ties: make a pair, with probability one half, of every two answers that everybody who compared them calls equally good.

    Yields:
        Pairs with `probability` (above one half), `weight` (how many annotators compared them) and `margin` where known; answers
        on which people are evenly split make none, and rewrites come as they are.
    """
    from lsplugin.aggregate import probabilities
    from lsplugin.votes import Votes

    interface = interface or Interface()
    votes = Votes()
    for judged in read_judged(read(), Accounting(), interface, skip_bad=skip_bad):
        votes.add(judged)
    chances = probabilities(votes, method)
    told = votes.summaries()
    level = _level(votes) if ties else set()
    done: set[int] = set()
    for judged in read_judged(read(), accounting, interface, skip_bad=skip_bad):
        found, decided = [], False
        for first, second, item in votes.items_of(judged):
            probability = float(chances[item])
            if probability == 0.5 and item not in level:
                continue
            decided = True
            if item in done:
                continue
            done.add(item)
            said = told(item, first_wins=probability > 0.5)
            better, worse = (first, second) if probability > 0.5 else (second, first)
            if item in level:
                better, worse = _drawn(judged, first, second)
            found.append(_agreed(judged, better, worse, said, max(probability, 1 - probability), tie=item in level))
        rewritten = list(_rewritten(judged))
        _count(accounting, judged, found + rewritten, used=decided or bool(rewritten), ties=ties)
        yield from found + rewritten
    assert accounting.balanced, accounting


def _agreed(judged: Judged, better: int, worse: int, said: Said, probability: float, *, tie: bool) -> Pair:
    """Make the pair of what several annotations said of two answers."""
    meta = {**_origin(judged), **_of_answers(judged, better, worse), **said.meta, **(_TIED if tie else {})}
    chosen, rejected = judged.texts[better], judged.texts[worse]
    return Pair(judged.prompt, chosen, rejected, said.margin, round(probability, 6), said.weight, _known(meta))


def _level(votes: Votes) -> set[int]:
    """Give the items that every vote calls a tie; one vote for an answer, or that both are bad, and an item is none of them."""
    spoken = zip(votes.item, votes.choice, votes.bad, strict=True)
    return set(range(votes.items)) - {item for item, choice, bad in spoken if choice or bad}


def _drawn(judged: Judged, one: int, other: int) -> tuple[int, int]:
    """Order two answers that are level: chosen is the one whose text, behind its prompt, has the smaller digest.

    It is a coin that falls alike whoever compares the two, on whatever sides, so no side, model or length is preferred by it.
    """
    prompt = prompt_text(judged.prompt)
    digests = {
        place: hashlib.blake2b(f"{prompt}\0{judged.texts[place]}".encode("utf-8", "surrogatepass")).digest()
        for place in (one, other)
    }
    return (one, other) if digests[one] < digests[other] else (other, one)


def _count(
    accounting: Accounting, judged: Judged, found: list[Pair], *, used: bool | None = None, ties: bool = False
) -> None:
    accounting.pairs += len(found)
    accounting.rewrites += sum("rewrite" in pair.meta for pair in found)
    if judged.judgement is not None and not judged.judgement.bad:
        accounting.ties += len(judged.judgement.ties())
    if bool(found) if used is None else used:
        accounting.used += 1
    else:
        accounting.dropped[_why(judged, ties=ties)] += 1


def _why(judged: Judged, *, ties: bool) -> str:
    """Say why an annotation has a say in no pair; where ties make pairs, being one is no reason."""
    if ties and judged.judgement is not None and judged.dropped == "a tie":
        texts = judged.texts
        differ = any(texts[one] != texts[other] for one, other in judged.judgement.ties())
        return "a tie that others did not see" if differ else "both answers are identical"
    return judged.dropped or "annotators evenly split"


def _compared(judged: Judged, *, ties: bool) -> Iterator[Pair]:
    """Make the pairs of one annotation."""
    judgement = judged.judgement
    if judgement is None or judgement.bad:
        return
    twos = [(better, worse, False) for better, worse in judgement.preferences()]
    if ties:
        twos += [(*_drawn(judged, one, other), True) for one, other in judgement.ties()]
    said = {**_origin(judged), **_of_annotation(judged)}
    told = notes(judged)
    criteria = told.pop("criteria", {})
    for better, worse, tie in twos:
        if judged.texts[better] == judged.texts[worse]:
            continue
        words = {better: "chosen", worse: "rejected", None: TIE}
        sides = {name: words[place] for name, place in criteria.items() if place in words}
        meta = {**said, **_of_answers(judged, better, worse), **told, "criteria": sides, **(_TIED if tie else {})}
        margin, probability = (None, 0.5) if tie else (judgement.margin(better, worse), None)
        yield Pair(judged.prompt, judged.texts[better], judged.texts[worse], margin, probability, meta=_known(meta))


def _rewritten(judged: Judged) -> Iterator[Pair]:
    """Make a pair of each answer that the annotator edited: the edited one is better."""
    for place, text in rewrites(judged):
        meta = {**_origin(judged), **_of_annotation(judged), "rewrite": judged.names[place]}
        yield Pair(judged.prompt, text, judged.texts[place], meta=_known(meta))


def _origin(judged: Judged) -> dict[str, Any]:
    """Say of which task a pair is."""
    meta = judged.task_meta
    rest = {name: value for name, value in meta.items() if name not in OWN_META}
    return {"task": judged.task.get("id"), "key": meta.get(KEY), "task_meta": rest}


def _of_annotation(judged: Judged) -> dict[str, Any]:
    author = judged.annotation.get("completed_by")
    return {
        "annotation": judged.annotation.get("id"),
        "annotator": author.get("id") if isinstance(author, dict) else author,
        "strength": judged.judgement.strength if judged.judgement else None,
        "lead_time": judged.annotation.get("lead_time"),
    }


def _of_answers(judged: Judged, better: int, worse: int) -> dict[str, Any]:
    """Say which answers of the dataset these are, who wrote them, and where the better one stood."""
    models = {"chosen": judged.model(better), "rejected": judged.model(worse)}
    return {
        "chosen_side": SIDES[better] if len(judged.texts) == 2 else None,
        "answers": {"chosen": judged.names[better], "rejected": judged.names[worse]},
        "models": models if any(models.values()) else None,
    }


def _known(meta: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not known."""
    return {name: value for name, value in meta.items() if value or value not in _UNKNOWN}
