"""A project's life on a server: create it, push tasks into it, pull annotations out of it.

This is the only module that talks to Label Studio, always through its SDK, which is imported when it is first needed (it takes
seconds). Every failure becomes one line that says what to do.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import httpx
from lxml import etree

from lsplugin.check import check_config
from lsplugin.dataset import KEY, ORDER, Task, check_tasks, keyed
from lsplugin.errors import LspluginError
from lsplugin.export import measure, read_export
from lsplugin.files import PathLike, atomic_file
from lsplugin.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lsplugin.connection import Connection
    from lsplugin.export import Size

T = TypeVar("T")

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds to wait for a server that does not answer or is broken (5xx), before each new try.

A batch that it takes starts them anew.
"""

PAGE = 1000
"""Tasks in one page of a listing."""

BATCH = 500
"""Tasks in one request that imports or removes them: small enough for a progress bar, large enough not to matter."""

ONCE = {"max_retries": 0, "timeout": 600}
"""The SDK's own retries are off where they would send again what the server may have done without an answer."""

TIMEOUT = 60.0
"""Seconds the server may take for an ordinary answer."""

EXPORT_TIMEOUT = 3600.0
"""Seconds an export may take: 10,000 tasks took half a minute."""


class UnreachableError(LspluginError):
    """The server does not answer, broke off, or is broken: the same may work in a while."""


@dataclass(frozen=True)
class Project:
    """A project on a server.

    Attributes:
        id: its number.
        title: its name.
        url: where a person opens it.
        tasks: how many tasks it holds.
        annotations: how many annotations, skipped ones, too.
        config: its labeling config.
    """

    id: int
    title: str
    url: str
    tasks: int
    annotations: int
    config: str


class _Held(NamedTuple):
    """A task that a project holds: its number, and how many labels and pre-labels it has."""

    id: int
    annotations: int
    predictions: int


