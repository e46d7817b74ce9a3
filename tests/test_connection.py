"""A key goes to the server it was given for, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE, Connection, resolve, write_connection_file
from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from pathlib import Path


def served(folder: Path, url: str = "http://file:1", key: str = "file-key") -> Path:
    write_connection_file(folder / ".lsplugin" / "connection.env", {URL_VARIABLE: url, KEY_VARIABLE: key})
    return folder


def test_options_come_first_then_environment_then_the_nearest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    served(tmp_path)
    assert resolve(start=below) == Connection("http://file:1", "file-key")
    served(tmp_path / "a", url="http://nearer:1")
    assert resolve(start=below).url == "http://nearer:1"
    monkeypatch.setenv(URL_VARIABLE, "http://environment:1/")
    monkeypatch.setenv(KEY_VARIABLE, "environment-key")
    assert resolve(start=below) == Connection("http://environment:1", "environment-key")
    assert resolve("http://option:1", "option-key", start=below) == Connection("http://option:1", "option-key")
    assert resolve(api_key="option-key", start=below) == Connection("http://environment:1", "option-key")
    assert resolve("http://environment:1", start=below).api_key == "environment-key"


def test_a_key_alone_in_the_environment_is_for_the_named_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "environment-key")
    assert resolve("https://option:1").api_key == "environment-key"


def test_a_key_is_never_sent_to_another_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(tmp_path)
    with pytest.raises(LspluginError, match=r"key .* is missing"):
        resolve("http://elsewhere:1", start=tmp_path)
    monkeypatch.setenv(URL_VARIABLE, "http://environment:1")
    monkeypatch.setenv(KEY_VARIABLE, "environment-key")
    with pytest.raises(LspluginError, match=r"key .* is missing") as caught:
        resolve("http://elsewhere:1", start=tmp_path)
    assert "environment-key" not in str(caught.value)


def test_half_an_environment_does_not_borrow_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(tmp_path)
    monkeypatch.setenv(URL_VARIABLE, "http://environment:1")
    with pytest.raises(LspluginError, match="key"):
        resolve(start=tmp_path)


def test_nothing_at_all_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(LspluginError, match="lsplugin serve"):
        resolve(start=tmp_path)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "8080"])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(LspluginError, match="expected an address such as"):
        resolve(url, "key")


def test_the_key_is_in_no_repr() -> None:
    assert "secret" not in repr(Connection("http://a:1", "secret"))


def test_the_file_is_private(tmp_path: Path) -> None:
    served(tmp_path)
    assert (tmp_path / ".lsplugin" / "connection.env").stat().st_mode & 0o777 == 0o600
