"""Is all well with a project? Its server, the key, the config, and what is stored, each with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lsplugin.doctor_labels import Stored
from lsplugin.exported import exported, project_tasks
from lsplugin.members import names
from lsplugin.offered import Offered
from lsplugin.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lsplugin.project import Client, Project

KNOWN = ((1, 20), (1, 23))
"""The first and the last version of Label Studio that this is known to work with."""

RIGHTS = ("projects.view", "projects.change")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in a word or two.
        verdict: ok, or how bad it is.
        text: what was found, and what to do about it.
    """

    check: str
    verdict: Literal["ok", "warning", "error"]
    text: str


def examine(
    client: Client, project: Project, export: Path | None = None, *, advance: Callable[[int], None] = lambda _: None
) -> Iterator[Finding]:
    """Yield what every check found, one after the other.

    Args:
        client: the server; that it answers and takes the key is what the first findings say.
        project: what to examine.
        export: its JSON export; by default it is exported anew.
        advance: called with the number of bytes of every chunk of a new export.

    Raises:
        LspluginError: the server does not answer, or the export cannot be read.
    """
    release = str((client.call("asking for the version", "api/version") or {}).get("release", ""))
    yield Finding("server", "ok", f"{client.connection.url} answers")
    yield _version(release)
    yield _token(client)
    yield _config(project, release)
    counts = client.call("reading the project's counts", f"api/projects/{project.id}")
    predictions = client.call("reading the predictions", "api/predictions/", params={"project": project.id})
    stored = Stored(project.config)
    with exported(client, project, export, advance=advance) as path:
        for task in project_tasks(path, project):
            stored.add(task)
    yield _counts(stored, counts, project)
    yield _fit(stored, project)
    yield from _predictions(stored, predictions, Offered.from_config(project.config))
    yield _empty(stored, counts)
    yield _fast(stored, client)
    yield _twice(stored)


def _version(release: str) -> Finding:
    number = version_of(release)
    first, last = (".".join(map(str, known)) for known in KNOWN)
    if number is not None and KNOWN[0] <= number[:2] <= KNOWN[1]:
        return Finding("version", "ok", f"Label Studio {release}")
    return Finding(
        "version", "warning", f"Label Studio {release or 'of an unknown version'}; known to work: {first} to {last}"
    )


def version_of(release: str) -> tuple[int, ...] | None:
    """Read the numbers of a release such as 1.23.2 or 1.23.0.dev3; None where it starts with none."""
    numbers: list[int] = []
    for part in release.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers) if len(numbers) >= 2 else None


def _token(client: Client) -> Finding:
    kind = (
        "a personal access token" if client.connection.api_key.count(".") == 2 else "a legacy token"
    )  # a JWT has three parts
    user = client.call("asking whose key it is", "api/current-user/whoami")
    rights = user.get("permissions")
    missing = [right for right in RIGHTS if rights is not None and right not in rights]
    who = f"{kind} of {user.get('email')}"
    if missing:
        return Finding("key", "error", f"{who}, without {' and '.join(missing)}; use the key of somebody who has them")
    may = "who may read and change the project" if rights is not None else "who may read the project"
    return Finding("key", "ok", f"{who}, {may}")


def _config(project: Project, release: str) -> Finding:
    number = version_of(release)
    issues = validate(project.config, server_version=".".join(map(str, number)) if number else None)
    errors = [issue for issue in issues if issue.severity == "error"]
    warnings = [issue for issue in issues if issue.severity == "warning"]
    if not errors and not warnings:
        return Finding("config", "ok", "the validator finds nothing wrong")
    worst = (errors or warnings)[0]
    found = " and ".join(_many(len(some), what) for some, what in ((errors, "error"), (warnings, "warning")) if some)
    return Finding(
        "config",
        "error" if errors else "warning",
        f"{found}, first {worst.rule} in line {worst.line}: {worst.message}; "
        "`lsplugin validate` on the project's config shows all",
    )


def _counts(stored: Stored, counts: dict[str, Any], project: Project) -> Finding:
    here = (stored.tasks, stored.votes)
    there = (counts["task_number"] or 0, counts["total_annotations_number"] or 0)
    if here == there:
        return Finding("counts", "ok", f"{_many(here[0], 'task')} and {_many(here[1], 'label')}, as the server says")
    return Finding(
        "counts",
        "error",
        f"the export holds {_many(here[0], 'task')} and {_many(here[1], 'label')}, the server {there[0]} and {there[1]}; "
        f"export again: lsplugin pull {project.id}",
    )


def _fit(stored: Stored, project: Project) -> Finding:
    if not stored.unfit:
        return Finding("labels", "ok", "every stored result fits the config")
    reasons = ", ".join(f"{count} because {reason}" for reason, count in stored.unfit.most_common())
    return Finding(
        "labels",
        "error",
        f"{_many(stored.unfit.total(), 'result')} do not fit the config: {reasons}; name it again as it was when they were made: "
        f"{project.url}/settings/labeling",
    )


def _predictions(stored: Stored, predictions: list[dict[str, Any]], offered: Offered) -> Iterator[Finding]:
    reasons = [
        (found["id"], reason)
        for found in predictions
        for result in found.get("result") or []
        if isinstance(result, dict) and (reason := offered.hidden(result))
    ]
    hidden = {number for number, _ in reasons}
    if hidden:
        yield Finding(
            "predictions",
            "warning",
            f"the editor drops something of {len(hidden)} of {_many(len(predictions), 'prediction')}, as {reasons[0][1]}; "
            "import them again with the present names, for Pairwise with to_name answer1",
        )
    else:
        yield Finding(
            "predictions", "ok", f"{_many(len(predictions), 'prediction')}, all of a shape that the editor shows"
        )
    without = stored.shown - {found["task"] for found in predictions}
    if without:
        yield Finding(
            "prelabels",
            "error",
            f"{_many(len(without), 'task')} without a prediction though the meta says that a prelabel was shown, such as task "
            f"{min(without)}; import the predictions, or leave these tasks out of what you say about prelabels",
        )
    elif stored.shown:
        yield Finding("prelabels", "ok", f"{_many(len(stored.shown), 'task')} with a prelabel, as the meta says")


def _empty(stored: Stored, counts: dict[str, Any]) -> Finding:
    if not stored.empty:
        return Finding("submissions", "ok", "none is empty")
    text = f"{stored.empty} of {_many(stored.votes, 'label')} are empty, and make no pair"
    if counts.get("enable_empty_annotation", True):
        text += "; the project allows that: set its enable_empty_annotation to false, as `lsplugin create` does"
    return Finding("submissions", "warning", text)


def _fast(stored: Stored, client: Client) -> Finding:
    if not stored.too_fast:
        return Finding(
            "speed", "ok", f"{_many(stored.fast.total(), 'label')} of {stored.timed} faster than anybody reads"
        )
    known = names(client)
    who = ", ".join(f"{known.get(number, f'user {number}')} {count}" for number, count in stored.fast.most_common(3))
    return Finding(
        "speed",
        "warning",
        f"{stored.fast.total()} of {_many(stored.timed, 'label')} took under a second, or less than reading takes: {who}; "
        "ask them, or leave these labels out",
    )


def _twice(stored: Stored) -> Finding:
    copies = stored.copies
    if not copies:
        return Finding("copies", "ok", "no task is there twice")
    return Finding(
        "copies",
        "warning",
        f"{_many(copies, 'task')} too many, with the content key of another; push the dataset again: copies without labels go",
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
