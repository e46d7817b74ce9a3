"""Preferences as tokens on disk: made once for what the files hold, then read in place, however many there are.

One Arrow file a data set, memory-mapped, with its counts beside it. A row is a prompt with its answers and everything that was
said of them (an `Example`): rows that follow each other with the same prompt, of the same task, that share an answer are one
ranking and are computed together, up to nine answers (the most in Ouyang et al. 2022, arXiv 2203.02155, section 3.5).
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import platformdirs
import pyarrow as pa
from filelock import FileLock

from lsplugin.files import atomic_file, read_json, write_json
from lsplugin.preferences import prompt_text
from rm_lightning.errors import RewardModelError
from rm_lightning.packing import Tree
from rm_lightning.sources import Row, fingerprint, read_preferences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lsplugin.preferences import Pair, Prompt
    from rm_lightning.text import TextEncoder

VERSION = 1
"""Changes when stored examples change their meaning; older files are then made anew."""

MOST_ANSWERS = 9
TIE = 0.5
"""The probability that says: as good as each other."""

_CHUNK = 256
_NUMBERS = ("probability", "margin", "weight")

SCHEMA = pa.schema(
    [
        ("prompt", pa.list_(pa.int32())),
        ("answers", pa.list_(pa.list_(pa.int32()))),
        ("better", pa.list_(pa.int8())),
        ("worse", pa.list_(pa.int8())),
        *((name, pa.list_(pa.float32())) for name in _NUMBERS),
        ("number", pa.list_(pa.int64())),
        ("file", pa.int32()),
        ("key", pa.int64()),
        ("tokens", pa.int32()),
    ]
)


class Example(NamedTuple):
    """A prompt, A answers and C comparisons of them.

    Attributes:
        tree: the prompt's and the answers' token ids.
        better: which answer won, for each comparison.
        worse: which answer lost.
        probability: that `better` is the better one; one half is a tie.
        margin: by how much, as people said; NaN where nobody was asked.
        weight: how much the comparison counts.
        number: the row of its file that each comparison stands in.
        file: the file's place among the files.
        key: a hash of the prompt's text.
    """

    tree: Tree
    better: list[int]
    worse: list[int]
    probability: list[float]
    margin: list[float]
    weight: list[float]
    number: list[int]
    file: int
    key: int


class Store:
    """The examples of a data set, read from disk when asked for.

    Attributes:
        tokens: distinct tokens of each example, (E,).
        keys: hash of each example's prompt, (E,).
        comparisons: how many each example holds, (E,).
        counts: where every preference went.
        notes: what else was seen: cut prompts, ties, repetitions, contradictions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            self._table = reader.read_all()
        told = read_json(path.with_suffix(".json"))
        self.counts: Counter[str] = Counter(told["counts"])
        self.notes: Counter[str] = Counter(told["notes"])
        self.tokens: npt.NDArray[np.int32] = self._table.column("tokens").to_numpy()
        self.keys: npt.NDArray[np.int64] = self._table.column("key").to_numpy()
        lengths = [np.diff(part.offsets.to_numpy()) for part in self._table.column("better").chunks]
        self.comparisons: npt.NDArray[np.int32] = np.concatenate(lengths) if lengths else np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, place: int) -> Example:
        columns = zip(SCHEMA.names, self._table.slice(place, 1), strict=True)
        found: dict[str, Any] = {name: column[0].as_py() for name, column in columns}
        tree = Tree(found.pop("prompt"), found.pop("answers"))
        del found["tokens"]
        return Example(tree, **found)


def open_store(
    files: Sequence[str],
    encoder: TextEncoder,
    *,
    folder: Path | None = None,
    tell: Callable[[float], None] | None = None,
) -> Store:
    """Open the tokens of some files, after making them where that was not done before.

    Args:
        files: from `rm_lightning.sources.files_of`.
        encoder: makes the tokens; another tokenizer, join or length makes another store.
        folder: where stores are kept; in the user's cache when None.
        tell: is called with how many preferences were read.
    """
    folder = folder or platformdirs.user_cache_path("label-studio-rlhf") / "tokens"
    path = folder / f"{store_key(files, encoder)}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{path}.lock"):
            if not path.with_suffix(".json").is_file():  # it is written last
                _make(path, files, encoder, tell or (lambda _: None))
    except OSError as error:
        raise RewardModelError(
            f"{folder}: tokens cannot be written here ({error.strerror or error}); make room, or name another with --data.cache"
        ) from None
    os.utime(path)  # the latest use, for whoever clears the cache
    return Store(path)


def store_key(files: Sequence[str], encoder: TextEncoder) -> str:
    """Name a store by all that its tokens depend on."""
    tokenizer = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    parts = (
        VERSION,
        fingerprint(files),
        words,
        tokenizer.chat_template,
        encoder.join,
        encoder.max_length,
        encoder.eos_token_id,
    )
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _make(path: Path, files: Sequence[str], encoder: TextEncoder, tell: Callable[[float], None]) -> None:
    counts: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    seen, cuts = _Seen(), encoder.cuts
    read = _counted(read_preferences(files, counts), counts, tell)
    with atomic_file(path, private=True) as temporary:  # noqa: SIM117 - the writer is closed before the file is put in place
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for chunk in _chunks(_rankings(row for row in read if _usable(row.pair, counts))):
                examples = list(_encoded(chunk, encoder, counts, notes))
                for example in examples:
                    seen.add(example)
                writer.write_batch(_batch(examples))
    notes["prompts cut from the left"] = encoder.cuts - cuts
    notes.update(seen.notes())
    write_json(path.with_suffix(".json"), {"counts": counts, "notes": {name: n for name, n in notes.items() if n}})


