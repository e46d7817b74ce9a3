"""This package's exceptions."""

from lsplugin.errors import LspluginError


class PPOError(LspluginError):
    """A policy, reward or setting that cannot be used: what was expected, what came, what to do."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Somebody pressed Ctrl-C; says how it goes on."""
