"""Files that lie elsewhere: read where they are, written whole, and one line when they cannot be reached."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import fsspec
import pytest

from lsplugin.errors import LspluginError
from lsplugin.files import atomic_file, read_json, write_json, write_jsonl
from tests.helpers import complaint, pairwise_result, run_cli, unused_port
from tests.helpers import write_json as write_locally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TASK = {
    "id": 1,
    "data": {"prompt": "p", "answer1": "a", "answer2": "b"},
    "annotations": [{"id": 2, "completed_by": 3, "result": pairwise_result("left")}],
}


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty object store, in memory."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Address of a web server that gives out the files of tmp_path."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_written_is_read_again(store: fsspec.AbstractFileSystem) -> None:
    write_json("memory://bucket/deep/a.json", {"text": "é\n"})
    assert read_json("memory://bucket/deep/a.json") == {"text": "é\n"}
    assert write_jsonl("memory://bucket/b.jsonl", [1, 2]) == 2
    assert store.cat("/bucket/b.jsonl") == b"1\n2\n"


def test_nothing_is_half_written(store: fsspec.AbstractFileSystem) -> None:
    write_json("memory://bucket/a.json", "old")
    with pytest.raises(ZeroDivisionError), atomic_file("memory://bucket/a.json") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert read_json("memory://bucket/a.json") == "old"


def test_commands_take_addresses(store: fsspec.AbstractFileSystem, web: str, tmp_path: Path) -> None:
    write_locally(tmp_path / "export.json", [TASK])
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress((tmp_path / "export.json").read_bytes()))
    for name in ("export.json", "packed.json.gz"):
        result = run_cli(["lsplugin", "pairs", f"{web}/{name}", "-o", "memory://bucket/pairs.jsonl"])
        assert result.code == 0, result.stderr
        assert "wrote memory://bucket/pairs.jsonl: 1 pairs" in result.stderr
        assert json.loads(store.cat("/bucket/pairs.jsonl"))["chosen"] == "a"
    assert (
        run_cli(["lsplugin", "render", "-o", tmp_path / "export.config.xml"]).code == 0
    )  # found beside it, there, too
    assert run_cli(["lsplugin", "pairs", f"{web}/export.json", "-o", "memory://bucket/p.jsonl"]).code == 0
    result = run_cli(["lsplugin", "report", f"{web}/export.json", "-o", "memory://bucket/report.html"])
    assert result.code == 0, result.stderr
    assert sorted(store.store) == [
        f"/bucket/{name}" for name in ("p.jsonl", "pairs.jsonl", "report.html", "report.json")
    ]


def test_what_cannot_be_reached_is_one_line(web: str) -> None:
    assert "nothing.json: no such file" in complaint(["lsplugin", "pairs", f"{web}/nothing.json"])
    nowhere = f"http://127.0.0.1:{unused_port()}/export.json"
    assert f"{nowhere}: no such file, or nobody answers there" in complaint(["lsplugin", "pairs", nowhere])
    if importlib.util.find_spec("s3fs") is None:  # each kind of store has a package of its own
        assert "s3://b/x.json: Install s3fs" in complaint(["lsplugin", "pairs", "s3://b/x.json"])
    assert "nosuch://b/x.json" in complaint(["lsplugin", "pairs", "nosuch://b/x.json"])
    with pytest.raises(LspluginError, match="cannot be reached"):
        write_json(f"{web}/a.json", 1)