def _counted(rows: Iterable[Row], counts: Counter[str], tell: Callable[[float], None]) -> Iterator[Row]:
    for row in rows:
        tell(1)
        counts["read"] += 1
        yield row


def _usable(pair: Pair, counts: Counter[str]) -> bool:
    if pair.chosen == pair.rejected:
        counts["dropped: both answers are identical"] += 1
        return False
    if not pair.chosen.strip() or not pair.rejected.strip():
        counts["dropped: an answer is empty"] += 1
        return False
    return True


def _rankings(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Put rows together that are about the same answers: neighbours of one prompt and task that share an answer."""
    group: list[Row] = []
    answers: set[str] = set()
    for row in rows:
        both = {row.pair.chosen, row.pair.rejected}
        if group and (not _same(group[-1], row) or not both & answers or len(answers | both) > MOST_ANSWERS):
            yield group
            group, answers = [], set()
        group.append(row)
        answers |= both
    if group:
        yield group


def _same(one: Row, other: Row) -> bool:
    task, another = (row.pair.meta.get("task") for row in (one, other))
    return one.file == other.file and one.pair.prompt == other.pair.prompt and task == another


def _chunks(groups: Iterable[list[Row]]) -> Iterator[list[list[Row]]]:
    chunk: list[list[Row]] = []
    for group in groups:
        chunk.append(group)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _encoded(
    groups: Sequence[list[Row]], encoder: TextEncoder, counts: Counter[str], notes: Counter[str]
) -> Iterator[Example]:
    """Tokenise rankings; comparisons of an answer that is too long are dropped, and answers that nothing is left of."""
    texts: list[tuple[Prompt, list[str]]] = []
    for group in groups:
        several = dict.fromkeys(text for row in group for text in (row.pair.chosen, row.pair.rejected))
        texts.append((group[0].pair.prompt, list(several)))
    limit = encoder.max_length
    for group, (prompt, answers), tree in zip(groups, texts, encoder.trees(texts), strict=True):
        fits = {text for text, ids in zip(answers, tree.answers, strict=True) if len(ids) <= limit}
        kept = [row for row in group if row.pair.chosen in fits and row.pair.rejected in fits]
        counts[f"dropped: an answer is longer than {limit} tokens"] += len(group) - len(kept)
        if not kept:
            continue
        used = [text for text in answers if any(text in (row.pair.chosen, row.pair.rejected) for row in kept)]
        branches = dict(zip(answers, tree.answers, strict=True))
        left = Tree(tree.prompt, [branches[text] for text in used])
        notes["rankings of more than two answers"] += len(used) > 2
        yield _example(left, kept, {text: place for place, text in enumerate(used)}, prompt_key(prompt))


def _example(tree: Tree, rows: Sequence[Row], places: dict[str, int], key: int) -> Example:
    pairs = [row.pair for row in rows]
    return Example(
        tree,
        better=[places[pair.chosen] for pair in pairs],
        worse=[places[pair.rejected] for pair in pairs],
        probability=[1.0 if pair.probability is None else pair.probability for pair in pairs],
        margin=[float("nan") if pair.margin is None else pair.margin for pair in pairs],
        weight=[1.0 if pair.weight is None else pair.weight for pair in pairs],
        number=[row.number for row in rows],
        file=rows[0].file,
        key=key,
    )


def _batch(examples: Sequence[Example]) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for example in examples:
        tree = example.tree
        row: dict[str, Any] = {**example._asdict(), "prompt": tree.prompt, "answers": tree.answers, "tokens": len(tree)}
        for name, column in columns.items():
            column.append(row[name])
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


class _Seen:
    """Which two answers were compared, and which of them won: 17 bytes a comparison."""

    def __init__(self) -> None:
        self._both, self._first, self._ties = array("q"), array("b"), 0

    def add(self, example: Example) -> None:
        prompt = _bytes_hash(array("i", example.tree.prompt).tobytes())
        hashes = [_bytes_hash(array("i", answer).tobytes(), prompt) for answer in example.tree.answers]
        for better, worse, probability in zip(example.better, example.worse, example.probability, strict=True):
            self._both.append(hashes[better] ^ hashes[worse])
            self._first.append(
                0 if probability == TIE else 1 if (hashes[better] < hashes[worse]) == (probability > TIE) else -1
            )

    def notes(self) -> Counter[str]:
        if not self._both:
            return Counter()
        _, place = np.unique(np.array(self._both, np.int64), return_inverse=True)
        first = np.array(self._first, np.int64)
        groups = place.max() + 1
        one, other, level = (np.bincount(place, weights=first == side, minlength=groups) for side in (1, -1, 0))
        both = (one > 0) & (other > 0)
        return Counter(
            {
                "ties": int(level.sum()),
                "comparisons of answers that were compared before": int((one + other + level - 1).sum()),
                "contradictory: their answers were also judged the other way round": int((one + other)[both].sum()),
            }
        )


def prompt_key(prompt: Prompt) -> int:
    """Hash a prompt's text to 64 bits, signed."""
    return _bytes_hash(prompt_text(prompt).encode("utf-8", "surrogatepass"))


def _bytes_hash(data: bytes, salt: int = 0) -> int:
    digest = blake2b(data, digest_size=8, salt=salt.to_bytes(8, signed=True)).digest()
    return int.from_bytes(digest, signed=True)
