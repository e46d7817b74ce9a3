"""What the validator reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        rule: stable id of the rule, such as `pairwise-targets`.
        severity: `error` where the editor would not work, a label would be lost or wrong, or an annotator's browser would be
            exposed; `warning` for what is merely unwise.
        line: line in the config, from 1.
        problem: what was expected and what came.
        remedy: what to do about it.
        suggestion: what was probably meant, when there is a good guess.
        row: row of the tasks file, from 1, when the fault lies in a task.
    """

    rule: str
    severity: Severity
    line: int
    problem: str
    remedy: str
    suggestion: str | None = None
    row: int | None = None

    @property
    def message(self) -> str:
        """Problem, suggestion and remedy as one line."""
        where = f"row {self.row}: " if self.row is not None else ""
        guess = f"; did you mean {self.suggestion}?" if self.suggestion else ""
        return " ".join(f"{where}{self.problem}{guess}: {self.remedy}".split())


def has_errors(issues: list[Issue]) -> bool:
    """Say whether any issue is an error."""
    return any(issue.severity == "error" for issue in issues)
