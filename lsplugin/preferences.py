"""Preference pairs: the one thing that the labelling side and the training side share.

Importing this module pulls in neither lxml nor the Label Studio SDK, so a trainer pays nothing for it.

A pair is a line of JSON in TRL's explicit-prompt form::

    {"prompt": "The quick brown fox", "chosen": "jumps over the lazy dog.", "rejected": "bags few lynx.",
     "margin": 1.0, "probability": 0.8, "weight": 1.0, "meta": {"task": 7}}
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lsplugin.errors import LspluginError
from lsplugin.files import PathLike, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user", "content": "..."}`."""

Prompt = str | list[Message]
"""Plain text, or a conversation whose last turn is the one to answer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: under `prompt`, `chosen` is better than `rejected`.

    Attributes:
        prompt: what both answers answer.
        chosen: the better answer.
        rejected: the worse answer.
        margin: how much better, on the annotators' own scale (0 = not at all); None where nobody was asked.
        probability: that `chosen` is better, aggregated over annotators, 0.5 to 1; None for a single judgement.
        weight: how much this pair counts in a loss (default 1); None where nothing is known.
        meta: where it comes from: task, annotators, models, sides, reason.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    probability: float | None = None
    weight: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the pair as its JSON object; what is not known is left out."""
        row: dict[str, Any] = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        for name in ("margin", "probability", "weight"):
            if (value := getattr(self, name)) is not None:
                row[name] = value
        if self.meta:
            row["meta"] = dict(self.meta)
        return row

    @classmethod
    def from_dict(cls, row: object, *, where: str) -> Pair:
        """Check one JSON object and make it a pair; `where` (file and line) opens every complaint."""
        if not isinstance(row, dict):
            raise LspluginError(f"{where}: expected an object with prompt, chosen and rejected, found {kind(row)}")
        for name in ("chosen", "rejected"):
            if not isinstance(row.get(name), str):
                raise LspluginError(f"{where}: expected `{name}` to be text, found {kind(row.get(name))}")
        numbers = {name: _number(row, name, where) for name in ("margin", "probability", "weight")}
        probability, weight = numbers["probability"], numbers["weight"]
        if probability is not None and not 0 <= probability <= 1:
            raise LspluginError(f"{where}: expected `probability` between 0 and 1, found {probability}")
        if weight is not None and weight < 0:
            raise LspluginError(f"{where}: expected `weight` of 0 or more, found {weight}")
        meta = row.get("meta") or {}
        if not isinstance(meta, dict):
            raise LspluginError(f"{where}: expected `meta` to be an object, found {kind(meta)}")
        prompt = check_prompt(row.get("prompt"), where=where)
        return cls(prompt=prompt, chosen=row["chosen"], rejected=row["rejected"], meta=meta, **numbers)


def check_prompt(prompt: object, *, where: str, name: str = "prompt") -> Prompt:
    """Accept text or a list of {"role", "content"} messages; complain about anything else in the field called `name`."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(_is_message(message) for message in prompt):
        return prompt
    raise LspluginError(
        f'{where}: expected `{name}` to be text or a list of {{"role", "content"}} messages, found {kind(prompt)}'
    )


def read_pairs(path: PathLike) -> Iterator[Pair]:
    """Stream the pairs of a JSONL file; a bad row is reported with its line and field."""
    for number, row in read_jsonl(path):
        yield Pair.from_dict(row, where=f"{path}, line {number}")


def write_pairs(path: PathLike, pairs: Iterable[Pair]) -> int:
    """Write pairs as JSONL, atomically; return how many."""
    return write_jsonl(path, (pair.to_dict() for pair in pairs))


def read_prompts(path: PathLike) -> list[Prompt]:
    """Read prompts.jsonl: one `{"prompt": ...}` a line."""
    prompts = []
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise LspluginError(f'{where}: expected an object such as {{"prompt": "..."}}, found {kind(row)}')
        prompts.append(check_prompt(row.get("prompt"), where=where))
    if not prompts:
        raise LspluginError(f'{path}: no prompts in it; expected one {{"prompt": ...}} a line')
    return prompts


def prompt_text(prompt: Prompt) -> str:
    """Give a prompt as one string a person can read, and the same string for the same prompt."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def split_by_prompt(
    rows: Sequence[T], prompts: Sequence[Prompt], *, held_out: float, seed: int
) -> tuple[list[T], list[T]]:
    """Split rows so that no prompt stands on both sides: (train, held out), each in its old order.

    Prompts are drawn by a keyed hash of their text, so the split depends on the seed and the set of prompts only, not on
    the order of the rows or on how many rows a prompt has.

    Args:
        rows: what to split.
        prompts: the prompt of each row, same length.
        held_out: share of the distinct prompts to hold out, between 0 and 1.
        seed: another seed draws other prompts.
    """
    key = seed.to_bytes(8, "big", signed=True)
    texts = [prompt_text(prompt) for prompt in prompts]
    drawn = sorted(
        set(texts), key=lambda text: hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key).digest()
    )
    out = set(drawn[: round(held_out * len(drawn))])
    train = [row for row, text in zip(rows, texts, strict=True) if text not in out]
    rest = [row for row, text in zip(rows, texts, strict=True) if text in out]
    return train, rest


def part_of(prompt: Prompt, shares: Sequence[float], *, seed: int) -> int:
    """Say into which part of a split a prompt falls, from its text and the seed alone: a stream can be split as it passes.

    Args:
        prompt: rows of the same prompt fall into the same part.
        shares: of each part; they sum to one.
        seed: another seed deals anew.
    """
    key = seed.to_bytes(8, "big", signed=True)
    digest = hashlib.blake2b(prompt_text(prompt).encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    for part, share in enumerate(shares):
        place -= share
        if place < 0:
            return part
    return len(shares) - 1


def kind(value: object) -> str:
    """Name what came instead of what was expected, shortly."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}" if value.strip() else "an empty text"
    return {"list": "a list", "dict": "an object"}.get(type(value).__name__, f"a {type(value).__name__}")


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
    )


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise LspluginError(f"{where}: expected `{name}` to be a number, found {kind(value)}")
    return float(value)
