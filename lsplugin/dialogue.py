"""Comparisons published as two whole dialogues, as in Anthropic's HH data: find the prompt and the two answers again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from lsplugin.preferences import Message

HUMAN = "\n\nHuman:"
"""What stands before each of the human's turns."""

TURN = "\n\nAssistant:"
"""What stands before each of the assistant's turns; a prompt ends with it."""

_ROLES = {HUMAN: "user", TURN: "assistant"}


def split_dialogues(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two dialogues that differ in their last answer only: (prompt, chosen answer, rejected answer).

    The prompt ends with the marker of the assistant's turn; answers come without blanks around them.

    Raises:
        LspluginError: a dialogue has no assistant's turn, or they differ before the last one.
    """
    (prompt, marker, better), (other, _, worse) = chosen.rpartition(TURN), rejected.rpartition(TURN)
    if not marker:
        raise LspluginError(f"expected a dialogue with {TURN.strip()!r} turns, found {chosen[:40]!r}")
    if prompt != other:
        raise LspluginError("expected two dialogues that differ in their last answer, found two that differ before it")
    return prompt + marker, better.strip(), worse.strip()


def messages_of(prompt: str) -> list[Message]:
    """Give a text prompt as messages: a transcript that ends where the assistant answers turn by turn, else what a user says.

    What stands before the first turn of a transcript is a system message.
    """
    if not prompt.endswith(TURN):
        return [{"role": "user", "content": prompt}]
    before, *turns = re.split(f"({HUMAN}|{TURN})", prompt.removesuffix(TURN))
    made = [{"role": "system", "content": before}] if before.strip() else []
    spoken = zip(turns[::2], turns[1::2], strict=True)
    return made + [{"role": _ROLES[marker], "content": content.removeprefix(" ")} for marker, content in spoken]
