"""A project's tasks with everything stored about them: from an export on disk, or from one that is pulled for the occasion."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsplugin.errors import LspluginError
from lsplugin.export import read_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lsplugin.files import PathLike
    from lsplugin.project import Client, Project


@contextmanager
def exported(
    client: Client, project: Project, export: Path | None, *, advance: Callable[[int], None] = lambda _: None
) -> Iterator[Path]:
    """Give an export of the project: the one that is there, or a fresh one that is deleted afterwards.

    Args:
        client: where the project is.
        project: whose export.
        export: one that was pulled before.
        advance: called with the number of bytes of every chunk of a fresh one.
    """
    if export is not None:
        yield export
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "export.json"
        client.pull(project, fresh, advance=advance)
        yield fresh


def project_tasks(path: PathLike, project: Project) -> Iterator[dict[str, Any]]:
    """Yield the tasks of an export.

    Raises:
        LspluginError: they are of another project, or what `read_export` raises.
    """
    for task in read_export(path):
        if task.get("project", project.id) != project.id:
            raise LspluginError(
                f"{path}: task {task.get('id')} is of project {task['project']}, not of {project.id}: "
                f"export this one with `lsplugin pull {project.id}`"
            )
        yield task
