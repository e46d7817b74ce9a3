"""This package's one exception."""

from lsplugin.errors import LspluginError


class RewardModelError(LspluginError):
    """A reward model that cannot be made, loaded or fed: what was expected, what came, what to do."""
