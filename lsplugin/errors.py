"""The one exception that every user mistake ends in."""

from __future__ import annotations


class LspluginError(Exception):
    """What a person can mend: the message says what was expected, what came, where, and what to do.

    The command lines print it as one line and exit with 1; nothing else is caught.
    """
