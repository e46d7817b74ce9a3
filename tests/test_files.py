"""Files are whole or absent; what cannot be read is named with its line."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.errors import LspluginError
from lsplugin.files import (
    atomic_file,
    atomic_folder,
    check_replaceable,
    read_json,
    read_jsonl,
    read_text,
    write_json,
    write_jsonl,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_027() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


class TestOneFile:
    def test_appears_whole_in_folders_that_are_made(self, tmp_path: Path) -> None:
        target = tmp_path / "new" / "folders" / "a.txt"
        with atomic_file(target) as temporary:
            temporary.write_text("whole")
            assert not target.exists()
        assert target.read_text() == "whole"
        assert os.listdir(target.parent) == ["a.txt"]

    @pytest.mark.parametrize("stopped_by", [ValueError, KeyboardInterrupt])
    def test_stays_as_it_was_when_the_writer_stops(self, tmp_path: Path, stopped_by: type[BaseException]) -> None:
        old, new = tmp_path / "old.txt", tmp_path / "new.txt"
        old.write_text("before")
        for target in (old, new):
            with pytest.raises(stopped_by), atomic_file(target) as temporary:
                temporary.write_text("half")
                raise stopped_by
        assert old.read_text() == "before"
        assert os.listdir(tmp_path) == ["old.txt"]

    def test_rows_that_break_off_leave_nothing(self, tmp_path: Path) -> None:
        def rows() -> Iterator[int]:
            yield 1
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_jsonl(tmp_path / "a.jsonl", rows())
        assert os.listdir(tmp_path) == []

    def test_secret_is_never_readable_by_others(self, tmp_path: Path) -> None:
        target = tmp_path / "secret"
        target.touch(0o644)
        with atomic_file(target, private=True) as temporary:
            assert mode(temporary) == 0o600
            temporary.write_text("key")
        assert mode(target) == 0o600

    @pytest.mark.usefixtures("umask_027")
    def test_umask_is_respected_and_kept(self, tmp_path: Path) -> None:
        write_text(tmp_path / "a", "")
        (tmp_path / "b").write_text("")
        assert mode(tmp_path / "a") == mode(tmp_path / "b") == 0o640

    def test_folder_in_its_place_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LspluginError, match="found a folder"):
            write_text(tmp_path, "x")

    def test_what_is_no_regular_file_is_never_replaced(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        with pytest.raises(LspluginError, match="pipe: expected a file"):
            write_text(pipe, "x")
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_parent_that_is_a_file_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        with pytest.raises(LspluginError, match=r"a/b\.txt: cannot be written"):
            write_text(tmp_path / "a" / "b.txt", "x")


class TestFolder:
    def test_appears_whole(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "rm", marker="config.json") as temporary:
            (temporary / "config.json").write_text("1")
            assert not (tmp_path / "rm").exists()
        assert os.listdir(tmp_path) == ["rm"]
        assert os.listdir(tmp_path / "rm") == ["config.json"]

    def test_replaces_an_earlier_result_as_a_whole(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            with atomic_folder(tmp_path / "rm", marker="config.json") as temporary:
                (temporary / "config.json").write_text(name)
                (temporary / name).touch()
        assert sorted(os.listdir(tmp_path / "rm")) == ["config.json", "new"]
        assert os.listdir(tmp_path) == ["rm"]

    def test_stays_as_it_was_when_the_writer_stops(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "rm", marker="config.json") as temporary:
            (temporary / "config.json").write_text("old")
        with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "rm", marker="config.json") as temporary:
            (temporary / "config.json").write_text("half")
            raise KeyboardInterrupt
        assert (tmp_path / "rm" / "config.json").read_text() == "old"
        assert os.listdir(tmp_path) == ["rm"]

    def test_somebody_elses_folder_is_refused_and_kept(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years")
        with (
            pytest.raises(LspluginError, match=r"holds no config\.json"),
            atomic_folder(tmp_path, marker="config.json"),
        ):
            pytest.fail("the block must not run")
        assert (tmp_path / "thesis.tex").read_text() == "years"

    def test_empty_folder_is_taken_and_a_file_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert check_replaceable(tmp_path / "empty", marker="x") == tmp_path / "empty"
        (tmp_path / "file").touch()
        with pytest.raises(LspluginError, match="found a file"):
            check_replaceable(tmp_path / "file", marker="x")

    @pytest.mark.usefixtures("umask_027")
    def test_umask_is_respected(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "rm", marker="x"):
            pass
        assert mode(tmp_path / "rm") == 0o750


class TestReading:
    def test_bad_json_names_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('[\n  {"prompt": "x"},\n  {"prompt": }\n]')
        with pytest.raises(LspluginError, match=r"a\.json, line 3: .*column 14"):
            read_json(tmp_path / "a.json")

    def test_bad_jsonl_names_its_line_after_the_good_ones(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n{"a": 3\n')
        rows = read_jsonl(tmp_path / "a.jsonl")
        assert [next(rows), next(rows)] == [(1, {"a": 1}), (3, {"a": 2})]
        with pytest.raises(LspluginError, match=r"a\.jsonl, line 4: expected one JSON object a line"):
            next(rows)

    @pytest.mark.parametrize("bad", ["9" * 5000, "[" * 100_000])
    def test_json_that_python_cannot_hold_is_no_traceback(self, tmp_path: Path, bad: str) -> None:
        (tmp_path / "a.json").write_text(bad)
        with pytest.raises(LspluginError, match=r"a\.json"):
            read_json(tmp_path / "a.json")
        with pytest.raises(LspluginError, match=r"a\.json, line 1"):
            list(read_jsonl(tmp_path / "a.json"))

    def test_other_bytes_than_utf_8_name_where(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(b"one\ntwo\n" + b"caf\xe9\n")
        with pytest.raises(LspluginError, match=r"a\.txt, after line \d: expected UTF-8"):
            read_text(tmp_path / "a.txt")

    def test_byte_order_mark_is_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
        assert read_json(tmp_path / "a.json") == {"a": 1}

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(LspluginError, match=r"gone\.txt: no such file"):
            read_text(tmp_path / "gone.txt")
        with pytest.raises(LspluginError, match="expected a file, found a folder"):
            read_text(tmp_path)

    @given(rows=st.lists(JSON_VALUES, max_size=4))
    def test_what_is_written_comes_back(self, rows: list[object], tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.getbasetemp()
        assert write_jsonl(folder / "rows.jsonl", rows) == len(rows)
        assert [row for _, row in read_jsonl(folder / "rows.jsonl")] == rows
        write_json(folder / "rows.json", rows)
        assert json.loads((folder / "rows.json").read_bytes()) == rows

    def test_half_an_emoji_comes_back(self, tmp_path: Path) -> None:
        """JSON can hold a lone surrogate, UTF-8 cannot: a truncated export must not end in a traceback."""
        write_jsonl(tmp_path / "a.jsonl", ["\ud83d"])
        assert list(read_jsonl(tmp_path / "a.jsonl")) == [(1, "\ud83d")]

    def test_not_a_number_is_not_json(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "a.json", float("nan"))
        assert os.listdir(tmp_path) == []

    def test_rows_are_read_one_at_a_time(self, tmp_path: Path) -> None:
        """A pipe that nobody closes: the first row must come before the file ends."""
        pipe = tmp_path / "rows.jsonl"
        os.mkfifo(pipe)
        writer = os.open(pipe, os.O_RDWR)
        try:
            os.write(writer, b'{"a": 1}\n' + b'{"a": 2}\n' * 2000)
            rows = read_jsonl(pipe)
            assert next(rows) == (1, {"a": 1})
            rows.close()  # type: ignore[attr-defined]  # a generator
        finally:
            os.close(writer)
