"""Published preferences -> tasks to label anew; which answer was chosen is kept in meta, and its place does not tell."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from lsplugin.dataset import Made, why_unusable
from lsplugin.dialogue import messages_of
from lsplugin.errors import LspluginError
from lsplugin.published import UnusableError, read_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lsplugin.preferences import Prompt
    from lsplugin.published import Raw, Read

SOURCES = {
    "hh": "Anthropic's HH: two whole transcripts a row",
    "trl": "TRL's preferences: with a prompt or without, in texts or in messages",
    "ultrafeedback": "UltraFeedback binarized: two conversations a row",
}
"""The kinds of files that are read, each with a line about it."""

_USED = {"prompt", "chosen", "rejected", "messages", "row"}
_SMALL = 200  # characters of a text that is kept in meta
_BAD = "of the wrong shape"


def tasks_from(
    source: str,
    rows: Iterable[Raw],
    *,
    chat: bool = False,
    seed: int = 0,
    limit: int | None = None,
    skip_bad: bool = False,
) -> Made:
    """Make a task of every row that holds a comparison.

    Which field the chosen answer becomes follows from a hash of the seed and the row's content, so neither its place nor the
    row's tells it; `meta` does, where annotators do not look.

    Args:
        source: one of SOURCES.
        rows: what to make tasks of.
        chat: give every prompt as messages; else a prompt of one turn is its text, and a transcript stays a text.
        seed: another seed draws other places, and another `limit`.
        limit: keep that many tasks, drawn at random, in their old order.
        skip_bad: count rows of the wrong shape instead of stopping at the first.

    Raises:
        LspluginError: there is no such source, a row has the wrong shape (with file, line and field).
    """
    if source not in SOURCES:
        raise LspluginError(f"expected one of {', '.join(SOURCES)} to read, found {source!r}")
    count, dropped = 0, Counter[str]()
    found: list[tuple[bytes, int, dict[str, Any]]] = []
    for count, raw in enumerate(rows, start=1):
        try:
            read = read_row(source, raw)
        except UnusableError as error:
            dropped[str(error)] += 1
            continue
        except LspluginError as error:
            if not skip_bad:
                raise LspluginError(f"{error}; --skip-bad leaves such rows out") from None
            dropped[_BAD] += 1
            continue
        shown = _shown(read[0], chat=chat)
        if reason := why_unusable(shown, read[1:]):
            dropped[reason] += 1
            continue
        draw = hashlib.blake2b(json.dumps([seed, *read]).encode()).digest()
        found.append((draw[1:], count, _task(source, raw, (shown, *read[1:]), chosen_first=draw[0] % 2 == 0)))
    if limit is not None and limit < len(found):
        dropped[f"not among the {limit} drawn"] = len(found) - limit
        found = sorted(sorted(found, key=lambda item: item[:2])[:limit], key=lambda item: item[1])
    return Made(count, [task for *_, task in found], dropped)


def _task(source: str, raw: Raw, read: Read, *, chosen_first: bool) -> dict[str, Any]:
    prompt, chosen, rejected = read
    one, two = (chosen, rejected) if chosen_first else (rejected, chosen)
    kept = {name: value for name, value in raw.value.items() if name not in _USED and _is_small(value)}
    original = {"chosen": "answer1" if chosen_first else "answer2", "row": raw.number, **kept}
    return {"prompt": prompt, "answer1": one, "answer2": two, "meta": {"source": source, "original": original}}


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _SMALL and value.isprintable()
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, int)


def _shown(prompt: Prompt, *, chat: bool) -> Prompt:
    if isinstance(prompt, str):
        return messages_of(prompt) if chat else prompt
    alone = len(prompt) == 1 and prompt[0] == {"role": "user", "content": prompt[0]["content"]}
    return prompt[0]["content"] if alone and not chat else prompt
