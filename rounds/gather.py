"""Pairs of all rounds in one file, those on the judge's prompts in another: what people said, without a server's numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lsplugin.preferences import prompt_text, read_pairs
from rounds.errors import RoundsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.files import PathLike
    from lsplugin.preferences import Pair


def gather(paths: Sequence[PathLike], judging: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read the pairs of all rounds: (the reward model's, the judge's), rows in an order that no server decides.

    Args:
        paths: pairs of round 1, round 2, ...
        judging: texts of the judge's prompts.

    Raises:
        RoundsError: one of both would be empty.
    """
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, path in enumerate(paths, start=1):
        rows = [(prompt_text(pair.prompt) in judging, _row(pair, number)) for pair in read_pairs(path)]
        for judged, row in sorted(rows, key=lambda found: json.dumps([found[1]["meta"]["task"], found[1]])):
            parts[judged].append(row)
    for name, part in zip(("the reward model", "the judge"), parts, strict=True):
        if not part:
            raise RoundsError(
                f"{', '.join(map(str, paths))}: expected pairs for {name}, found none; label more, or see pairs-counts.json for "
                "what was dropped"
            )
    return parts


def _row(pair: Pair, number: int) -> dict[str, Any]:
    """Keep what was said, in which round and of which task (`meta.task` is its content key)."""
    told = pair.meta.get("task_meta") or {}
    prompt = told.get("messages", pair.prompt)
    meta = {"round": number, "task": pair.meta.get("key"), "models": pair.meta.get("models"), "why": told.get("why")}
    return {**pair.to_dict(), "prompt": prompt, "meta": meta}
