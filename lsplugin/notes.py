"""What annotators say besides the comparison: reasons, criteria, flags, and answers of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsplugin.answers import letter
from lsplugin.controls import CRITERION, REWRITE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsplugin.judged import Judged

SIDES = ("left", "right")


def notes(judged: Judged) -> dict[str, Any]:
    """Give what was ticked and written: `reasons` and `flags` as lists, `reason` as text, `criteria` as places of answers.

    A criterion's place is None where the answers are level in it.
    """
    found: dict[str, Any] = {}
    for result in judged.results:
        name, value = str(result.get("from_name")), result.get("value") or {}
        if name in {"reasons", "flags"} and value.get("choices"):
            found.setdefault(name, []).extend(value["choices"])
        elif name == "reason" and (written := _written(value)):
            found["reason"] = written
        elif name.startswith(CRITERION) and value.get("choices"):
            found.setdefault("criteria", {})[name.removeprefix(CRITERION)] = _place(value["choices"][0])
    return found


def rewrites(judged: Judged) -> Iterator[tuple[int, str]]:
    """Yield (place, text) for every answer that the annotator edited into another one."""
    for result in judged.results:
        name = str(result.get("from_name"))
        place = _number(name.removeprefix(REWRITE)) if name.startswith(REWRITE) else None
        if place is not None and place < len(judged.texts):
            written = _written(result.get("value") or {})
            if written and written != judged.texts[place].strip():
                yield place, written


def _written(value: dict[str, Any]) -> str:
    text = value.get("text")
    return "\n".join(map(str, text)).strip() if isinstance(text, list) else str(text or "").strip()


def _place(choice: object) -> int | None:
    """Read which answer a criterion prefers: a side, a box's letter, or (in older configs) answerN."""
    if choice in SIDES:
        return SIDES.index(str(choice))
    letters = [letter(index) for index in range(26)]
    return letters.index(str(choice)) if choice in letters else _number(str(choice).removeprefix("answer"))


def _number(text: str) -> int | None:
    return int(text) - 1 if text.isdecimal() and int(text) > 0 else None
