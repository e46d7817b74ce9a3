"""`lsplugin serve` as a person uses it: started, found, refused twice, stopped, with no secret shown and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from lsplugin import server as local
from lsplugin.connection import CONNECTION_FILE, KEY_VARIABLE, URL_VARIABLE, read_connection_file
from lsplugin.errors import LspluginError
from tests.conftest import copy_migrated

pytestmark = pytest.mark.server


def lsplugin(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lsplugin", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def processes_of(data: Path) -> list[str]:
    """Command lines of the processes whose environment names this data folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and str(data).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # it ended while we looked
    return [line for line in found if "label-studio" in line]


def test_serve_in_the_foreground(migrated: Path, tmp_path: Path) -> None:
    data = copy_migrated(migrated, tmp_path / ".lsplugin")
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "lsplugin", "serve"], cwd=tmp_path, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 90
        while "Label Studio is at" not in (tmp_path / "out").read_text():
            assert process.poll() is None, (tmp_path / "out").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        values = read_connection_file(data / CONNECTION_FILE)
        assert (data / CONNECTION_FILE).stat().st_mode & 0o777 == 0o600
        assert httpx.get(values[URL_VARIABLE] + "/health").json() == {"status": "UP"}
        assert processes_of(data)

        # Other commands find it from the folder, without any option.
        created = lsplugin("create", "Found by itself", cwd=tmp_path)
        assert created.returncode == 0, created.stderr
        assert created.stdout.strip().isdigit()

        twice = lsplugin("serve", cwd=tmp_path)
        assert twice.returncode == 1
        assert "is being served already" in twice.stderr
        other = lsplugin("serve", "--data", "other", "--port", values[URL_VARIABLE].rpartition(":")[2], cwd=tmp_path)
        assert other.returncode == 1
        assert "is taken" in other.stderr
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
    printed = (tmp_path / "out").read_text()
    assert code == 0
    assert printed.endswith("stopped\n")
    assert "Traceback" not in printed
    for secret in (values[KEY_VARIABLE], values[local.PASSWORD_VARIABLE]):
        assert secret not in printed + twice.stderr + created.stdout + created.stderr
    assert not processes_of(data)


def test_serve_in_the_background(migrated: Path, tmp_path: Path) -> None:
    data = copy_migrated(migrated, tmp_path / "data")
    started = lsplugin("serve", "--data", "data", "--detach", cwd=tmp_path)
    try:
        assert started.returncode == 0, started.stderr
        assert "Label Studio is at http://127.0.0.1:" in started.stderr
        again = lsplugin("serve", "--data", "data", "--detach", cwd=tmp_path)
        assert again.returncode == 0  # it is there already
        assert again.stderr.splitlines()[-2:] == started.stderr.splitlines()[-2:]
    finally:
        stopped = lsplugin("serve", "--data", "data", "--stop", cwd=tmp_path)
    assert stopped.returncode == 0
    assert stopped.stderr == "stopped\n"
    assert not processes_of(data)
    assert lsplugin("serve", "--data", "data", "--stop", cwd=tmp_path).stderr == "no server runs on data\n"


def test_what_to_install_when_label_studio_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(LspluginError, match=r"pip install label-studio,"),
        local.serve(tmp_path / "data"),
    ):
        pass
    assert not (tmp_path / "data").exists()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is none: the process ends by itself, and the message names its log."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "label_studio.sqlite3").write_text("this is no database")
    with pytest.raises(LspluginError, match=r"label-studio ended with exit code .*server\.log"), local.serve(data):
        pass
    assert not local.is_served(data)
    assert os.listdir(data)
