"""What goes wrong with rounds that a person can mend."""

from __future__ import annotations

from lsplugin.errors import LspluginError


class RoundsError(LspluginError):
    """The base of this package's exceptions; shown as one line."""
