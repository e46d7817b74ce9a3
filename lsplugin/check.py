"""Refuse a config with errors, in one line."""

from __future__ import annotations

from lsplugin.errors import LspluginError
from lsplugin.validation import has_errors, validate


def check_config(config: str, *, what: str = "the config") -> None:
    """Raise with the first error of a config that the editor could not show, or that would lose labels.

    Args:
        config: the config as text.
        what: how the message calls it.
    """
    issues = validate(config)
    if has_errors(issues):
        first = next(issue for issue in issues if issue.severity == "error")
        raise LspluginError(
            f"{what} has errors, first on line {first.line}: {first.message} (all of them: lsplugin validate FILE)"
        )
