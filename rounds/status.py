"""Where the rounds are, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rounds.steps import WAITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rounds.run import Waiting
    from rounds.state import Found, Place


def waiting_line(found: Waiting) -> str:
    """Say what people still have to do."""
    skipped = f" ({found.skipped} of the others were skipped; --enough goes on without them)" if found.skipped else ""
    return f"round {found.round} waits: {found.labelled} of {found.tasks} tasks labelled{skipped}, at {found.url}"


def as_text(place: Place, found: Sequence[Found]) -> str:
    """Lay out what is done; a round of which all is done is one line."""
    rows = []
    for number in range(1, place.settings.rounds + 1):
        own = [one for one in found if one.step.round == number]
        if all(one.state in {"done", "to do"} for one in own) and len({one.state for one in own}) == 1:
            rows.append((f"round {number}", f"all {len(own)} steps", own[0].state, ""))
            continue
        rows += [(f"round {number}", one.step.name, one.state, one.why) for one in own]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"next: {_next(place, found)}",
            f"fingerprint of all that was done: {place.ledger.fingerprint()[:16]}",
        ]
    )


def to_dict(place: Place, found: Sequence[Found]) -> dict[str, Any]:
    """Give the same as JSON."""
    return {
        "steps": [
            {"round": one.step.round, "step": one.step.name, "state": one.state, "why": one.why} for one in found
        ],
        "next": _next(place, found),
        "fingerprint": place.ledger.fingerprint(),
    }


def _next(place: Place, found: Sequence[Found]) -> str:
    """Say what `next` would begin with."""
    first = next((one for one in found if one.state not in {"done", "kept"}), None)
    if first is None:
        return f"nothing: all {place.settings.rounds} rounds are done"
    if first.step.name == WAITS and first.state == "to do":
        return f"round {first.step.round} is with people; `python -m rounds next` looks whether they are ready"
    return f"round {first.step.round}, {first.step.name}: {first.step.says}"
