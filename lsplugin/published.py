"""Rows of published preference files -> prompt, chosen and rejected answer, by the shape of the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lsplugin.dialogue import HUMAN, TURN, split_dialogues
from lsplugin.errors import LspluginError
from lsplugin.files import PathLike, decoded_lines, open_text, read_json, read_jsonl
from lsplugin.preferences import Message, Prompt, check_prompt, kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPENINGS = (
    "<|im_start|>assistant\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<start_of_turn>model\n",
    "<|assistant|>\n",
    "[/INST]",
    "### Response:\n",
)
"""What chat templates put before an answer."""

_STOPS = "\u3002\uff1f\uff01\uff1a"  # full-width . ? ! : have no blank behind them
_EARLIER = "the dialogues differ before the last answer"

Read = tuple[Prompt, str, str]
"""Prompt, chosen answer, rejected answer."""


class Raw(NamedTuple):
    """A row as it stands in its file: its number from 1 (the line, for JSONL), how a complaint names it, and what it holds."""

    number: int
    where: str
    value: Any


class UnusableError(Exception):
    """A row of the right shape that holds no comparison; says why."""


def read_rows(path: PathLike) -> Iterator[Raw]:
    """Yield the rows of a JSON list or of JSONL, told apart by how the file begins; packed or not."""
    with open_text(path) as stream:
        first = next((line for line in decoded_lines(stream, path) if line.strip()), "")
    if first.lstrip().startswith("["):
        for number, value in enumerate(read_json(path), start=1):
            yield Raw(number, f"{path}, row {number}", value)
    else:
        for number, value in read_jsonl(path):
            yield Raw(number, f"{path}, line {number}", value)


def read_row(source: str, raw: Raw) -> Read:
    """Find the prompt and the two answers of a row by its shape.

    Raises:
        LspluginError: the row has no shape of this source; with file, line and field.
        UnusableError: it has, but holds no comparison.
    """
    row, where = raw.value, raw.where
    if not isinstance(row, dict):
        raise LspluginError(f"{where}: expected an object with chosen and rejected, found {kind(row)}")
    chosen, rejected = (_field(row, name, source, where) for name in ("chosen", "rejected"))
    prompt = None if row.get("prompt") is None else check_prompt(row["prompt"], where=where)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _conversations(None if source == "ultrafeedback" else prompt, chosen, rejected)
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise LspluginError(
            f"{where}: expected `chosen` and `rejected` to be both texts or both messages, found one of each"
        )
    if source == "hh" or (prompt is None and chosen.startswith(HUMAN) and TURN in chosen and TURN in rejected):
        return _dialogues(chosen, rejected)
    if prompt is None:
        prompt, chosen, rejected = _texts(chosen, rejected)
    return prompt, _apart(prompt, chosen), _apart(prompt, rejected)


def _field(row: Mapping[str, Any], name: str, source: str, where: str) -> Prompt:
    value = row.get(name)
    if source == "hh" and not (isinstance(value, str) and TURN in value):
        raise LspluginError(
            f"{where}: expected `{name}` to be a transcript with {TURN.strip()!r} turns, found {kind(value)}"
        )
    if source == "ultrafeedback" and isinstance(value, str):
        raise LspluginError(
            f'{where}: expected `{name}` to be a list of {{"role", "content"}} messages, found {kind(value)}'
        )
    return check_prompt(value, where=where, name=name)


def _conversations(prompt: Prompt | None, chosen: list[Message], rejected: list[Message]) -> Read:
    """Count the messages with which both begin to the prompt; one answer each must be left."""
    most = min(len(chosen), len(rejected)) - 1
    same = next((place for place in range(most) if chosen[place] != rejected[place]), most)
    before, (better, *more), (worse, *others) = chosen[:same], chosen[same:], rejected[same:]
    if more or others:
        raise UnusableError(_EARLIER)
    if {better["role"], worse["role"]} != {"assistant"}:
        raise UnusableError("the last message is not the assistant's")
    if isinstance(prompt, str) and before:  # the messages repeat the prompt, or go on from it
        prompt = [{"role": "user", "content": prompt}] if before[0]["role"] == "assistant" else []
    if prompt and before[: len(prompt)] == prompt:
        prompt = []
    whole = prompt if isinstance(prompt, str) else (prompt or []) + before
    return whole, better["content"], worse["content"]


def _dialogues(chosen: str, rejected: str) -> Read:
    try:
        prompt, better, worse = split_dialogues(chosen, rejected)
    except LspluginError:
        raise UnusableError(_EARLIER) from None
    if HUMAN in better or HUMAN in worse:
        raise UnusableError("the human speaks after the last answer")
    return prompt, better, worse


def _texts(chosen: str, rejected: str) -> Read:
    """Split two texts where a template opens the answer, else behind the last whole word with which both begin."""
    shorter = min(len(chosen), len(rejected))
    end = next((place for place in range(shorter) if chosen[place] != rejected[place]), shorter)
    same = chosen[:end]
    behind, opening = max(((same.rfind(mark) + len(mark), mark) for mark in _OPENINGS if mark in same), default=(0, ""))
    if opening:
        if opening in chosen[behind:] or opening in rejected[behind:]:
            raise UnusableError(_EARLIER)
        return same[:behind], chosen[behind:], rejected[behind:]
    if chosen != rejected and end == shorter:
        raise UnusableError("one text is the beginning of the other, so where its answer begins is not known")
    nexts = [chosen[end : end + 1], rejected[end : end + 1]]
    if not all(character.isspace() for character in nexts):
        while end and not same[end - 1].isspace() and same[end - 1] not in _STOPS:
            end -= 1
    prompt = same[:end].removesuffix(" ")
    if not prompt.strip() and chosen != rejected:
        raise UnusableError("the texts begin with no prompt in common")
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _apart(prompt: Prompt, answer: str) -> str:
    """Take away the blank that keeps an answer's first word from the prompt's last."""
    is_open = isinstance(prompt, str) and bool(prompt) and not prompt[-1].isspace()
    return answer.removeprefix(" ") if is_open else answer
