"""Tasks into a project, each exactly once, whatever breaks and whenever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lsplugin.dataset import KEY, Task, keyed
from lsplugin.errors import LspluginError
from lsplugin.project import PAGE, UnreachableError, prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lsplugin.files import PathLike
    from lsplugin.project import Client, Project

T = TypeVar("T")

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds to wait for a server that does not answer or is broken (5xx), before each new try.

A batch that it takes starts them anew.
"""

BATCH = 500
"""Tasks in one request that imports or removes them: small enough for a progress bar, large enough not to matter."""

ONCE = {"max_retries": 0, "timeout": 600}
"""The SDK's own retries are off where they would send again what the server may have done without an answer."""


class Held(NamedTuple):
    """A task that a project holds: its number, and how many labels and pre-labels it has."""

    id: int
    annotations: int
    predictions: int


def push(
    client: Client,
    project: Project,
    tasks: Sequence[Task],
    *,
    path: PathLike,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Check all tasks against the project's config, then import those that the project does not hold yet.

    Every task carries a content key, so the same file may be pushed again, after a kill, too: what is there is left as it is,
    and what came in twice, because a server finished what a killed push had sent, is taken out again unless it is labelled.

    Args:
        client: of the project's server.
        project: where to.
        tasks: what to import.
        path: the file they come from, for messages.
        advance: called with the number of tasks after every batch, with those that were there already first.

    Returns:
        How many were imported.

    Raises:
        LspluginError: a bad row (nothing is sent then), a server that refuses, or one that stays away.
    """
    own = keyed(tasks)
    ready = {str(task.key): task for task in prepared(own, project.config, path=path)}
    before = -1
    pauses = iter(PAUSES)
    while True:
        try:  # what the server took without an answer is known before anything is sent again
            held = held_by(client, project)
            if before < 0:
                before = len(ready.keys() & held.keys())
                advance(before)
            missing = [task for key, task in ready.items() if key not in held]
            for batch in _batches(missing):
                import_batch(client, project, batch)
                advance(len(batch))
                pauses = iter(PAUSES)  # the server is well again
            if missing:
                held = held_by(client, project)
            drop_copies(client, project, held)
            break
        except UnreachableError:
            pause = next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)
    _check_held(project, ready, held, path, new=before < len(ready))
    return len(ready) - before


def _check_held(
    project: Project, ready: dict[str, Task], held: dict[str, list[Held]], path: PathLike, *, new: bool
) -> None:
    """Hold what the project has against what it was sent.

    Raises:
        LspluginError: tasks are not there, or (where some are new) the pre-labels of some are not.
    """
    lost = [key for key in ready if key not in held]
    if lost:
        raise LspluginError(
            f"project {project.id} took {len(ready) - len(lost)} of {len(ready)} tasks; push {path} again"
        )
    unlabelled = [key for key, task in ready.items() if task.predictions and not any(c.predictions for c in held[key])]
    if unlabelled and new:
        raise LspluginError(
            f"project {project.id} took the tasks of {path} and dropped the pre-labels of {len(unlabelled)} of them: "
            f"lsplugin doctor {project.id} says which"
        )


def import_batch(client: Client, project: Project, batch: Sequence[Task]) -> None:
    """Send tasks in one request, once."""
    with client.translated(f"importing tasks into project {project.id}"):
        client.sdk.projects.import_tasks(project.id, request=[task.to_dict() for task in batch], request_options=ONCE)


def held_by(client: Client, project: Project) -> dict[str, list[Held]]:
    """Give the project's tasks by their content key: each task that has it."""
    found: dict[str, list[Held]] = {}
    with client.translated(f"reading the tasks of project {project.id}"):
        wanted = {"include": "id,meta,total_annotations,total_predictions", "fields": "task_only"}
        for task in client.sdk.tasks.list(project=project.id, page_size=PAGE, **wanted):
            key = (task.meta or {}).get(KEY)
            if isinstance(key, str):
                held = Held(task.id, task.total_annotations or 0, task.total_predictions or 0)
                found.setdefault(key, []).append(held)
    return found


def drop_copies(client: Client, project: Project, held: dict[str, list[Held]]) -> None:
    """Take out what is there twice, which happens when a server finishes what a killed push had sent; labels stay."""
    spare: list[int] = []
    for copies in held.values():
        # The one with labels is kept, else one with pre-labels, else the first.
        kept = max(copies, key=lambda copy: (copy.annotations, copy.predictions, -copy.id))
        spare += [copy.id for copy in copies if copy.id != kept.id and not copy.annotations]
    for batch in _batches(spare):  # one by one, five hundred took minutes
        chosen = {"all": False, "included": batch}
        with client.translated(f"removing copies from project {project.id}"):
            client.sdk.actions.create(
                id="delete_tasks", project=project.id, selected_items=chosen, request_options=ONCE
            )


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