class Client:
    """The calls that this package makes, on one server.

    Args:
        connection: which server, with which key; legacy tokens and personal access tokens both work.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # Connections are not kept alive: Label Studio's own server answers the next request on one 40 ms later.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(timeout=TIMEOUT, limits=limits, follow_redirects=True)
        with self._translated("signing in"):
            from label_studio_sdk.client import LabelStudio

            self._sdk: Any = LabelStudio(  # type: ignore[no-untyped-call]
                base_url=connection.url, api_key=connection.api_key, httpx_client=self._http
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def find(self, project: str) -> Project:
        """Find a project by its number or, when it is no number, by its exact title."""
        with self._translated(f"looking up project {project}", project=project):
            if project.isdigit():
                return self._project(self._sdk.projects.get(int(project)))
            found = [item for item in self._sdk.projects.list(title=project) if item.title == project]
        if len(found) != 1:
            how_many = "no project" if not found else f"{len(found)} projects"
            raise LspluginError(f'{self.connection.url} has {how_many} titled "{project}": name it by its number')
        return self.find(str(found[0].id))

    def create(self, title: str, config: str) -> Project:
        """Create an empty project; the config must be one that the editor can show."""
        if not 3 <= len(title) <= 50:
            raise LspluginError(f'a title has 3 to 50 characters in Label Studio, "{title}" has {len(title)}')
        check_config(config)
        with self._translated(f'creating "{title}"'):
            # Pairwise itself cannot be required: without empty annotations, Submit waits for a choice.
            made = self._sdk.projects.create(title=title, label_config=config, enable_empty_annotation=False)
            return self._project(made)

    def set_annotators(self, project: Project, count: int) -> None:
        """Hand each task to so many people; it is done when each of them has answered."""
        with self._translated(f"setting the annotators of project {project.id}"):
            self._sdk.projects.update(project.id, maximum_annotations=count)

    def delete(self, project: Project) -> None:
        """Delete a project with everything in it."""
        with self._translated(f"deleting project {project.id}"):
            self._sdk.projects.delete(project.id)

    def open(self, title: str, config: str) -> tuple[Project, bool]:
        """Find the project of this title and config, or create it; say whether it is new.

        Raises:
            LspluginError: a project of this title has another config.
        """
        with self._translated(f'looking up "{title}"'):
            found = [item for item in self._sdk.projects.list(title=title) if item.title == title]
        same = [item for item in found if (item.label_config or "").strip() == config.strip()]
        if same:
            return self.find(str(same[0].id)), False
        if found:
            raise LspluginError(
                f'project {found[0].id} is titled "{title}" already, with another config: choose another title, or add tasks to '
                f"it with `lsplugin push {found[0].id}`"
            )
        return self.create(title, config), True

    def push(
        self,
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
                held = self._held(project)
                if before < 0:
                    before = len(ready.keys() & held.keys())
                    advance(before)
                missing = [task for key, task in ready.items() if key not in held]
                for batch in _batches(missing):
                    self._import(project, batch)
                    advance(len(batch))
                    pauses = iter(PAUSES)  # the server is well again
                if missing:
                    held = self._held(project)
                self._drop_copies(project, held)
                break
            except UnreachableError:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)
        lost = [key for key in ready if key not in held]
        if lost:
            raise LspluginError(
                f"project {project.id} took {len(ready) - len(lost)} of {len(ready)} tasks; push {path} again"
            )
        unlabelled = [
            key for key, task in ready.items() if task.predictions and not any(c.predictions for c in held[key])
        ]
        if unlabelled and before < len(ready):
            raise LspluginError(
                f"project {project.id} took the tasks of {path} and dropped the pre-labels of {len(unlabelled)} of them: "
                f"lsplugin doctor {project.id} says which"
            )
        return len(ready) - before

    def _import(self, project: Project, batch: Sequence[Task]) -> None:
        with self._translated(f"importing tasks into project {project.id}"):
            self._sdk.projects.import_tasks(
                project.id, request=[task.to_dict() for task in batch], request_options=ONCE
            )

    def _held(self, project: Project) -> dict[str, list[_Held]]:
        """Give the project's tasks by their content key: each task that has it."""
        found: dict[str, list[_Held]] = {}
        with self._translated(f"reading the tasks of project {project.id}"):
            wanted = {"include": "id,meta,total_annotations,total_predictions", "fields": "task_only"}
            for task in self._sdk.tasks.list(project=project.id, page_size=PAGE, **wanted):
                key = (task.meta or {}).get(KEY)
                if isinstance(key, str):
                    found.setdefault(key, []).append(
                        _Held(task.id, task.total_annotations or 0, task.total_predictions or 0)
                    )
        return found

    def _drop_copies(self, project: Project, held: dict[str, list[_Held]]) -> None:
        """Take out what is there twice, which happens when a server finishes what a killed push had sent; labels stay."""
        spare: list[int] = []
        for copies in held.values():
            # The one with labels is kept, else one with pre-labels, else the first.
            kept = max(copies, key=lambda copy: (copy.annotations, copy.predictions, -copy.id))
            spare += [copy.id for copy in copies if copy.id != kept.id and not copy.annotations]
        for batch in _batches(spare):  # one by one, five hundred took minutes
            chosen = {"all": False, "included": batch}
            with self._translated(f"removing copies from project {project.id}"):
                self._sdk.actions.create(
                    id="delete_tasks", project=project.id, selected_items=chosen, request_options=ONCE
                )

    def pull(self, project: Project, path: PathLike, *, advance: Callable[[int], None] = lambda _: None) -> Size:
        """Stream the project's JSON export into a file, atomically, and check that everything is in it.

        Args:
            project: where from, as it was before: what people add meanwhile may be in the file or not.
            path: where to; written whole or not at all.
            advance: called with the number of bytes of every chunk.

        Raises:
            LspluginError: a task or an annotation is missing; it says which.
        """
        with atomic_file(path) as temporary:
            with self._translated(f"exporting project {project.id}"), temporary.open("wb") as stream:
                chunks = self._sdk.projects.exports.download_sync(
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
                    f"({self._missing(project, temporary)})"
                )
        return pulled

    def _missing(self, project: Project, export: Path) -> str:
        """Say which tasks of a project an export lacks, or lacks annotations of."""
        there = {task["id"]: len(task["annotations"]) for task in read_export(export)}
        with self._translated(f"reading the tasks of project {project.id}"):
            wanted = {"include": "id,total_annotations,cancelled_annotations", "fields": "task_only"}
            lacking = [
                task.id
                for task in self._sdk.tasks.list(project=project.id, page_size=PAGE, **wanted)
                if there.get(task.id, -1) < (task.total_annotations or 0) + (task.cancelled_annotations or 0)
            ]
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        listed = f"missing or incomplete: task {', '.join(map(str, lacking[:5]))}{more}"
        return listed if lacking else "now nothing is missing"

    def call(
        self,
        doing: str,
        path: str,
        *,
        method: str = "GET",
        params: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - any JSON
        """Ask for what the SDK has no method for, as the user whose key it is.

        Args:
            doing: what for, in messages: "listing the members".
            path: of the API, such as `api/users`.
            method: of HTTP.
            params: of the address.
            body: sent as JSON.
        """
        from label_studio_sdk.core.api_error import ApiError

        with self._translated(doing):
            http = self._sdk._client_wrapper.httpx_client  # noqa: SLF001 - it alone knows both kinds of token
            options = {"max_retries": 0}
            answer = http.request(path, method=method, params=params, json=body, request_options=options)
            try:
                found = answer.json() if answer.content else None
            except ValueError:
                found = answer.text
            if answer.status_code >= 400:
                raise ApiError(status_code=answer.status_code, body=found)
            if isinstance(found, str):
                raise LspluginError(
                    f"{self.connection.url} answers {doing} with a page: is this address a Label Studio?"
                )
            return found

    def _project(self, found: Any) -> Project:  # noqa: ANN401 - the SDK's own model
        return Project(
            id=found.id,
            title=found.title or "",
            url=f"{self.connection.url}/projects/{found.id}",
            tasks=found.task_number or 0,
            annotations=(found.total_annotations_number or 0) + (found.skipped_annotations_number or 0),
            config=found.label_config or "",
        )

    @contextmanager
    def _translated(self, doing: str, *, project: str | None = None) -> Iterator[None]:
        """Turn what the SDK and the network raise into one line."""
        from label_studio_sdk.core.api_error import ApiError

        url = self.connection.url
        try:
            yield
        except httpx.ConnectError:
            raise UnreachableError(
                f"no Label Studio at {url}: start one with `lsplugin serve`, or name another with --url"
            ) from None
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{doing} at {url} broke off ({type(error).__name__}); is the server well? Run it again"
            ) from None
        except ApiError as error:
            kind = UnreachableError if (error.status_code or 0) >= 500 else LspluginError
            raise kind(_explain(error.status_code, error.body, doing, url, project)) from None


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def prepared(tasks: Sequence[Task], config: str, *, path: PathLike) -> list[Task]:
    """Give tasks the fields that a config displays, and check every one of them before anything is sent.

    Args:
        tasks: rows of a dataset.
        config: the project's config.
        path: the file they come from, for messages.

    Raises:
        LspluginError: all bad rows, in one message.
    """
    root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    made = [replace(task, data=prepare(task.data, root, order=task.meta.get(ORDER) or ())) for task in tasks]
    check_tasks(made, root, path=path)
    first: dict[str, int] = {}
    for task in made:
        if task.key is not None and first.setdefault(task.key, task.row) != task.row:
            raise LspluginError(
                f"{path}: rows {first[task.key]} and {task.row} have the same `key` in their meta ({task.key}), so one of them "
                "would be taken for the other: give each a key of its own, or none"
            )
    return made


def _explain(status: int | None, body: object, doing: str, url: str, project: str | None) -> str:
    detail = _detail(body)
    if status in {401, 403}:
        return (
            f"{url} does not accept this key ({detail}): copy one from Account & Settings, Access Token, into --api-key"
        )
    if status == 404 and project is not None:
        return f"{url} has no project {project}: see the number in the address of its page"
    if status == 404:
        return f"{url} answers 404 while {doing}: is this address a Label Studio? ({detail})"
    return f"{doing} failed with {status} at {url}: {detail}"


def _detail(body: object) -> str:
    """Take the server's own reason out of its answer, as one short line."""
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    return " ".join(str(body).split())[:300]
