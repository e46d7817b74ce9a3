"""A local Label Studio: started headless on an embedded SQLite folder, with a user and a token ready, offline.

`serve` stays in the foreground and owns the server process; a lock in the data folder says that it is alive, so nothing is ever
killed by a stale process id.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from filelock import FileLock, Timeout

from lsplugin.connection import (
    CONNECTION_FILE,
    KEY_VARIABLE,
    URL_VARIABLE,
    Connection,
    read_connection_file,
    write_connection_file,
)
from lsplugin.errors import LspluginError
from lsplugin.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USER_VARIABLE = "LABEL_STUDIO_USERNAME"
PASSWORD_VARIABLE = "LABEL_STUDIO_PASSWORD"  # noqa: S105 - the name of a variable, not a password
LOCAL_BACKENDS = "LABEL_STUDIO_ML_BLOCK_LOCAL_IP"
"""Set to false, it lets a server talk to ML backends on its own machine and network; ours is for one person's machine."""

LOG_FILE = "server.log"
START_TIMEOUT = 600.0
"""Seconds a first start may take: its database migrations took 57 to 125 s on two cores."""

_STRIPPED = ("HOST", "PORT", "USERNAME", "PASSWORD", "DEBUG", "CI", "DATABASE_NAME", "LOG_LEVEL")
_SETTINGS = {
    "ENABLE_LEGACY_API_TOKEN": "true",
    "DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}


@dataclass(frozen=True)
class Server:
    """A running local server.

    Attributes:
        connection: its address and key.
        file: the connection.env that says so to other commands.
        process: the server's own process.
    """

    connection: Connection
    file: Path
    process: subprocess.Popen[bytes]


@contextmanager
def serve(data: Path, *, port: int | None = None, tick: Callable[[float], None] = lambda _: None) -> Iterator[Server]:
    """Run a Label Studio on the folder `data` for the length of the block.

    Args:
        data: database, uploads, log and connection.env lie here; kept between calls, so labels survive.
        port: where to listen on 127.0.0.1; any free port when None.
        tick: called about twice a second with the seconds waited so far, until the server answers.

    Raises:
        LspluginError: label-studio is not installed, the port is taken, the folder is served already, or it does not start.
    """
    program = find_program()
    data.mkdir(parents=True, exist_ok=True)
    with _sole_server(data):
        file = data / CONNECTION_FILE
        values = _credentials(file) | {URL_VARIABLE: f"http://127.0.0.1:{_free_port(port)}"}
        write_connection_file(file, values | {URL_VARIABLE: ""})  # an earlier address is no longer ours
        write_text(data / "serve.pid", f"{os.getpid()}\n")
        _show_templates(program, data / LOG_FILE)
        with (data / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                [
                    program,
                    "start",
                    "--no-browser",
                    "--internal-host",
                    "127.0.0.1",
                    "--port",
                    values[URL_VARIABLE].rpartition(":")[2],
                ],
                env=_environment(data, values),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us, and we stop the server
            )
        try:
            _wait_until_up(values[URL_VARIABLE], process, data / LOG_FILE, tick)
            write_connection_file(file, values)
            yield Server(Connection(values[URL_VARIABLE], values[KEY_VARIABLE]), file, process)
        finally:
            _stop(process)
            (data / "serve.pid").unlink(missing_ok=True)


def _show_templates(program: str, log: Path) -> None:
    """Put our templates into the server's gallery, which it reads when it starts; where that cannot be, it serves without."""
    from lsplugin import gallery

    try:
        found = gallery.find_gallery(program)
        if not gallery.is_current(found):
            gallery.install(found)
    except (LspluginError, OSError) as error:
        with log.open("a") as stream:
            stream.write(f"lsplugin: our templates are not in the gallery: {error}\n")


@contextmanager
def _sole_server(data: Path) -> Iterator[None]:
    """Hold the folder's lock: whoever holds it is its server."""
    lock = FileLock(data / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LspluginError(
            f"{data} is being served already ({address_of(data)}); stop it with `lsplugin serve --stop`"
        ) from None
    try:
        yield
    finally:
        lock.release()


def find_program() -> str:
    """Find the label-studio command of this environment; say how to install it when there is none."""
    beside = Path(sys.executable).with_name("label-studio")
    program = str(beside) if beside.exists() else shutil.which("label-studio")
    if program is None:
        raise LspluginError(
            "label-studio is not installed here: pip install label-studio, "
            "or name a running one with --url and --api-key"
        )
    return program


def is_served(data: Path) -> bool:
    """Say whether a `serve` is alive on this folder."""
    if not (data / "serve.lock").exists():
        return False
    lock = FileLock(data / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def detach(data: Path, *, port: int | None = None, tick: Callable[[float], None] = lambda _: None) -> Connection:
    """Start `lsplugin serve` in a session of its own and return when it answers; a running one is left as it is."""
    if is_served(data):
        return _wait_for_connection(data, None, tick)
    find_program()
    data.mkdir(parents=True, exist_ok=True)
    (data / CONNECTION_FILE).touch(mode=0o600)
    command = [sys.executable, "-m", "lsplugin", "serve", "--data", str(data)] + (["--port", str(port)] if port else [])
    with (data / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    return _wait_for_connection(data, process, tick)


def stop(data: Path, *, timeout: float = 30.0) -> bool:
    """Stop the `serve` that is alive on this folder; False when there is none."""
    if not is_served(data):
        return False
    pid_file = data / "serve.pid"
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while is_served(data):
        if time.monotonic() > deadline:
            raise LspluginError(f"the server on {data} did not stop within {timeout:.0f} s; see {data / LOG_FILE}")
        time.sleep(0.1)
    return True


def address_of(data: Path) -> str:
    """Say where the server on this folder is, or that it is only starting."""
    file = data / CONNECTION_FILE
    return read_connection_file(file).get(URL_VARIABLE, "still starting") if file.exists() else "still starting"


def _wait_for_connection(
    data: Path, process: subprocess.Popen[bytes] | None, tick: Callable[[float], None]
) -> Connection:
    started = time.monotonic()
    while (waited := time.monotonic() - started) < START_TIMEOUT:
        values = read_connection_file(data / CONNECTION_FILE)
        url = values.get(URL_VARIABLE)
        if url and is_served(data) and is_up(url):
            return Connection(url, values[KEY_VARIABLE])
        if process is not None and process.poll() is not None:
            last = (data / "serve.log").read_text(errors="replace").strip().splitlines()
            raise LspluginError(
                last[-1].removeprefix("error: ") if last else f"the server ended at once; see {data / LOG_FILE}"
            )
        tick(waited)
        time.sleep(0.5)
    raise LspluginError(f"no server on {data} within {START_TIMEOUT:.0f} s; see {data / LOG_FILE}")


def _credentials(file: Path) -> dict[str, str]:
    """Keep the user and token of an earlier start (the database has them); make new ones for a new folder."""
    old = read_connection_file(file) if file.exists() else {}
    return {
        URL_VARIABLE: "",
        KEY_VARIABLE: old.get(KEY_VARIABLE) or secrets.token_hex(20),  # at most 40 characters
        USER_VARIABLE: old.get(USER_VARIABLE) or "admin@localhost.local",
        PASSWORD_VARIABLE: old.get(PASSWORD_VARIABLE) or secrets.token_urlsafe(12),
    }


def _environment(data: Path, values: dict[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _STRIPPED and not name.startswith("LABEL_STUDIO_")
    }
    own = _SETTINGS | {
        "BASE_DATA_DIR": str(data.absolute()),
        "USERNAME": values[USER_VARIABLE],
        "PASSWORD": values[PASSWORD_VARIABLE],
        "USER_TOKEN": values[KEY_VARIABLE],
    }
    return kept | {f"LABEL_STUDIO_{name}": value for name, value in own.items()} | {LOCAL_BACKENDS: "false"}


def _free_port(wanted: int | None) -> int:
    """Take the wanted port, or any free one. Label Studio itself would move to the next port without a word."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError:
            raise LspluginError(f"--port {wanted} is taken: leave --port out for a free one, or name another") from None
        port: int = probe.getsockname()[1]
        return port


def is_up(url: str) -> bool:
    """Ask /health."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path, tick: Callable[[float], None]) -> None:
    started = time.monotonic()
    while (waited := time.monotonic() - started) < START_TIMEOUT:
        if process.poll() is not None:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise LspluginError(f"label-studio ended with exit code {process.returncode} ({' '.join(tail)}); see {log}")
        if is_up(url):
            return
        tick(waited)
        time.sleep(0.5)
    raise LspluginError(f"label-studio did not answer on {url} within {START_TIMEOUT:.0f} s; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
