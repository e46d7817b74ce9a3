"""Files that are whole or absent, and readers that hold one row at a time.

Every part of the loop hands its result on as a file, so this module is the one place that knows how a file is written
atomically and how a broken one is reported: with its name and line. A file may lie wherever fsspec reads and writes (s3://,
gs://, https://, memory://), and is unpacked as it is read when it is called .gz.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tempfile
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from lsplugin.errors import LspluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PathLike = str | os.PathLike[str]
CLOCKED = frozenset({"timings.jsonl"})
"""Files of a model's folder that tell how long something took: no part of what the model is."""

_SURROGATES = "backslashreplace"
"""How half an emoji is written, which UTF-8 cannot hold: as \\ud83d, JSON's own escape."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""Make one line of JSON, with every character as itself."""

_TOO_MUCH = "expected JSON of ordinary size, found a number too long or lists too deep to read"


@contextmanager
def atomic_file(path: PathLike, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends well, and vanishes when it does not.

    Args:
        path: the file to make; missing folders are made.
        private: keep the file readable by its owner only (mode 0600), for secrets.
    """
    if is_remote(path):
        with _uploaded(as_path(path)) as temporary:
            yield temporary
        return
    target = Path(path)
    if target.is_dir():
        raise LspluginError(f"{target}: expected a file to write, found a folder; name a file inside it")
    if target.exists() and not target.is_file():  # a device or a pipe would be replaced by the file
        raise LspluginError(f"{target}: expected a file to write, found a device or pipe; name a regular file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise LspluginError(f"{target}: cannot be written ({error.strerror}); name another file") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: PathLike, *, marker: str) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, and vanishes when it does not.

    Args:
        path: the folder to make or to replace.
        marker: a file that only an earlier result has; a folder without it is somebody else's and is not replaced.
    """
    target = check_replaceable(path, marker=marker)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(old / "replaced")
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(path: PathLike, *, marker: str) -> Path:
    """Refuse, before any work is done, a result folder that holds something else than an earlier result."""
    target = Path(path).absolute()
    if target.exists() and not target.is_dir():
        raise LspluginError(f"{path}: expected a folder to write, found a file; choose another name")
    if target.is_dir() and any(target.iterdir()) and not (target / marker).is_file():
        raise LspluginError(
            f"{path}: the folder is not empty and holds no {marker}, so it is not an earlier result; "
            "choose another folder or empty this one"
        )
    return target


def write_text(path: PathLike, text: str, *, private: bool = False) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_file(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=_SURROGATES)


def write_json(path: PathLike, value: object) -> None:
    """Write one JSON value atomically, indented, with every character as itself."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: PathLike, rows: Iterable[object]) -> int:
    """Write one JSON value a line, atomically; return how many."""
    return write_jsonl_parts([path], ((0, row) for row in rows))[0]


def write_jsonl_parts(paths: Sequence[PathLike], rows: Iterable[tuple[int, object]]) -> list[int]:
    """Deal rows out to several JSONL files, (number of the file, row); all are written, or none; return how many in each."""
    counts = [0] * len(paths)
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_file(path)) for path in paths]
        with ExitStack() as opened:
            streams = [
                opened.enter_context(found.open("w", encoding="utf-8", errors=_SURROGATES)) for found in temporary
            ]
            for part, row in rows:
                streams[part].write(_encode(row) + "\n")
                counts[part] += 1
    return counts


def read_json(path: PathLike, *, name: PathLike | None = None) -> Any:  # noqa: ANN401 - JSON is whatever it is; callers check
    """Read one JSON value; a file that is not JSON is reported with its line, under `name` when it is a temporary one."""
    called = name or path
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise LspluginError(
            f"{called}, line {error.lineno}: expected JSON, found something else ({error.msg}, column {error.colno})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise LspluginError(f"{called}: {_TOO_MUCH} ({error})") from None


def read_jsonl(path: PathLike) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) for every line that is not blank; a bad line is reported with its number."""
    with open_text(path) as stream:
        for number, line in enumerate(decoded_lines(stream, path), start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise LspluginError(
                    f"{path}, line {number}: expected one JSON object a line, found something else ({error.msg})"
                ) from None
            except (ValueError, RecursionError) as error:
                raise LspluginError(f"{path}, line {number}: {_TOO_MUCH} ({error})") from None


def read_text(path: PathLike) -> str:
    """Read a whole UTF-8 text file; a missing or binary one is reported as one line."""
    with open_text(path) as stream:
        return "".join(decoded_lines(stream, path))


def decoded_lines(stream: Iterable[str], path: PathLike) -> Iterator[str]:
    """Pass lines on, turning undecodable bytes into one clear error."""
    number = 0
    try:
        for number, line in enumerate(stream, start=1):  # noqa: B007 - the number is for the error below
            yield line
    except UnicodeDecodeError as error:
        raise LspluginError(
            f"{path}, after line {number}: expected UTF-8 text, found other bytes ({error.reason})"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise LspluginError(
            f"{path}, after line {number}: expected a whole gzip file, as it is called ({error})"
        ) from None


def open_text(path: PathLike, *, newline: str | None = None) -> TextIO:
    """Open a UTF-8 text file for reading, with one clear line when that cannot be."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline=newline)


def open_bytes(path: PathLike) -> BinaryIO:
    """Open a file for reading as bytes, with one clear line when that cannot be."""
    found = as_path(path)
    with _reachable(path):
        stream = found.open("rb")
        if found.suffix != ".gz":
            return stream
        unpacked = gzip.GzipFile(fileobj=stream)
        unpacked.myfileobj = stream  # type: ignore[assignment]  # closed with it
        return unpacked  # type: ignore[return-value]


@contextmanager
def held(path: PathLike, said: str) -> Iterator[int]:
    """Hold a lock file of this machine; yields its file descriptor.

    Commands that inherit it (`pass_fds`) hold the lock, too: one that outlives a killed parent keeps the next parent out.

    Raises:
        LspluginError: `said`, as somebody else holds it.
    """
    import fcntl

    with as_path(path).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LspluginError(said) from None
        yield stream.fileno()


def is_remote(path: PathLike) -> bool:
    """Say whether a path is an address, such as s3://bucket/file."""
    return "://" in str(path)


def as_path(path: PathLike) -> Path:
    """Give a path that may be an address as something with the methods of pathlib's paths."""
    if not is_remote(path):
        return Path(path)
    from upath import UPath

    with _reachable(path):
        found: Any = UPath(str(path))
        _ = found.fs  # the package that reads such addresses is there, or it is said now
        return found  # type: ignore[no-any-return]


def is_there(path: PathLike) -> bool:
    """Say whether a file exists, here or elsewhere."""
    found = as_path(path)
    with _reachable(path):
        return found.is_file()


@contextmanager
def _uploaded(target: Path) -> Iterator[Path]:
    """Yield a local file that is put in its place when the block ends well; stores show it whole or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / target.name
        temporary.touch()
        yield temporary
        with _reachable(target):
            store: Any = target
            store.fs.put_file(str(temporary), store.path)


@contextmanager
def _reachable(path: PathLike) -> Iterator[None]:
    """Turn whatever keeps a file from being opened into one line."""
    try:
        yield
    except FileNotFoundError:
        nobody = ", or nobody answers there" if is_remote(path) else ""
        raise LspluginError(f"{path}: no such file{nobody}") from None
    except IsADirectoryError:
        raise LspluginError(f"{path}: expected a file, found a folder") from None
    except PermissionError:
        raise LspluginError(f"{path}: not readable by this user") from None
    except ImportError as error:  # each kind of store has a package of its own
        raise LspluginError(f"{path}: {error}") from None
    except Exception as error:
        if not is_remote(path):
            raise
        raise LspluginError(f"{path}: cannot be reached ({type(error).__name__}: {error})") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
