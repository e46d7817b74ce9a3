"""A project's life on a server: find it, create it, push tasks into it, pull annotations out of it, delete it.

A `Client` is the only way to Label Studio, always through its SDK, which is imported when it is first needed (it takes seconds).
Every failure becomes one line that says what to do.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import httpx
from lxml import etree

from lsplugin.check import check_config
from lsplugin.dataset import ORDER, Task, check_tasks
from lsplugin.errors import LspluginError
from lsplugin.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lsplugin.connection import Connection
    from lsplugin.export import Size
    from lsplugin.files import PathLike

PAGE = 1000
"""Tasks in one page of a listing."""

TIMEOUT = 60.0
"""Seconds the server may take for an ordinary answer."""


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
        with self.translated("signing in"):
            from label_studio_sdk.client import LabelStudio

            self.sdk: Any = LabelStudio(  # type: ignore[no-untyped-call]
                base_url=connection.url, api_key=connection.api_key, httpx_client=self._http
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def find(self, project: str) -> Project:
        """Find a project by its number or, when it is no number, by its exact title."""
        with self.translated(f"looking up project {project}", project=project):
            if project.isdigit():
                return self._project(self.sdk.projects.get(int(project)))
            found = [item for item in self.sdk.projects.list(title=project) if item.title == project]
        if len(found) != 1:
            how_many = "no project" if not found else f"{len(found)} projects"
            raise LspluginError(f'{self.connection.url} has {how_many} titled "{project}": name it by its number')
        return self.find(str(found[0].id))

    def create(self, title: str, config: str) -> Project:
        """Create an empty project; the config must be one that the editor can show."""
        if not 3 <= len(title) <= 50:
            raise LspluginError(f'a title has 3 to 50 characters in Label Studio, "{title}" has {len(title)}')
        check_config(config)
        with self.translated(f'creating "{title}"'):
            # Pairwise itself cannot be required: without empty annotations, Submit waits for a choice.
            made = self.sdk.projects.create(title=title, label_config=config, enable_empty_annotation=False)
            return self._project(made)

    def set_annotators(self, project: Project, count: int) -> None:
        """Hand each task to so many people; it is done when each of them has answered."""
        with self.translated(f"setting the annotators of project {project.id}"):
            self.sdk.projects.update(project.id, maximum_annotations=count)

    def delete(self, project: Project) -> None:
        """Delete a project with everything in it."""
        with self.translated(f"deleting project {project.id}"):
            self.sdk.projects.delete(project.id)

    def open(self, title: str, config: str) -> tuple[Project, bool]:
        """Find the project of this title and config, or create it; say whether it is new.

        Raises:
            LspluginError: a project of this title has another config.
        """
        with self.translated(f'looking up "{title}"'):
            found = [item for item in self.sdk.projects.list(title=title) if item.title == title]
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
        """Import the tasks that the project does not hold yet, and say how many: see `lsplugin.push`."""
        from lsplugin.push import push

        return push(self, project, tasks, path=path, advance=advance)

    def pull(self, project: Project, path: PathLike, *, advance: Callable[[int], None] = lambda _: None) -> Size:
        """Stream the project's JSON export into a file, and say what is in it: see `lsplugin.pull`."""
        from lsplugin.pull import pull

        return pull(self, project, path, advance=advance)

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

        with self.translated(doing):
            http = self.sdk._client_wrapper.httpx_client  # noqa: SLF001 - it alone knows both kinds of token
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
    def translated(self, doing: str, *, project: str | None = None) -> Iterator[None]:
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
