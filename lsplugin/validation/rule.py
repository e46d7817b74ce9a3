"""Rules: a check, and what a person should know about it.

A rule is one function over a `Config`, declared with `@rule(...)`. What it yields says where and what; id, severity and
explanation are the rule's own and are written once, here for the validator, `lsplugin rules` and the docs page alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from lsplugin.validation.issue import Issue, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lsplugin.validation.config import Config


class Finding(NamedTuple):
    """What a check yields: see `Issue` for the fields."""

    line: int
    problem: str
    remedy: str
    suggestion: str | None = None
    row: int | None = None


@dataclass(frozen=True)
class Rule:
    """A rule of the validator.

    Attributes:
        id: stable id.
        severity: how bad a violation is.
        summary: the rule as one sentence: what must hold.
        why: what happens in Label Studio when it does not.
        bad: a config that breaks this rule and no other error rule.
        good: the same, repaired.
        check: yields every violation.
        shows: whether the examples are configs, or rows of a dataset under the config of `examples.PAGE`.
    """

    id: str
    severity: Severity
    summary: str
    why: str
    bad: str
    good: str
    check: Callable[[Config], Iterable[Finding]]
    shows: Literal["config", "task"] = "config"

    def issues(self, config: Config) -> list[Issue]:
        """Every violation in a config."""
        return [Issue(self.id, self.severity, *finding) for finding in self.check(config)]


RULES: dict[str, Rule] = {}
"""Every rule by its id, in the order of declaration."""


def rule(
    id_: str,
    severity: Severity,
    *,
    summary: str,
    why: str,
    bad: str,
    good: str,
    shows: Literal["config", "task"] = "config",
) -> Callable[[Callable[[Config], Iterable[Finding]]], Callable[[Config], Iterable[Finding]]]:
    """Declare the decorated check as a rule."""

    def declare(check: Callable[[Config], Iterable[Finding]]) -> Callable[[Config], Iterable[Finding]]:
        assert id_ not in RULES, id_
        RULES[id_] = Rule(id_, severity, summary, why, bad, good, check, shows)
        return check

    return declare
