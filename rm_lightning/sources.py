"""Preferences from wherever they lie: our pairs, TRL's and HH's rows, a Label Studio export, Arrow and Parquet.

A file is told by what it holds, not by its name, except for Arrow and Parquet (`.arrow`, `.parquet`) and folders of them, as
`datasets.Dataset.save_to_disk` and `to_parquet` write them. Everything streams.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lsplugin.files import as_path, decoded_lines, is_remote, open_bytes, open_text
from lsplugin.preferences import Pair
from lsplugin.published import Raw, UnusableError, read_row, read_rows
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

COLUMNS = (".arrow", ".parquet")
"""Endings of files that hold a table."""

EXPORT = {"annotations", "data", "completed_by", "annotation_id"}
"""Keys that rows of a Label Studio export have and preference rows do not."""

_BATCH = 1024


class Row(NamedTuple):
    """A preference and where it stands.

    Attributes:
        file: place of its file in the list of files.
        number: line or row, from 1; the task's number for an export.
        pair: the preference.
    """

    file: int
    number: int
    pair: Pair


def files_of(paths: Sequence[str | Path]) -> list[str]:
    """Give every file behind the given names: a folder stands for its tables.

    Raises:
        RewardModelError: nothing is named, or a folder holds no table.
    """
    found = []
    for path in paths:
        if not is_remote(path) and Path(path).is_dir():
            inside = sorted(str(file) for file in Path(path).rglob("*") if file.suffix in COLUMNS)
            if not inside:
                raise RewardModelError(f"{path}: expected .arrow or .parquet files in this folder, found none")
            found += inside
        else:
            found.append(str(path))
    if not found:
        raise RewardModelError("--data.pairs names no file: name one or more, or leave it out for the demo world's")
    return found


def fingerprint(files: Sequence[str]) -> str:
    """Hash what the files hold, in their order; 32 hexadecimal digits, whatever the files are called."""
    whole = hashlib.blake2b(digest_size=16)
    for file in files:
        own = hashlib.blake2b(digest_size=16)
        with open_bytes(file) as stream:
            while block := stream.read(1 << 20):
                own.update(block)
        whole.update(own.digest())
    return whole.hexdigest()


def read_preferences(files: Sequence[str], dropped: Counter[str]) -> Iterator[Row]:
    """Stream the preferences of all files.

    Args:
        files: from `files_of`.
        dropped: counts, by reason, rows of the right shape that hold no preference.

    Raises:
        LspluginError: a row of no known shape, with file, line and field; a file without any rows.
    """
    for place, file in enumerate(files):
        empty = True
        for number, pair in _pairs(file, dropped):
            empty = False
            if pair is not None:
                yield Row(place, number, pair)
        if empty:
            raise RewardModelError(f"{file}: no preferences in it; expected rows with prompt, chosen and rejected")


def _pairs(file: str, dropped: Counter[str]) -> Iterator[tuple[int, Pair | None]]:
    if as_path(file).suffix in COLUMNS:
        rows = _table(file)
    elif _is_export(file):
        yield from _export(file, dropped)
        return
    else:
        rows = read_rows(file)
    for raw in rows:
        try:
            yield raw.number, _pair(raw)
        except UnusableError as reason:
            dropped[f"dropped: {reason}"] += 1
            yield raw.number, None


def _pair(raw: Raw) -> Pair:
    row = raw.value
    plain = (
        isinstance(row, dict) and not isinstance(row.get("chosen"), list) and not isinstance(row.get("rejected"), list)
    )
    if plain and row.get("prompt") is not None:
        return Pair.from_dict(row, where=raw.where)
    if plain and not (isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)):
        return Pair.from_dict(row, where=raw.where)  # says which field is missing
    twice = isinstance(row, dict) and isinstance(row.get("prompt"), str)
    prompt, chosen, rejected = read_row("ultrafeedback" if twice else "trl", raw)
    return Pair.from_dict({**row, "prompt": prompt, "chosen": chosen, "rejected": rejected}, where=raw.where)


def _table(file: str) -> Iterator[Raw]:
    """Stream the rows of a Parquet or Arrow file, the latter in either of its two forms."""
    import pyarrow as pa
    import pyarrow.parquet

    parquet: Any = pyarrow.parquet  # untyped

    number = 0
    try:
        with open_bytes(file) as stream:
            if as_path(file).suffix == ".parquet":
                batches: Any = parquet.ParquetFile(stream).iter_batches(batch_size=_BATCH)
            elif stream.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(stream)
                batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
            else:
                stream.seek(0)
                batches = pa.ipc.open_stream(stream)
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH):
                    for row in batch.slice(start, _BATCH).to_pylist():
                        number += 1
                        known = {name: value for name, value in row.items() if value is not None}
                        yield Raw(number, f"{file}, row {number}", known)
    except pa.ArrowException as error:
        raise RewardModelError(
            f"{file}, after row {number}: expected an Arrow or Parquet table, found something else ({error})"
        ) from None


def _is_export(file: str) -> bool:
    """Say whether a file is a Label Studio export: a list whose first item looks like a task."""
    import ijson

    with open_text(file) as stream:
        first = next((line for line in decoded_lines(stream, file) if line.strip()), "")
    if not first.lstrip().startswith("["):
        return False
    with open_bytes(file) as stream:
        try:
            item = next(ijson.items(stream, "item"), None)
        except ijson.JSONError:
            return False  # whoever reads it says where it breaks
    return isinstance(item, dict) and bool(EXPORT & item.keys()) and "chosen" not in item


def _export(file: str, dropped: Counter[str]) -> Iterator[tuple[int, Pair]]:
    """Read an export as `lsplugin pairs` does, with the config that `lsplugin pull` put beside it."""
    from lsplugin.cli_pairs import interface_of
    from lsplugin.export import read_export
    from lsplugin.judged import Accounting
    from lsplugin.pairs import pairs_from_export

    interface = interface_of(Path(file), None)
    accounting = Accounting()
    for pair in pairs_from_export(read_export(file, interface=interface), accounting, interface=interface):
        task = pair.meta.get("task")
        yield task if isinstance(task, int) else 0, pair
    for reason, count in accounting.dropped.items():
        dropped[f"dropped: {reason}"] += count


def where(files: Sequence[str], file: int, number: int) -> str:
    """Name a preference's place for a person."""
    return f"{files[file]}, line {number}"
