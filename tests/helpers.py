"""What several tests share: command lines run in this process, people at a server, tasks and exports written by hand."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import socket
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn, Self
from urllib.parse import urljoin

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

Side = Literal["left", "right"]

GOOD_CONFIG = """<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="comparison" toName="answer1,answer2"/>
  <Text name="answer1" value="$answer1"/>
  <Text name="answer2" value="$answer2"/>
  <Choices name="verdict" toName="prompt" choice="single-radio" required="true">
    <Choice value="The one I clicked is better" alias="better"/>
    <Choice value="About the same" alias="tie"/>
  </Choices>
</View>
"""


class Result(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def run_cli(args: Sequence[str | Path]) -> Result:
    """Run a command of this project in this process: `["lsplugin", "render"]`, `["ppo", "run", ...]`.

    The first word is the package; its `__main__.main` gets the rest as a shell would hand it over. A traceback is not caught.
    """
    name, *rest = map(str, args)
    main = importlib.import_module(f"{name}.__main__").main
    stdout, stderr = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        patch.setattr(sys, "argv", [name, *rest])
        try:
            main()
        except SystemExit as end:
            code = end.code
    return Result(int(str(code or 0)), stdout.getvalue(), stderr.getvalue())


def complaint(args: Sequence[str | Path]) -> str:
    """Run a command that must fail, and give the one line that it says on stderr besides progress bars."""
    result = run_cli(args)
    assert result.code == 1, result
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result
    assert result.stderr.endswith(lines[0] + "\n"), result
    assert "Traceback" not in result.stderr
    return lines[0].removeprefix("error: ")


def unavailable(what: str) -> NoReturn:
    """Skip for want of something real; where REQUIRE_REAL is set nothing may go untested, so fail."""
    if os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(f"REQUIRE_REAL=1, but {what}")
    pytest.skip(what)


def write_json(path: Path, value: object) -> Path:
    """Write JSON with the standard library alone."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """Write JSONL with the standard library alone."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Any]:
    """Read JSONL with the standard library alone; only a newline ends a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def unused_port() -> int:
    """Give a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pairwise_result(side: str, control: str = "comparison") -> list[dict[str, Any]]:
    """Give what the editor stores for a click: to_name is the control's own name."""
    return [{"from_name": control, "to_name": control, "type": "pairwise", "value": {"selected": side}}]


class Person:
    """Somebody with a browser session of their own at a Label Studio: the calls that its pages make.

    Connections are not kept alive: the development server answers the next request on one 40 ms later.
    """

    _tokens: ClassVar[dict[tuple[str, str], str]] = {}

    def __init__(self, url: str) -> None:
        self.url = url
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=60, limits=limits, headers={"Referer": url})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.http.close()

    def log_in(self, email: str, password: str) -> None:
        """Sign in as a user who exists."""
        self._send_form("/user/login", {"email": email, "password": password})
        assert self.get("/api/current-user/whoami")["email"] == email

    def sign_up(self, invite: str, email: str) -> None:
        """Become a user by the organisation's invite link."""
        form = {"email": email, "password": "correct-horse-battery"}
        self._send_form(invite, form | {"allow_newsletters": "false", "how_find_us": "", "elaborate": ""})
        assert self.get("/api/current-user/whoami")["email"] == email

    def get(self, path: str) -> Any:
        """Read JSON."""
        return self._checked(self.http.get(path)).json()

    def post(self, path: str, value: object) -> Any:
        """Send JSON, read JSON."""
        return self._checked(self.http.post(path, json=value)).json()

    def patch(self, path: str, value: object) -> Any:
        """Change something."""
        return self._checked(self.http.patch(path, json=value)).json()

    def delete(self, path: str) -> None:
        """Delete something."""
        self._checked(self.http.delete(path))

    def next_task(self, project: int) -> dict[str, Any] | None:
        """Ask for the next task; None when there is none for this person."""
        response = self.http.get(f"/api/projects/{project}/next")
        if response.status_code == 404:
            return None
        task: dict[str, Any] = self._checked(response).json()
        return task

    def tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """Be handed one task after the other until there is none left."""
        while (task := self.next_task(project)) is not None:
            yield task

    def choose(self, task: int, side: Side | None, *, skip: bool = False) -> None:
        """Submit a choice, nothing (None), or a skip."""
        result = pairwise_result(side) if side else []
        self.post(f"/api/tasks/{task}/annotations", {"result": result, "was_cancelled": skip, "lead_time": 1.5})

    def personal_access_token(self) -> str:
        """Give this person's token of the newer kind; a server makes one, and shows it once."""
        who = (self.url, self.get("/api/current-user/whoami")["email"])
        if who not in self._tokens:
            self._tokens[who] = str(self.post("/api/token/", {})["token"])
        return self._tokens[who]

    def legacy_token(self) -> str:
        """Read the token of the older kind."""
        return str(self.get("/api/current-user/token")["token"])

    def _send_form(self, page: str, form: dict[str, str]) -> None:
        address = urljoin(self.url, page)
        found = re.search(r"csrfmiddlewaretoken[\"'] value=[\"']([^\"']+)", self._checked(self.http.get(address)).text)
        assert found is not None
        response = self.http.post(address, data={"csrfmiddlewaretoken": found[1], **form})
        assert response.status_code in {200, 302}, response.text[:500]
        self.http.headers["X-CSRFToken"] = self.http.cookies["csrftoken"]

    @staticmethod
    def _checked(response: httpx.Response) -> httpx.Response:
        assert response.status_code < 400, f"{response.request.url}: {response.status_code} {response.text[:500]}"
        return response
