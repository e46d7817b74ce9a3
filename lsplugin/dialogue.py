"""Comparisons published as two whole dialogues, as in Anthropic's HH data: find the prompt and the two answers again."""

from __future__ import annotations

from lsplugin.errors import LspluginError

TURN = "\n\nAssistant:"
"""What stands before each of the assistant's turns; a prompt ends with it."""


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
