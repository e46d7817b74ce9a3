"""The simulated annotators, who stand in for people, label a real project through the server's own HTTP interface.

Each annotator signs up by the organisation's invite link with a random password that nobody keeps, and then works as a person
does: ask for the next task, choose, submit. They take turns in one thread: the server does the work on one core anyway, and
so the labels depend on the seed alone.
"""

from __future__ import annotations

import random
import re
import secrets
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx

from demo_world.annotators import ACTIONS, CREW, Action, Annotator
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TIMEOUT = 60.0
"""Seconds the server may take for one answer."""
_CSRF = re.compile(r"""name=["']csrfmiddlewaretoken["']\s+value=["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a task keeps its text: two keys of its data and the name of the control that compares.

    The two answers, and which of them is shown on the left, are read from the project's own labeling configuration.
    """

    prompt: str = "prompt"
    control: str = "comparison"


@dataclass(slots=True)
class Counts:
    """What the crew did.

    Attributes:
        tasks: how many different tasks were dealt.
        actions: {name of the annotator: {left, right, empty, skipped: how many}}.
    """

    tasks: int = 0
    actions: dict[str, Counter[Action]] = field(default_factory=dict)

    @property
    def labels(self) -> int:
        """Give how many annotations chose a side."""
        return sum(counter["left"] + counter["right"] for counter in self.actions.values())

    @property
    def submitted(self) -> int:
        """Give how many annotations were sent, empty and skipped ones included."""
        return sum(counter.total() for counter in self.actions.values())

    def to_dict(self) -> dict[str, Any]:
        """Give the counts as a JSON object."""
        return {
            "tasks": self.tasks,
            "labels": self.labels,
            "annotators": {name: {a: counter[a] for a in ACTIONS} for name, counter in self.actions.items()},
        }


def label_project(
    url: str,
    api_key: str,
    project: int,
    *,
    seed: int = 0,
    crew: Sequence[Annotator] = CREW,
    fields: Fields | None = None,
    progress: Callable[[int], None] | None = None,
) -> Counts:
    """Let the crew label a project until the server has no task left for any of them.

    Args:
        url: of the server.
        api_key: of somebody who may see the project and the invite link: a legacy token or a personal access token.
        project: its number.
        seed: of the annotators' noise; the same seed and tasks give the same labels.
        crew: who labels; each of them becomes a new user of the server.
        fields: other names than `prompt` and `comparison`.
        progress: called with the number of annotations sent so far.

    Raises:
        LspluginError: the server cannot be reached or refuses, or the project does not compare two answers.
    """
    fields = fields or Fields()
    with ExitStack() as stack:
        admin = stack.enter_context(_client(url))
        admin.headers["Authorization"] = _authorization(admin, api_key)
        left, right = _sides(admin, project, fields.control)
        invite = urljoin(str(admin.base_url), str(_json(admin, "GET", "/api/invite")["invite_url"]))
        desks = [_Desk(stack.enter_context(_client(url)), annotator, seed) for annotator in crew]
        for desk in desks:
            _sign_up(desk.client, invite, desk.annotator.name)
        counts = Counts(actions={annotator.name: Counter() for annotator in crew})
        dealt: set[int] = set()
        waiting = desks
        while waiting:
            still = []
            for desk in waiting:
                if (task := _next_task(desk.client, project)) is None:
                    continue
                action = desk.label(task, fields, left, right)
                dealt.add(task["id"])
                counts.actions[desk.annotator.name][action] += 1
                counts.tasks = len(dealt)
                still.append(desk)
                if progress is not None:
                    progress(counts.submitted)
            # A task that one annotator skipped may be handed to another who had run out: ask all again, until none has any.
            waiting = desks if still else []
    return counts


class _Desk:
    """One annotator at work in a session of his own."""

    def __init__(self, client: httpx.Client, annotator: Annotator, seed: int) -> None:
        self.client, self.annotator, self.seed = client, annotator, seed
        self.skipped: set[int] = set()

    def label(self, task: dict[str, Any], fields: Fields, left: str, right: str) -> Action:
        """Choose and submit; nobody skips one task twice, so that a project which hands it back still ends."""
        prompt, *answers = (_text(task, name) for name in (fields.prompt, left, right))
        action = self.annotator.act(self.seed, prompt, *answers, may_skip=task["id"] not in self.skipped)
        if action == "skipped":
            self.skipped.add(task["id"])
        words = len(" ".join((prompt, *answers)).split())
        pace = random.Random(f"{self.seed} {self.annotator.name} {prompt} {answers}").lognormvariate(0.0, 0.35)
        body = {
            "result": _result(action, fields.control),
            "was_cancelled": action == "skipped",
            "lead_time": round((2.0 + words / 4) * pace, 2),  # seconds: two, and four words a second
        }
        _json(self.client, "POST", f"/api/tasks/{task['id']}/annotations", json=body)
        return action


def _result(action: Action, control: str) -> list[dict[str, Any]]:
    """Build what the editor stores for a choice: its `to_name` is the control's own name."""
    if action not in ("left", "right"):
        return []
    return [{"from_name": control, "to_name": control, "type": "pairwise", "value": {"selected": action}}]


def _text(task: dict[str, Any], name: str) -> str:
    value = task["data"].get(name)
    if not isinstance(value, str):
        raise LspluginError(
            f"task {task['id']}: expected text in `{name}`, found {type(value).__name__}; is it a demo project?"
        )
    return value


def _sides(admin: httpx.Client, project: int, control: str) -> tuple[str, str]:
    """Read from the project which keys of a task's data are shown on the left and on the right."""
    config = _json(admin, "GET", f"/api/projects/{project}").get("parsed_label_config") or {}
    tag = config.get(control) or {}
    keys = [str(source["value"]) for source in tag.get("inputs", [])]
    if tag.get("type") != "Pairwise" or len(keys) != 2:
        raise LspluginError(
            f"project {project}: expected a Pairwise control named {control} over two answers, "
            f"found {', '.join(config) or 'no controls'}"
        )
    return keys[0], keys[1]


def _next_task(client: httpx.Client, project: int) -> dict[str, Any] | None:
    """Ask for the next task; None when the server has none for this annotator."""
    response = _request(client, "GET", f"/api/projects/{project}/next")
    if response.status_code == 404 and "no tasks" in response.text:
        return None
    task: dict[str, Any] = _checked(response).json()
    return task


def _sign_up(client: httpx.Client, invite: str, name: str) -> None:
    """Sign a new annotator up by the invite link; the session's cookies stay in the client."""
    page = _checked(_request(client, "GET", invite))
    token = _CSRF.search(page.text)
    if token is None:
        raise LspluginError(f"{page.url}: expected the sign-up form of the invite link, found another page")
    email = f"{name}.{secrets.token_hex(4)}@simulated.example"
    form = {
        "csrfmiddlewaretoken": token[1],
        "email": email,
        "password": secrets.token_urlsafe(24),
        "allow_newsletters": "false",
        "how_find_us": "",
        "elaborate": "",
    }
    _checked(_request(client, "POST", invite, data=form))
    client.headers["X-CSRFToken"] = client.cookies.get("csrftoken") or token[1]
    found = _json(client, "GET", "/api/current-user/whoami").get("email")
    if found != email:
        raise LspluginError(f"{page.url}: expected to be signed up as {email}, found {found}")


def _client(url: str) -> httpx.Client:
    """Open a client without kept-alive connections: the development server answers those 40 ms later (delayed ACK)."""
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        return httpx.Client(base_url=url, timeout=_TIMEOUT, limits=limits, headers={"Referer": url})
    except httpx.InvalidURL:
        raise LspluginError(f"expected the server's address, such as http://localhost:8080, found {url!r}") from None


def _authorization(client: httpx.Client, api_key: str) -> str:
    """Turn either kind of key into a header: a personal access token (it has dots) buys a short-lived one first."""
    if "." not in api_key:
        return f"Token {api_key}"
    return f"Bearer {_json(client, 'POST', '/api/token/refresh', json={'refresh': api_key})['access']}"


def _json(client: httpx.Client, method: str, path: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's
    value: dict[str, Any] = _checked(_request(client, method, path, **arguments)).json()
    return value


def _request(client: httpx.Client, method: str, path: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401 - httpx's
    try:
        return client.request(method, path, **arguments)
    except httpx.HTTPError as error:
        raise LspluginError(f"{client.base_url}: no answer from the server ({error}); is it running?") from None


def _checked(response: httpx.Response) -> httpx.Response:
    """Turn a refusal into one line that holds the server's own words."""
    if response.status_code < 400:
        return response
    try:
        words = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        words = response.text
    where = f"{response.request.method} {response.request.url.path}"
    raise LspluginError(f"{where}: the server answered {response.status_code}: {' '.join(words.split())[:200]}")
