"""What each round cost and brought, from the files that its steps wrote; each figure with the file behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsplugin.agreement import share
from lsplugin.files import read_json
from lsplugin.preferences import prompt_text, read_pairs
from rounds.content import tasks_of
from rounds.errors import RoundsError
from rounds.steps import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lsplugin.preferences import Pair
    from rounds.state import Place

Figures = dict[str, Any]

UNCHOSEN = {"random", "judge"}
"""Why a task was asked that no model chose: what people say of these holds for all prompts."""


def figures(place: Place, *, rate: float = 0.0, currency: str = "EUR") -> Figures:
    """Collect the figures of all rounds that have labels.

    Args:
        place: the rounds.
        rate: what an hour of labelling costs.
        currency: of the rate.

    Returns:
        `rounds`: of each `round`, and by name `labels`, `agreement`, `again`, `reward`, `judge`, `policy`, `people`;
        each a value with `low` and `high` (95%) where there is an interval, and a `file`. None where a step is not done yet.

    Raises:
        RoundsError: no round has labels.
    """
    done = place.ledger.current
    last = max((number for number, step in done if step == "gather"), default=0)
    if not last:
        raise RoundsError(
            f"{place.folder}: no round has labels yet, so there is nothing to report; see `python -m rounds status`"
        )
    rounds = []
    pairs: list[list[Pair]] = [list(read_pairs(_file(place, number, "pairs.jsonl"))) for number in range(1, last + 1)]
    for number in range(1, last + 1):
        here = folder_of(number)
        tuned = (number, "evaluate") in done
        rounds.append(
            {
                "round": number,
                "labels": _labels(place, number, rate) | {"file": f"{here}/export.json"},
                **_agreement(read_json(_file(place, number, "labels.json")), f"{here}/labels.html"),
                "again": _again(pairs[number - 1], pairs[: number - 1], f"{here}/pairs.jsonl"),
                "reward": _model(place, number, "rm") if (number, "fit reward") in done else None,
                "judge": _model(place, number, "judge") if (number, "fit judge") in done else None,
                "policy": _policy(place, number) if tuned else None,
                "people": _people(pairs[number], place, number) if tuned and number < last else None,
            }
        )
    return {
        "title": place.settings.title,
        "policy": place.settings.policy,
        "rate": rate,
        "currency": currency,
        "rounds": rounds,
    }


def _file(place: Place, number: int, name: str) -> Path:
    return place.folder / folder_of(number) / name


def _labels(place: Place, number: int, rate: float) -> Figures:
    """Count labels, people and hours; time without a lead time is not counted, and said."""
    made = [one for task in tasks_of(_file(place, number, "export.json")) for one in task["annotations"]]
    timed = [float(one["lead_time"]) for one in made if one.get("lead_time") is not None]
    hours = sum(timed) / 3600
    return {
        "value": sum(not one["was_cancelled"] for one in made),
        "skipped": sum(bool(one["was_cancelled"]) for one in made),
        "people": len({one["completed_by"] for one in made}),
        "hours": hours,
        "untimed": len(made) - len(timed),
        "cost": hours * rate if rate else None,
    }


def _agreement(summary: Figures, file: str) -> Figures:
    agreement = summary["agreement"]
    return {"agreement": agreement["raw"] | {"file": file}}


def _again(now: Iterable[Pair], earlier: Iterable[Iterable[Pair]], file: str) -> Figures | None:
    """Say how often people prefer the same as in an earlier round, of those answers that they preferred one of both times."""
    before = {_content(pair): pair.chosen for pairs in earlier for pair in pairs if pair.meta.get("verdict") is None}
    asked = [
        pair for pair in now if _why(pair) == "again" and _content(pair) in before and pair.meta.get("verdict") is None
    ]
    if not asked:
        return None
    return share(sum(before[_content(pair)] == pair.chosen for pair in asked), len(asked)).to_dict() | {"file": file}


def _people(later: Iterable[Pair], place: Place, number: int) -> Figures | None:
    """Say how often people prefer the policy of a round to the start, from tasks of the next round that were drawn at random."""
    both = {place.settings.policy, f"{folder_of(number)}/policy"}
    decided = [
        pair
        for pair in later
        if _why(pair) in UNCHOSEN
        and set((pair.meta.get("models") or {}).values()) == both
        and pair.meta.get("verdict") is None
    ]
    if not decided:
        return None
    won = sum(pair.meta["models"]["chosen"] != place.settings.policy for pair in decided)
    return share(won, len(decided)).to_dict() | {"file": f"{folder_of(number + 1)}/pairs.jsonl"}


def _model(place: Place, number: int, name: str) -> Figures:
    """Give a reward model's accuracy on prompts that it has not seen, between floor and ceiling."""
    metrics = read_json(_file(place, number, f"{name}/metrics.json"))
    low, high = metrics["accuracy_interval"] or (None, None)
    ceiling = metrics.get("ceiling") or {}
    return {
        "value": metrics["accuracy"],
        "low": low,
        "high": high,
        "trials": metrics.get("decided"),
        "floor": metrics["length_floor"],
        "ceiling": ceiling.get("value"),
        "file": f"{folder_of(number)}/{name}/report.html",
    }


def _policy(place: Place, number: int) -> Figures:
    """Give what `ppo evaluate` found on the held-out prompts: policy against the start."""
    found = read_json(_file(place, number, "evaluation.json"))
    measures = found["measures"]
    return {
        "wins": _named(measures["judge"]["wins"]),
        "kl": _named(found["kl"]),
        "length": _named(measures["length"]["tuned"]),
        "start_length": _named(measures["length"]["base"]),
        "prompts": found["prompts"],
        "file": f"{folder_of(number)}/evaluation.json",
    }


def _named(interval: Figures | None) -> Figures | None:
    return None if interval is None else {"value": interval["mean"], "low": interval["low"], "high": interval["high"]}


def _content(pair: Pair) -> tuple[str, ...]:
    return prompt_text(pair.prompt), *sorted((pair.chosen, pair.rejected))


def _why(pair: Pair) -> str | None:
    return (pair.meta.get("task_meta") or {}).get("why")
