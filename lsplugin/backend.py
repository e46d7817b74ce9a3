"""ML backends of a project: connected once, brought up to date when they are added again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from lsplugin.errors import LspluginError
from lsplugin.server import LOCAL_BACKENDS

if TYPE_CHECKING:
    from lsplugin.project import Client, Project

USER = "label-studio"
"""The name beside the token in basic auth, which is all that Label Studio can send."""

STATES = {"CO": "connected", "DI": "disconnected", "ER": "error", "TR": "training", "PR": "predicting"}


class Backend(NamedTuple):
    """A backend as the server knows it.

    Attributes:
        id: its number.
        url: where it listens.
        title: what people see.
        state: connected, disconnected, error, training or predicting; with the server's reason where it is an error.
        version: of its model.
    """

    id: int
    url: str
    title: str
    state: str
    version: str


def backends(client: Client, project: Project) -> list[Backend]:
    """List a project's backends; the server asks each one anew how it is."""
    with client.translated(f"listing the backends of project {project.id}"):
        return [_backend(found) for found in client.sdk.ml.list(project=project.id)]


def add(
    client: Client, project: Project, url: str, *, title: str, interactive: bool = False, token: str | None = None
) -> tuple[Backend, bool]:
    """Connect a backend, or bring the connection to the same address up to date; say whether it is new.

    The project shows its predictions from then on: its model version becomes the title. The webhook that Label Studio adds on its
    own is taken out again: it would send every label to a backend that does not read them.

    Args:
        client: of the project's server.
        project: which one.
        url: where the backend listens, as the server reaches it.
        title: what people see.
        interactive: ask it also while a person labels.
        token: sent as the password of basic auth.

    Raises:
        LspluginError: nobody answers there, the token is wrong, or the server refuses the address.
    """
    url = url.rstrip("/")
    check(url, token)
    auth: dict[str, Any] = {"auth_method": "NONE"}
    if token is not None:
        auth = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": token}
    settings: dict[str, Any] = {
        "url": url,
        "project": project.id,
        "title": title,
        "is_interactive": interactive,
        **auth,
    }
    new = not _same(client, project, url)
    try:
        if new:
            with client.translated(f"connecting {url}"):
                client.sdk.ml.create(**settings)
    except LspluginError as error:
        # It refuses the webhook of a backend on its own machine, but only after it has connected that.
        if not _same(client, project, url):
            raise LspluginError(_explained(str(error), url)) from None
    try:
        with client.translated(f"connecting {url}"):
            client.sdk.ml.update(_same(client, project, url)[0].id, **settings)
    except LspluginError as error:
        raise LspluginError(_explained(str(error), url)) from None
    with client.translated(f"showing the predictions of {url}"):
        client.sdk.projects.update(project.id, model_version=title, show_collab_predictions=True)
        for hook in client.sdk.webhooks.list(project=str(project.id)):
            if hook.url == f"{url}/webhook":
                client.sdk.webhooks.delete(hook.id)
    return _same(client, project, url)[0], new


def remove(client: Client, project: Project, url: str) -> bool:
    """Take a backend out of a project; False when it is not in it. Predictions that it made stay."""
    same = _same(client, project, url)
    with client.translated(f"removing {url}"):
        for found in same:
            client.sdk.ml.delete(found.id)
    return bool(same)


def _same(client: Client, project: Project, url: str) -> list[Backend]:
    return [found for found in backends(client, project) if found.url.rstrip("/") == url.rstrip("/")]


def check(url: str, token: str | None) -> None:
    """Ask a backend how it is, before a server is told of it.

    Raises:
        LspluginError: it does not answer, does not know the token, or is none.
    """
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise LspluginError(f"{url}: expected the address of a backend, such as http://127.0.0.1:9090")
    try:
        answer = httpx.get(f"{url}/health", auth=(USER, token) if token is not None else None, timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LspluginError(
            f"no backend answers at {url} ({type(error).__name__}): start one with `python -m rm_lightning serve`"
        ) from None
    if answer.status_code == 401:
        raise LspluginError(f"{url} does not accept this token: give it the one that `serve` was started with")
    try:
        up = answer.status_code == 200 and answer.json().get("status") == "UP"
    except (ValueError, AttributeError):
        up = False
    if not up:
        raise LspluginError(f"{url} answers /health with {answer.status_code} and not as an ML backend does")


def _explained(said: str, url: str) -> str:
    """Say what to do about the reasons for which a server refuses a backend."""
    if "reserved network address" in said:
        return (
            f"the server refuses {url}, as its address is of a private network: start the server with {LOCAL_BACKENDS}=false "
            "(`lsplugin serve` does)"
        )
    if "health check failed" in said:
        return f"{url} answers here, but the server cannot reach it: name it by an address that the server knows"
    if "valid ML backend" in said:
        return f"the backend at {url} cannot fill in this project's config: it needs a comparison, a scale, a ranking or a rating"
    return said


def _backend(found: Any) -> Backend:  # noqa: ANN401 - the SDK's own model
    state = str(getattr(found.state, "value", found.state))
    reason = f": {found.error_message}" if state == "ER" and found.error_message else ""
    named = STATES.get(state, state) + reason
    return Backend(found.id, found.url, found.title or "", named, found.model_version or "")
