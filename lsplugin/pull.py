"""Annotations out of a project: the whole export or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsplugin.errors import LspluginError
from lsplugin.export import measure, read_export
from lsplugin.files import PathLike, atomic_file
from lsplugin.project import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lsplugin.export import Size
    from lsplugin.project import Client, Project

EXPORT_TIMEOUT = 3600.0
"""Seconds an export may take: 10,000 tasks took half a minute."""


def pull(client: Client, project: Project, path: PathLike, *, advance: Callable[[int], None] = lambda _: None) -> Size:
    """Stream the project's JSON export into a file, atomically, and check that everything is in it.

    Args:
        client: of the project's server.
        project: where from, as it was before: what people add meanwhile may be in the file or not.
        path: where to; written whole or not at all.
        advance: called with the number of bytes of every chunk.

    Raises:
        LspluginError: a task or an annotation is missing; it says which.
    """
    with atomic_file(path) as temporary:
        with client.translated(f"exporting project {project.id}"), temporary.open("wb") as stream:
            chunks = client.sdk.projects.exports.download_sync(
                project.id,
                export_type="JSON",
                download_all_tasks=True,
                request_options={"timeout": EXPORT_TIMEOUT, "chunk_size": 1 << 20},
            )
            for chunk in chunks:
                stream.write(chunk)
                advance(len(chunk))
        pulled = measure(temporary, name=path)
        if pulled.tasks < project.tasks or pulled.annotations < project.annotations:
            raise LspluginError(
                f"the export of project {project.id} holds {pulled.tasks} tasks with {pulled.annotations} annotations, "
                f"the server says {project.tasks} with {project.annotations}; pull it again "
                f"({_missing(client, project, temporary)})"
            )
    return pulled


def _missing(client: Client, project: Project, export: Path) -> str:
    """Say which tasks of a project an export lacks, or lacks annotations of."""
    there = {task["id"]: len(task["annotations"]) for task in read_export(export)}
    with client.translated(f"reading the tasks of project {project.id}"):
        wanted = {"include": "id,total_annotations,cancelled_annotations", "fields": "task_only"}
        lacking = [
            task.id
            for task in client.sdk.tasks.list(project=project.id, page_size=PAGE, **wanted)
            if there.get(task.id, -1) < (task.total_annotations or 0) + (task.cancelled_annotations or 0)
        ]
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    listed = f"missing or incomplete: task {', '.join(map(str, lacking[:5]))}{more}"
    return listed if lacking else "now nothing is missing"
