"""From a policy, or any other file, back to the very annotations and annotators behind it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from lsplugin.files import read_jsonl, read_text, write_text
from lsplugin.preferences import prompt_text
from rounds.content import tasks_of
from rounds.errors import RoundsError
from rounds.settings import SETTINGS
from rounds.state import Place
from rounds.steps import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rounds.ledger import Record

SALT = ".pseudonyms"
"""The key of the pseudonyms, readable by its owner only: without it nobody can tell who is who, with it one can try names out."""

Traced = dict[str, Any]


def trace(path: Path, *, pseudonyms: bool = False) -> Traced:
    """Walk back through the ledger.

    Args:
        path: what a step wrote, or a file inside of it.
        pseudonyms: name annotators by a keyed hash.

    Returns:
        `path`; `steps` behind it, the last first, each with its `depth`; `from_outside`: what no step wrote, with its hash;
        `annotations`, each with round, project, task, key, annotation and annotator; `annotators`: how many of each; `changed`:
        what is not any more what the ledger says.

    Raises:
        RoundsError: no step wrote it.
    """
    place = Place(_home(path))
    name = path.resolve().relative_to(place.folder.resolve()).as_posix()
    last = place.ledger.writer(name, place.contents.of(name).sha256)
    if last is None:
        raise RoundsError(f"{path}: no step in {place.ledger.path} wrote it, so nobody knows where it comes from")
    found = _walk(place, last, 0, [])
    outside = {
        p: read["sha256"] for record, _ in found for p, read in record.reads.items() if place.ledger.writer(p) is None
    }
    steps = [
        {"depth": depth, "round": record.round, "step": record.step, "command": record.command, "seed": record.seed,
         "when": record.when, "versions": record.versions, "reads": record.reads, "writes": record.writes}
        for record, depth in found
    ]  # fmt: skip
    who = _namer(place.folder, pseudonyms=pseudonyms)
    annotations = [
        one | {"annotator": who(one["annotator"])} for one in _annotations(place, [record for record, _ in found])
    ]
    return {
        "path": name,
        "steps": steps,
        "from_outside": outside,
        "annotations": annotations,
        "annotators": dict(Counter(one["annotator"] for one in annotations).most_common()),
        "changed": sorted({path for record, _ in found for path in _changed(place, record)}),
    }


def as_tree(found: Traced) -> str:
    """Lay it out for people: what came from what, and whose labels those are."""
    lines = [found["path"]]
    for step in found["steps"]:
        seed = "" if step["seed"] is None else f", seed {step['seed']}"
        lines.append(f"{'  ' * step['depth']}<- round {step['round']}, {step['step']} ({step['when']}{seed})")
        lines += [f"{'  ' * step['depth']}     {shlex.join(step['command'])}"]
        lines += [
            f"{'  ' * step['depth']}     {path}  {(was['sha256'] or '')[:12]}" for path, was in step["reads"].items()
        ]
    annotations = found["annotations"]
    rounds = Counter(one["round"] for one in annotations)
    lines += [
        "",
        f"{len(annotations)} annotations are behind it: "
        + (", ".join(f"{n} of round {r}" for r, n in sorted(rounds.items())) or "none"),
    ]
    lines += [f"  {name}: {count}" for name, count in found["annotators"].items()]
    lines += (
        ["not any more what the ledger says: " + ", ".join(found["changed"])]
        if found["changed"]
        else ["every file is as the ledger says"]
    )
    return "\n".join(lines)


def _home(path: Path) -> Path:
    for folder in path.resolve().parents:
        if (folder / SETTINGS).is_file():
            return folder
    raise RoundsError(f"{path}: expected something in a folder of rounds, found no {SETTINGS} above it")


def _walk(place: Place, record: Record, depth: int, seen: list[Record]) -> list[tuple[Record, int]]:
    """Give a step and all behind it, each once, before what it read."""
    seen.append(record)
    found = [(record, depth)]
    for path, was in record.reads.items():
        behind = place.ledger.writer(path, was["sha256"])
        if behind is not None and behind not in seen:
            found += _walk(place, behind, depth + 1, seen)
    return found


def _changed(place: Place, record: Record) -> Iterator[str]:
    for path, was in (record.reads | record.writes).items():
        if place.contents.of(path).sha256 != was["sha256"]:
            yield path


def _annotations(place: Place, records: list[Record]) -> list[Traced]:
    """Find the annotations whose pairs the steps learned from: those of the gathered pairs, or all of a round that were read."""
    gathered = [record for record in records if record.step == "gather"]
    fits = {path for record in records if record.step.startswith("fit") for path in record.reads}
    learned = [path for record in gathered for path in record.writes if path in fits] or [
        p for r in gathered for p in r.writes
    ]
    keys = {
        (row["meta"]["round"], row["meta"]["task"], row["chosen"], row["rejected"])
        for path in learned
        for _, row in read_jsonl(place.folder / path)
    }
    rounds = sorted(
        {key[0] for key in keys}
        | ({r.round for r in records if r.step in {"pull", "pairs", "report"}} if not gathered else set())
    )
    return [one for number in rounds for one in _of_round(place, number, keys if gathered else None)]


def _of_round(place: Place, number: int, keys: set[tuple[Any, ...]] | None) -> Iterator[Traced]:
    """Yield the annotations of a round that made the pairs of these contents; all of them where `keys` is None."""
    folder = place.folder / folder_of(number)
    own = read_jsonl(folder / "pairs.jsonl") if (folder / "pairs.jsonl").is_file() else []
    kept = [
        row["meta"]
        for _, row in own
        if keys is None or (number, row["meta"].get("key"), row["chosen"], row["rejected"]) in keys
    ]
    exact = {meta["annotation"] for meta in kept if "annotation" in meta}
    whole = {meta.get("key") for meta in kept if "annotation" not in meta}  # several annotators' votes made one pair
    for task in tasks_of(folder / "export.json"):
        key = (task.get("meta") or {}).get("key")
        for made in task["annotations"]:
            if keys is None or made["id"] in exact or (key in whole and not made["was_cancelled"]):
                yield {
                    "round": number, "project": task.get("project"), "task": task["id"], "key": key, "annotation": made["id"],
                    "annotator": _person(made), "prompt": prompt_text(task["data"].get("prompt", "")),
                }  # fmt: skip


def _person(annotation: Traced) -> str:
    by = annotation.get("completed_by")
    return f"user {by.get('email') or by.get('id')}" if isinstance(by, dict) else f"user {by}"


def _namer(folder: Path, *, pseudonyms: bool) -> Any:  # noqa: ANN401 - a function
    """Give the function that names an annotator."""
    if not pseudonyms:
        return str
    path = folder / SALT
    if not path.is_file():
        write_text(path, secrets.token_hex(32) + "\n", private=True)
    key = bytes.fromhex(read_text(path).strip())
    return lambda name: f"annotator {hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:10]}"
