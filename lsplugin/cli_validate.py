"""`lsplugin validate` and `lsplugin rules`."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsplugin import console
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from lsplugin.validation import Issue


def validate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A labeling config; - reads stdin.")],
    tasks: Annotated[
        Path | None, typer.Option("--tasks", help="A dataset that it will show, checked with it.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the issues as a JSON list.")] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what is safe to repair, and show the difference; - prints the result.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings, too.")] = False,
    server_version: Annotated[
        str | None,
        typer.Option("--server-version", help="The Label Studio that it is for, such as 1.20.", show_default=False),
    ] = None,
) -> None:
    """Say whether a config is ok, or everything that is wrong with it, with lines. Exit code 1 on errors, 2 if unreadable."""
    from lsplugin.dataset import read_dataset
    from lsplugin.files import open_bytes
    from lsplugin.validation import validate as find_issues

    if server_version is not None and not all(part.isdigit() for part in server_version.split(".")):
        raise LspluginError(f"--server-version {server_version}: expected numbers and dots, such as 1.20")
    try:
        with nullcontext(sys.stdin.buffer) if str(config) == "-" else open_bytes(config) as stream:
            text = stream.read()
        rows = [task.data for task in read_dataset(tasks)] if tasks is not None else []
    except LspluginError as error:
        console.say(f"error: {error}")
        raise typer.Exit(2) from None
    if fix:
        text = _fixed(config, text, rows)
    issues = find_issues(text, tasks=_prepared(rows, text), server_version=server_version)
    _report(config, issues, as_json=as_json, to_stderr=fix and str(config) == "-")
    if any(issue.severity == "error" or strict for issue in issues):
        raise typer.Exit(1)


def rules(
    name: Annotated[
        str | None, typer.Argument(metavar="[RULE]", help="One rule; all of them by default.", show_default=False)
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print them as the page docs/rules.md.")] = False,
) -> None:
    """Explain the validator's rules: what must hold, why, a bad and a good example."""
    from lsplugin.validation import RULES
    from lsplugin.validation.page import as_markdown, as_text

    if name is not None and name not in RULES:
        raise LspluginError(f"there is no rule {name}; there are: {', '.join(RULES)}")
    if markdown:
        typer.echo(as_markdown(), nl=False)
    elif name is not None:
        typer.echo(as_text(RULES[name]))
    else:
        for rule in RULES.values():
            typer.echo(f"{rule.id:24} {rule.severity:8} {rule.summary}")
        console.say("lsplugin rules RULE says why, with examples")


def _prepared(rows: list[dict[str, Any]], config: bytes) -> list[dict[str, Any]]:
    """Give the rows as the config will show them; as they stand when the config is not even XML."""
    from lxml import etree

    from lsplugin.prepare import prepare

    try:
        root = etree.fromstring(config, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        return rows
    return [prepare(row, root) for row in rows]


def _fixed(config: Path, source: bytes, rows: list[dict[str, Any]]) -> bytes:
    """Repair a config in its file, or onto stdout, and show what was changed."""
    import difflib

    from lsplugin.files import write_text
    from lsplugin.validation.fix import fix

    try:
        before = source.decode("utf-8")
    except UnicodeDecodeError:
        return source
    after = fix(before, fields=rows[0] if rows else ())
    if str(config) == "-":
        typer.echo(after, nl=False)
        return after.encode()
    if after != before:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
        typer.echo("".join(difflib.unified_diff(old, new, str(config), f"{config} (fixed)")), nl=False)
        write_text(config, after)
    return after.encode("utf-8", "surrogatepass")


def _report(config: Path, issues: list[Issue], *, as_json: bool, to_stderr: bool) -> None:
    if as_json:
        found = [dataclasses.asdict(issue) | {"message": issue.message} for issue in issues]
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2), err=to_stderr)
        return
    for issue in issues:
        typer.echo(f"{config}:{issue.line}: {issue.severity}: {issue.message} [{issue.rule}]", err=to_stderr)
    if not any(issue.severity == "error" for issue in issues):
        warnings = f", with {len(issues)} warning{'s' * (len(issues) > 1)}" if issues else ""
        typer.echo(f"{config}: ok{warnings}", err=to_stderr)
