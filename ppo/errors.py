"""This package's one exception."""

from lsplugin.errors import LspluginError


class PPOError(LspluginError):
    """A policy, reward or setting that cannot be used: what was expected, what came, what to do."""
