"""Annotations -> preference pairs.

Left as they are, two annotators who disagree give two pairs that disagree: what a Bradley-Terry fit wants to see. Aggregated,
everything that was said of the same two answers to the same prompt becomes one pair, with a probability and a weight.
A ranking or a rating gives a pair for every two answers that it does not put level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsplugin.dataset import KEY, ORDER
from lsplugin.interface import Interface
from lsplugin.judged import Accounting, Judged, read_judged
from lsplugin.notes import SIDES, notes, rewrites
from lsplugin.preferences import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

OWN_META = {KEY, ORDER, "models"}
"""What of a task's meta has a place of its own in a pair's."""

_UNKNOWN: tuple[object, ...] = (None, {}, [])


def pairs_from_export(
    tasks: Iterable[dict[str, Any]],
    accounting: Accounting,
    *,
    interface: Interface | None = None,
    skip_bad: bool = False,
) -> Iterator[Pair]:
    """Turn the tasks of an export into pairs, each from one annotation.

    Args:
        tasks: as `read_export` yields them.
        accounting: is filled while the pairs are taken.
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: count what cannot be understood instead of stopping at it.

    Raises:
        LspluginError: a value that no template stores, or a field that is missing, with the task's id.
    """
    for judged in read_judged(tasks, accounting, interface or Interface(), skip_bad=skip_bad):
        found = [*_preferred(judged), *_rewritten(judged)]
        _count(accounting, judged, found)
        yield from found
    assert accounting.balanced, accounting


def aggregated_pairs(
    read: Callable[[], Iterable[dict[str, Any]]],
    accounting: Accounting,
    method: str,
    *,
    interface: Interface | None = None,
    skip_bad: bool = False,
) -> Iterator[Pair]:
    """Turn an export into one pair for every two answers that were compared, whoever compared them, on whatever sides.

    The export is read twice: once for the votes, once for the texts.

    Args:
        read: opens the export anew and yields its tasks.
        accounting: is filled while the pairs are taken; an annotation is used when one of its votes counts in a pair.
        method: majority, dawid-skene or bradley-terry (see lsplugin.aggregate).
        interface: where prompt, answers and controls are; by default, what our templates call them.
        skip_bad: count what cannot be understood instead of stopping at it.

    Yields:
        Pairs with `probability` (above one half), `weight` (how many annotators compared them) and `margin` where known; answers
        that end up exactly level make none, and rewrites come as they are.
    """
    from lsplugin.aggregate import probabilities
    from lsplugin.votes import Votes

    interface = interface or Interface()
    votes = Votes()
    for judged in read_judged(read(), Accounting(), interface, skip_bad=skip_bad):
        votes.add(judged)
    chances = probabilities(votes, method)
    told = votes.summaries()
    done: set[int] = set()
    for judged in read_judged(read(), accounting, interface, skip_bad=skip_bad):
        found, decided = [], False
        for first, second, item in votes.items_of(judged):
            probability = float(chances[item])
            decided = decided or probability != 0.5
            if probability == 0.5 or item in done:
                continue
            done.add(item)
            better, worse = (first, second) if probability > 0.5 else (second, first)
            said = told(item, first_wins=probability > 0.5)
            meta = {**_origin(judged), **_of_answers(judged, better, worse), **said.meta}
            pair = Pair(judged.prompt, judged.texts[better], judged.texts[worse], meta=_known(meta))
            found.append(_weighted(pair, said.margin, max(probability, 1 - probability), said.weight))
        rewritten = list(_rewritten(judged))
        _count(accounting, judged, found + rewritten, used=decided or bool(rewritten))
        yield from found + rewritten
    assert accounting.balanced, accounting


def _weighted(pair: Pair, margin: float | None, probability: float, weight: float) -> Pair:
    return Pair(pair.prompt, pair.chosen, pair.rejected, margin, round(probability, 6), weight, pair.meta)


def _count(accounting: Accounting, judged: Judged, found: list[Pair], *, used: bool | None = None) -> None:
    accounting.pairs += len(found)
    accounting.rewrites += sum("rewrite" in pair.meta for pair in found)
    if judged.judgement is not None and not judged.judgement.bad:
        accounting.ties += len(judged.judgement.ties())
    if bool(found) if used is None else used:
        accounting.used += 1
    else:
        accounting.dropped[judged.dropped or "annotators evenly split"] += 1


def _preferred(judged: Judged) -> Iterator[Pair]:
    """Make the pairs of one annotation."""
    if judged.judgement is None or judged.dropped:
        return
    said = {**_origin(judged), **_of_annotation(judged)}
    told = notes(judged)
    criteria = told.pop("criteria", {})
    for better, worse in judged.judgement.preferences():
        if judged.texts[better] == judged.texts[worse]:
            continue
        words = {better: "chosen", worse: "rejected", None: "tie"}
        sides = {name: words[place] for name, place in criteria.items() if place in words}
        meta = {**said, **_of_answers(judged, better, worse), **told, "criteria": sides}
        margin = judged.judgement.margin(better, worse)
        yield Pair(judged.prompt, judged.texts[better], judged.texts[worse], margin, meta=_known(meta))


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
