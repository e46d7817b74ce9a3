"""What one annotation says of a task's answers: which is better than which, which are equally good, or nothing, and why.

Every template's answer becomes the same thing, tiers of answers, best first:

    Pairwise, scale    left is better -> (left), (right); a tie -> (left, right)
    ranking            the tiers themselves; what was not sorted is in none
    rating             answers of equally many stars (on average over the criteria) share a tier
    all are bad        one tier, marked as bad
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from lsplugin.controls import STRENGTHS, VERDICT
from lsplugin.errors import LspluginError
from lsplugin.preferences import kind
from lsplugin.template import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lsplugin.interface import Interface

SIDES = ("left", "right")
_VERDICTS = {None, "better", "ranked", "tie", "both-bad", *STRENGTHS}
Result = dict[str, Any]


class Dropped(Exception):  # noqa: N818 - not an error: the reason why an annotation makes no pair
    """An annotation that prefers nothing, for the reason that its message names."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an annotation prefers.

    Attributes:
        tiers: places of the answers, from 0 in the order in which they stand; best tier first.
        strength: how much better, for a comparison of two where it was asked: slightly, clearly, much.
        stars: mean stars of each answer, where answers were rated.
        most_stars: how many stars there were to give.
        bad: whether all answers were called bad.
    """

    tiers: tuple[tuple[int, ...], ...]
    strength: str | None = None
    stars: Mapping[int, float] = field(default_factory=dict)
    most_stars: int = 5
    bad: bool = False

    def preferences(self) -> list[tuple[int, int]]:
        """Give (better, worse) for every two answers of different tiers."""
        return [two for upper, lower in combinations(self.tiers, 2) for two in product(upper, lower)]

    def ties(self) -> list[tuple[int, int]]:
        """Give every two answers that share a tier."""
        return [two for tier in self.tiers for two in combinations(tier, 2)]

    def margin(self, better: int, worse: int) -> float | None:
        """How much better, between 0 (not at all) and 1 (as much as can be said); None where nobody was asked.

        Slightly, clearly and much are one, two and three thirds, the small margins of Llama 2 (Touvron et al. 2023, table 27);
        stars are the difference over the widest possible one.
        """
        if self.strength is not None:
            return round((list(STRENGTHS).index(self.strength) + 1) / len(STRENGTHS), 6)
        if self.stars:
            return round((self.stars[better] - self.stars[worse]) / max(1, self.most_stars - 1), 6)
        return None


def judge(annotation: Mapping[str, Any], interface: Interface, data: Mapping[str, Any], where: str) -> Judgement:
    """Read one annotation.

    Args:
        annotation: as Label Studio exports it.
        interface: the project's fields and controls.
        data: the task's data.
        where: the task, for messages.

    Raises:
        Dropped: it prefers nothing.
        LspluginError: a value that no template stores.
    """
    if annotation.get("was_cancelled"):
        raise Dropped("skipped by the annotator")
    results: list[Result] = annotation.get("result") or []
    if not results:
        raise Dropped("submitted without a choice")
    count = len(interface.fields_of(data))
    verdict = _only(_choices(results, VERDICT), where, VERDICT)
    if verdict not in _VERDICTS:
        raise LspluginError(f"{where}: expected the verdict to be one that our templates offer, found {verdict!r}")
    if verdict in {"tie", "both-bad"}:
        return Judgement((tuple(range(count)),), bad=verdict == "both-bad")
    for read in (_compared, _ranked, _rated):
        found = read(results, interface, data, where)
        if found is not None:
            return found if found.strength or verdict not in STRENGTHS else replace(found, strength=verdict)
    raise Dropped("a verdict without a side" if verdict else "no comparison among its results")


def _compared(results: list[Result], interface: Interface, _: Mapping[str, Any], where: str) -> Judgement | None:
    """Read a Pairwise or a scale."""
    clicked = [
        found.get("value", {}).get("selected")
        for found in results
        if found.get("type") == "pairwise" and interface.control in (None, found.get("from_name"))
    ]
    chosen = _only(clicked or _choices(results, interface.control or CONTROL), where, "comparison")
    if chosen is None and not clicked:
        return None
    if chosen in ("tie", "both-bad"):
        return Judgement(((0, 1),), bad=chosen == "both-bad")
    side, strength = (*str(chosen).split("-", 1), "")[:2]
    if side not in SIDES or (strength and strength not in STRENGTHS) or not isinstance(chosen, str):
        raise LspluginError(f"{where}: expected the comparison to be left or right, found {kind(chosen)}")
    return Judgement(((0,), (1,)) if side == "left" else ((1,), (0,)), strength or None)


def _ranked(results: list[Result], interface: Interface, data: Mapping[str, Any], where: str) -> Judgement | None:
    """Read a Ranker, with tiers or without; an older export holds a bare list."""
    found = [
        result
        for result in results
        if result.get("type") == "ranker" and interface.control in (None, result["from_name"])
    ]
    order = _only([result.get("value", {}).get("ranker") for result in found], where, "ranking")
    if order is None:
        return None
    ids = [str(item.get("id")) for item in data.get(interface.items) or [] if isinstance(item, dict)]
    if isinstance(order, list) or (isinstance(order, dict) and list(order) == ["rank"]):
        listed = order if isinstance(order, list) else order["rank"]
        if [str(name) for name in listed] == ids:
            raise Dropped("a ranking left as it was shown")
        tiers: Iterable[list[Any]] = [[name] for name in listed]
    elif isinstance(order, dict) and all(isinstance(names, list) for names in order.values()):
        tiers = [order[tier] for tier in _best_first([tier for tier in order if tier != "_"], interface, where)]
    else:
        raise LspluginError(f"{where}: expected the ranking to be a list or tiers of answers, found {kind(order)}")
    unknown = [str(name) for names in tiers for name in names if str(name) not in ids]
    if unknown:
        raise LspluginError(
            f"{where}: the ranking names {', '.join(unknown)}, its items are {', '.join(ids) or 'missing'}"
        )
    sorted_ = tuple(tuple(ids.index(str(name)) for name in names) for names in tiers if names)
    if sum(map(len, sorted_)) < 2:
        raise Dropped("fewer than two answers were sorted")
    return Judgement(sorted_)


def _best_first(tiers: list[str], interface: Interface, where: str) -> list[str]:
    """Order the tiers that an annotation names: as the config does, or by the numbers of ours."""
    if interface.tiers is not None:
        unknown = [tier for tier in tiers if tier not in interface.tiers]
        if unknown:
            raise LspluginError(
                f"{where}: the ranking names the tier {unknown[0]}, the config {', '.join(interface.tiers)}"
            )
        return sorted(tiers, key=interface.tiers.index)
    if not all(tier.removeprefix("tier").isdigit() for tier in tiers):
        raise LspluginError(
            f"{where}: nobody knows which of the tiers {', '.join(tiers)} is best; name the config with --config"
        )
    return sorted(tiers, key=lambda tier: int(tier.removeprefix("tier")))


def _rated(results: list[Result], interface: Interface, data: Mapping[str, Any], where: str) -> Judgement | None:
    """Read stars: the mean over an answer's criteria places it."""
    fields = interface.fields_of(data)
    given: dict[int, list[float]] = {}
    for found in results:
        if found.get("type") != "rating":
            continue
        name = str(found.get("from_name"))
        rated = interface.ratings.get(name) if interface.ratings is not None else name.rpartition("_")[2]
        stars = found.get("value", {}).get("rating")
        if rated not in fields:
            continue
        if not isinstance(stars, int | float) or isinstance(stars, bool):
            raise LspluginError(f"{where}: expected stars of {name} to be a number, found {kind(stars)}")
        given.setdefault(fields.index(rated), []).append(float(stars))
    if not given:
        return None
    if len({len(stars) for stars in given.values()}) > 1 or len(given) < 2:
        raise Dropped("not every answer was rated")
    means = {place: sum(stars) / len(stars) for place, stars in given.items()}
    tiers = tuple(
        tuple(p for p in sorted(means) if means[p] == mean) for mean in sorted(set(means.values()), reverse=True)
    )
    return Judgement(tiers, stars=means, most_stars=interface.most_stars)


def _choices(results: list[Result], name: str) -> list[Any]:
    """Every choice made in the control of this name."""
    return [
        choice
        for result in results
        if result.get("type") == "choices" and result.get("from_name") == name
        for choice in result.get("value", {}).get("choices") or []
    ]


def _only(found: list[Any], where: str, what: str) -> Any:  # noqa: ANN401 - what an export holds
    """Give the one value that was stored, or None."""
    if len(found) > 1:
        raise LspluginError(f"{where}: expected one {what} in an annotation, found {len(found)}")
    return found[0] if found else None
