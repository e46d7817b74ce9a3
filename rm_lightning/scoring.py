"""Files of answers -> a file of their scores, which survives being killed.

Lines grow in `<output>.part`; beside it `<output>.part.json` says after every chunk how far it is and what it was made with. The
same command goes on after the last whole chunk, and its result is byte for byte that of a run that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import try_to_load_from_cache

from lsplugin.errors import LspluginError
from lsplugin.files import CLOCKED, PathLike, is_remote, read_json, write_json
from rm_lightning.candidates import Candidate, read_candidates
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rm_lightning.scorer import Attempt, RewardScorer

CHUNK = 1024
"""Answers that are read, sorted by length, scored and written together."""

_NAMED = 3  # skipped answers of one reason that are named; the rest are counted
_DIGITS = 6  # of a score, about what float32 holds


@dataclass
class Tally:
    """What became of the answers so far; it stands beside the part.

    Attributes:
        made_with: model, options and all else that a score depends on, beside the answers.
        taken: answers read; each is scored or skipped.
        digest: of those answers, to know them again.
        size: bytes of the part that are whole chunks.
        scored: answers with a score.
        skipped: answers without one, by reason.
        examples: where the first skipped ones of each reason stand.
    """

    made_with: dict[str, Any]
    taken: int = 0
    digest: str = ""
    size: int = 0
    scored: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, candidate: Candidate, reason: str) -> None:
        """Count an answer that has no score."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        named = self.examples.setdefault(reason, [])
        if len(named) < _NAMED:
            named.append(candidate.where)

    def reasons(self) -> list[str]:
        """Say for each reason how many were skipped, and where the first of them stand."""
        lines = []
        for reason, count in self.skipped.items():
            named = "; ".join(self.examples[reason])
            lines.append(f"{count} {reason}: {named}{'; ...' if count > _NAMED else ''}")
        return lines


class Part:
    """A result that grows beside its place, and takes it when it is whole.

    Args:
        output: a local file.

    Raises:
        RewardModelError: the output is an address or no regular file.
    """

    def __init__(self, output: PathLike) -> None:
        if is_remote(output):
            raise RewardModelError(
                f"{output}: expected a local file to write, as it grows in place; copy it afterwards"
            )
        self.output = Path(output)
        if self.output.exists() and not self.output.is_file():
            raise RewardModelError(f"{output}: expected a file to write, found a folder, device or pipe; name a file")
        self.lines = self.output.with_name(self.output.name + ".part")
        self.sidecar = self.output.with_name(self.output.name + ".part.json")

    def tally(self) -> Tally | None:
        """Read how far an earlier run came; None where there is none to go on with."""
        if not (self.lines.is_file() and self.sidecar.is_file()):
            return None
        try:
            found = Tally(**read_json(self.sidecar))
            return found if self.lines.stat().st_size >= found.size else None
        except (LspluginError, TypeError):  # not one of ours
            return None

    def begin(self, tally: Tally) -> None:
        """Cut off what a killed run left of a chunk; a tally of nothing begins anew."""
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        with self.lines.open("ab") as stream:
            stream.truncate(tally.size)
        write_json(self.sidecar, asdict(tally))

    def add(self, lines: Iterable[str], tally: Tally) -> None:
        """Write a chunk, and only then that it is there."""
        with self.lines.open("ab") as stream:
            stream.writelines(line.encode() for line in lines)
            stream.flush()
            os.fsync(stream.fileno())
            tally.size = stream.tell()
        write_json(self.sidecar, asdict(tally))

    def finish(self) -> None:
        """Put the result in its place."""
        self.lines.replace(self.output)
        self.sidecar.unlink()


def score_files(
    scorer: RewardScorer,
    paths: Sequence[PathLike],
    part: Part,
    *,
    made_with: dict[str, Any],
    total: Callable[[int, int], Callable[[int], object]],
    tell: Callable[[str], None],
) -> Tally:
    """Score every answer of some files; each is scored or counted as skipped.

    All rows are read once before the first is scored, so that a bad one is found at once and not after hours.

    Args:
        scorer: the model.
        paths: what `read_candidates` reads.
        part: where the lines grow; what an earlier run made with the same and of the same answers is kept.
        made_with: all that a score depends on; its `model` is what every line calls the model.
        total: called with the number of answers and of those done already; gives the function that takes what is done.
        tell: called with what a person should know on the way.

    Raises:
        LspluginError: a bad row, with file, row and field; or a score that is no number. The part stays.
    """
    earlier = part.tally()
    count, digest = survey(paths, earlier.taken if earlier else 0)
    if not count:
        raise RewardModelError(f"{', '.join(map(str, paths))}: no answers in there")
    tally = _going_on(part, earlier, made_with, digest, tell)
    part.begin(tally)
    advance = total(count, tally.taken)
    for chunk in chunks(islice(read_candidates(paths), tally.taken, None)):
        usable = [candidate for candidate in chunk if candidate.unusable is None]
        advance(len(chunk) - len(usable))
        attempt = scorer.attempt([one.prompt for one in usable], [one.answer for one in usable], advance=advance)
        _account(tally, chunk, usable, attempt)
        part.add(_lines(usable, attempt, str(made_with["model"])), tally)
    if tally.taken != count:
        raise RewardModelError(
            f"{', '.join(map(str, paths))}: {count} answers when first read, {tally.taken} the second time; "
            "leave the files alone while they are read, and name files, not pipes"
        )
    if not tally.scored:
        raise RewardModelError(f"none of {count} answers has a score: {'; '.join(tally.reasons())}")
    part.finish()
    return tally


