"""Answers to be scored, read one at a time: a list of 10 GB needs no more memory than a short one.

A row is a task of a dataset or an export (`{"prompt", "answer1", "answer2", ...}`, alone or under `data`; a ranking's `items` may
bring their own texts), a pair (`{"prompt", "chosen", "rejected"}`), or a candidate (`{"prompt", "answer"}` or with `answers`).
"""

from __future__ import annotations

import gzip
import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import ijson

from lsplugin.files import open_bytes, read_jsonl
from lsplugin.preferences import check_prompt, kind, prompt_text
from rm_lightning.errors import RewardModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lsplugin.files import PathLike
    from lsplugin.preferences import Prompt

_BOM = b"\xef\xbb\xbf"
_HALF = re.compile("[\ud800-\udfff]")
_TEXTS = ("chosen", "rejected", "answer")
_EXPECTED = "expected `answer1`, `answer2`, ..., or `chosen` and `rejected`, or `answer`, or a list of `answers`"


class Candidate(NamedTuple):
    """One answer to score.

    Attributes:
        prompt: what it answers.
        answer: its text.
        where: the file, row and field that it stands in, for a person to find it.
        unusable: why no model could score it; None where one can.
    """

    prompt: Prompt
    answer: str
    where: str
    unusable: str | None = None


def read_candidates(paths: Iterable[PathLike]) -> Iterator[Candidate]:
    """Yield every answer of some files, in their order; an answer that its row repeats is marked as unusable.

    Args:
        paths: JSON lists and JSONL, by what they begin with; unpacked where the name ends in .gz.

    Raises:
        LspluginError: a file that is neither, or a row without a prompt and answers, with file, row and field.
    """
    for path in paths:
        for where, row in _rows(path):
            prompt, answers = _parts(row, where)
            seen: set[str] = set()
            for field, answer in answers.items():
                unusable = "its row holds the same answer before" if answer in seen else why_unusable(prompt, answer)
                seen.add(answer)
                yield Candidate(prompt, answer, f"{where}, {field}", unusable)


def why_unusable(prompt: Prompt, answer: str) -> str | None:
    """Say why no model could score an answer; None where one can. An empty answer to a prompt has a score like any other."""
    asked = prompt_text(prompt)
    if not asked.strip() and not answer.strip():
        return "prompt and answer are empty"
    if _HALF.search(asked) or _HALF.search(answer):
        return "half a character (a lone surrogate), which no tokenizer reads"
    return None


def _parts(row: object, where: str) -> tuple[Prompt, dict[str, str]]:
    """Give a row's prompt, and its answers by the names of their fields."""
    if not isinstance(row, dict):
        raise RewardModelError(f"{where}: expected an object with a prompt and answers, found {kind(row)}")
    data = row["data"] if isinstance(row.get("data"), dict) else row
    if "prompt" not in data:
        raise RewardModelError(f"{where}: the field `prompt` is missing (it has {', '.join(data) or 'no fields'})")
    answers = _answers(data, where)
    for field, answer in answers.items():
        if not isinstance(answer, str):
            raise RewardModelError(f"{where}: expected `{field}` to be text, found {kind(answer)}")
    if not answers:
        raise RewardModelError(f"{where}: {_EXPECTED}; found {', '.join(data)}")
    return check_prompt(data["prompt"], where=where), answers


def _answers(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Give whatever stands where an answer should, by the name of its field."""
    if ("chosen" in data) != ("rejected" in data):
        there, missing = ("chosen", "rejected") if "chosen" in data else ("rejected", "chosen")
        raise RewardModelError(f"{where}: a pair with `{there}`, but the field `{missing}` is missing")
    found = {name: data[name] for name in _TEXTS if name in data}
    numbered = [name for name in data if name.startswith("answer") and name.removeprefix("answer").isdecimal()]
    found |= {name: data[name] for name in sorted(numbered, key=lambda name: int(name.removeprefix("answer")))}
    if "answers" in data:
        if not isinstance(data["answers"], list):
            raise RewardModelError(f"{where}: expected `answers` to be a list of texts, found {kind(data['answers'])}")
        found |= {f"answers[{place}]": answer for place, answer in enumerate(data["answers"])}
    if found:
        return found
    items = data.get("items")
    bodies = (
        items if isinstance(items, list) and all(isinstance(item, dict) and "body" in item for item in items) else []
    )
    return {f"items[{place}].body": item["body"] for place, item in enumerate(bodies)}


def _rows(path: PathLike) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) of every row of a JSON list or of JSONL."""
    try:
        with open_bytes(path) as stream:
            start = stream.read(64)
        if start.removeprefix(_BOM).lstrip().startswith(b"["):
            yield from _elements(path, skipped=len(_BOM) if start.startswith(_BOM) else 0)
        else:
            yield from ((f"{path}, line {number}", value) for number, value in read_jsonl(path))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RewardModelError(f"{path}: expected a whole gzip file, as it is called ({error})") from None


def _elements(path: PathLike, *, skipped: int) -> Iterator[tuple[str, Any]]:
    """Yield the elements of a JSON list without holding it; `skipped` bytes come before it."""
    number = 0
    with open_bytes(path) as stream:
        stream.read(skipped)
        try:
            for number, value in enumerate(ijson.items(stream, "item", use_float=True), start=1):
                yield f"{path}, row {number}", value
        except ijson.JSONError as error:
            reason = str(error).strip().splitlines()[0]
            raise RewardModelError(
                f"{path}, after row {number}: expected a list in JSON, found an error ({reason})"
            ) from None