def survey(paths: Sequence[PathLike], taken: int) -> tuple[int, str]:
    """Read every row: give the number of answers, and the digest of the first `taken` (empty where no chunk ends there)."""
    count, digest, found = 0, "", ""
    for chunk in chunks(read_candidates(paths)):
        count, digest = count + len(chunk), _digest(digest, chunk)
        if count == taken:
            found = digest
    return count, found


def chunks(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """Cut a stream into pieces of CHUNK."""
    stream = iter(candidates)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk


def model_digest(name: str, pattern: str = "*") -> str:
    """Give the digest of a model's files, in a folder or in the hub's cache.

    A copy elsewhere has the same, and so has a model that was made again, however long that took.

    Args:
        name: of a folder, or on the hub.
        pattern: of the files that count.
    """
    folder = Path(name)
    if not folder.is_dir():
        cached = try_to_load_from_cache(name, "config.json")
        assert isinstance(cached, str)  # it was loaded from there
        folder = Path(cached).parent
    whole = hashlib.sha256()
    for file in sorted(file for file in folder.glob(pattern) if file.is_file() and file.name not in CLOCKED):
        with file.open("rb") as stream:
            whole.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _going_on(
    part: Part, earlier: Tally | None, made_with: dict[str, Any], digest: str, tell: Callable[[str], None]
) -> Tally:
    """Give the tally of an earlier run where all is as it was, else an empty one, and say which."""
    if earlier is None or not earlier.taken:
        return Tally(made_with)
    old, new = earlier.made_with, json.loads(json.dumps(made_with))
    changed = [name for name in new if old.get(name) != new[name]] + ["answers"] * (earlier.digest != digest)
    if changed:
        tell(f"{part.lines}: begun anew, as this changed since it was made: {', '.join(changed)}")
        return Tally(made_with)
    tell(f"{part.lines}: goes on after {earlier.taken} answers")
    return earlier


def _account(tally: Tally, chunk: Sequence[Candidate], usable: Sequence[Candidate], attempt: Attempt) -> None:
    """Count every answer of a chunk, as scored or as skipped with its reason."""
    refused = {usable[place].where: reason for place, reason in attempt.refused.items()}
    for candidate in chunk:
        if reason := candidate.unusable or refused.get(candidate.where):
            tally.skip(candidate, reason)
    tally.taken += len(chunk)
    tally.scored += len(attempt.places)
    tally.digest = _digest(tally.digest, chunk)
    assert tally.taken == tally.scored + sum(tally.skipped.values())


def _lines(usable: Sequence[Candidate], attempt: Attempt, model: str) -> Iterator[str]:
    """Give a line of JSON for every score, as `lsplugin push --predictions` reads them."""
    means = attempt.scores.mean(dim=1).tolist()
    several = attempt.scores.shape[1] > 1
    spreads = attempt.scores.std(dim=1).tolist() if several else []  # of a sample of members, n - 1
    if not bool(attempt.scores.isfinite().all()):
        row = int((~attempt.scores.isfinite().all(dim=1)).nonzero()[0])
        raise RewardModelError(
            f"{usable[attempt.places[row]].where}: expected a finite score, {model} gives {means[row]}; try --precision 32-true"
        )
    for row, place in enumerate(attempt.places):
        candidate = usable[place]
        line: dict[str, Any] = {"prompt": candidate.prompt, "answer": candidate.answer}
        line |= {"score": round(means[row], _DIGITS), "model": model}
        if several:
            members = [round(score, _DIGITS) for score in attempt.scores[row].tolist()]
            line |= {"spread": round(spreads[row], _DIGITS), "members": members}
        yield json.dumps(line | {"where": candidate.where}, ensure_ascii=False, allow_nan=False) + "\n"


def _digest(before: str, chunk: Sequence[Candidate]) -> str:
    """Give the digest of all answers so far, from that of those before a chunk."""
    content = json.dumps([before, [candidate[:3] for candidate in chunk]])
    return hashlib.sha256(content.encode()).hexdigest()
