"""How fast an export becomes pairs, and in how much memory: beside bare parsing of the same file, and the SDK's converter.

python benchmarks/pairs.py                            # 10,000, 100,000 and 1,000,000 annotations; 8 GB of disk
python benchmarks/pairs.py --sizes 10000,100000

Every measurement has a process of its own, whose imports are not timed; what is compared is interleaved.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VOCABULARY = (
    "the of and to a in is you that it for on are with as this be your can or have not from if but they will what more "
    "when about which their there would also time one some like how people other into make most water first because "
    "before after money should could think might really every through between another question answer example recipe "
    "garden doctor weather history music computer program language password neighbour insurance temperature important "
    "different usually carefully however therefore something don't it's"
)
WORDS = VOCABULARY.split()
ENDS = (". ", ". ", ". ", "? ", ": ", "!\n\n", ".\n- ", '," she said. ')
TYPOGRAPHY = str.maketrans({"'": "\N{RIGHT SINGLE QUOTATION MARK}", '"': "\N{RIGHT DOUBLE QUOTATION MARK}"})
VERDICTS = ("better",) * 8 + ("tie",) * 2
"""What is answered to the default config's question, by its share."""


def text(draw: random.Random, low: int, high: int) -> str:
    """Write `low` to `high` characters that look like prose: sentences, paragraphs, quotes, in a fifth typographic ones."""
    length, made = draw.randint(low, high), ""
    while len(made) < length:
        words = draw.choices(WORDS, k=draw.randint(4, 16))
        made += " ".join(words).capitalize() + draw.choice(ENDS)
    return (made.translate(TYPOGRAPHY) if draw.random() < 0.2 else made)[:length].strip()


def result(draw: random.Random, name: str, target: str, tag: str, value: dict[str, Any]) -> dict[str, Any]:
    """Give one control's result as the editor stores it."""
    key = f"{draw.getrandbits(40):010x}"
    return {"id": key, "from_name": name, "to_name": target, "type": tag, "origin": "manual", "value": value}


def annotation(draw: random.Random, number: int, task: int) -> dict[str, Any]:
    """Give one annotation with all fields of Label Studio 1.23; one in fifty is skipped."""
    skipped, annotator = draw.random() < 0.02, draw.randint(2, 40)
    chosen = {"selected": draw.choice(("left", "right"))}
    results = [
        result(draw, "comparison", "comparison", "pairwise", chosen),
        result(draw, "verdict", "prompt", "choices", {"choices": [draw.choice(VERDICTS)]}),
    ]
    return {
        "id": number,
        "completed_by": annotator,
        "result": [] if skipped else results,
        "was_cancelled": skipped,
        "ground_truth": False,
        "created_at": "2026-11-21T07:42:24.628337Z",
        "updated_at": "2026-11-21T07:42:24.628361Z",
        "draft_created_at": "2026-11-21T07:42:11.100000Z",
        "lead_time": round(draw.uniform(3, 90), 3),
        "prediction": {},
        "result_count": 0 if skipped else 2,
        "unique_id": str(uuid.UUID(int=draw.getrandbits(128))),
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": task,
        "project": 1,
        "updated_by": annotator,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    }


def tasks(annotations: int) -> Iterator[dict[str, Any]]:
    """Yield tasks with two annotations each and all fields of Label Studio 1.23, always the same ones."""
    draw = random.Random(annotations)
    for number in range(1, annotations // 2 + 1):
        made = [annotation(draw, 2 * number - 1, number), annotation(draw, 2 * number, number)]
        answers = {f"answer{place}": text(draw, 300, 600) for place in (1, 2)}
        yield {
            "id": number,
            "annotations": made,
            "drafts": [],
            "predictions": [],
            "data": {"prompt": text(draw, 60, 300), **answers},
            "meta": {"key": f"{draw.getrandbits(64):016x}", "models": {"answer1": "base", "answer2": "tuned"}},
            "created_at": "2026-11-20T09:00:24.054473Z",
            "updated_at": "2026-11-21T07:42:25.984026Z",
            "allow_skip": True,
            "inner_id": number,
            "total_annotations": sum(not found["was_cancelled"] for found in made),
            "cancelled_annotations": sum(found["was_cancelled"] for found in made),
            "total_predictions": 0,
            "comment_count": 0,
            "unresolved_comment_count": 0,
            "last_comment_updated_at": None,
            "project": 1,
            "updated_by": made[-1]["updated_by"],
            "comment_authors": [],
        }


def write_export(path: Path, annotations: int) -> None:
    """Write an export as the server sends it: one list, compact, every character as itself."""
    with path.open("w", encoding="utf-8") as stream:
        for number, task in enumerate(tasks(annotations)):
            stream.write("," if number else "[")
            stream.write(json.dumps(task, ensure_ascii=False, separators=(",", ":")))
        stream.write("]")


def parse(export: Path, _: Path) -> Callable[[], object]:
    """Parse and forget: what reads an export with ijson cannot be faster."""
    import ijson

    def run() -> int:
        with export.open("rb") as stream:
            return sum(1 for _ in ijson.items(stream, "item", use_float=True))

    return run


def plain(export: Path, folder: Path) -> Callable[[], object]:
    """Make a pair of each annotation."""
    from lsplugin.export import read_export
    from lsplugin.judged import Accounting
    from lsplugin.pairs import pairs_from_export
    from lsplugin.preferences import write_pairs

    return lambda: write_pairs(folder / "pairs.jsonl", pairs_from_export(read_export(export), Accounting()))


def majority(export: Path, folder: Path) -> Callable[[], object]:
    """Make a pair of each two answers, with the share of votes."""
    import numpy as np  # noqa: F401 - is not timed

    from lsplugin.export import read_export
    from lsplugin.judged import Accounting
    from lsplugin.pairs import aggregated_pairs
    from lsplugin.preferences import write_pairs

    return lambda: write_pairs(
        folder / "pairs.jsonl", aggregated_pairs(lambda: read_export(export), Accounting(), "majority")
    )


def converter(export: Path, folder: Path) -> Callable[[], object]:
    """Let the SDK write JSON_MIN: a row an annotation, no pairs yet."""
    from label_studio_sdk.converter.converter import Converter

    made = Converter(config=str(folder / "config.xml"), project_dir=None)  # type: ignore[no-untyped-call]
    return lambda: made.convert(str(export), str(folder), "JSON_MIN", is_dir=False)  # type: ignore[no-untyped-call]


CASES = {
    "ijson.items, nothing done with it": parse,
    "lsplugin pairs": plain,
    "lsplugin pairs --aggregate majority": majority,
    "label-studio-sdk, JSON_MIN": converter,
}


def measure(case: str, export: Path, folder: Path) -> tuple[float, float]:
    """Run one case: (seconds, peak memory of this process in MiB)."""
    run = CASES[case](export, folder)
    start = time.perf_counter()
    run()
    taken = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage would count the parent's memory, too
    return taken, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(sizes: str = "10000,100000,1000000", repeats: int = 3) -> None:
    """Print a table; a million annotations and more are measured once."""
    import ijson

    from lsplugin.render import render

    print(f"ijson {ijson.__version__}, backend {ijson.backend}\n")
    print("| annotations | what | annotations/s | of the limit | peak MiB |\n|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as temporary,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        folder = Path(temporary)
        export = folder / "export.json"
        (folder / "config.xml").write_text(render(), encoding="utf-8")
        for size in map(int, sizes.split(",")):
            write_export(export, size)
            found: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
            for _ in range(1 if size >= 1_000_000 else repeats):
                for case, taken in found.items():
                    taken.append(pool.apply(measure, (case, export, folder)))
            limit = found[next(iter(CASES))]
            for case, taken in found.items():
                speed = size / statistics.median(seconds for seconds, _ in taken)
                ratios = [least / seconds for (least, _), (seconds, _) in zip(limit, taken, strict=True)]
                peak = max(memory for _, memory in taken)
                print(f"| {size:,} | {case} | {speed:,.0f} | {_middle(ratios)} | {peak:.0f} |", flush=True)


def _middle(ratios: list[float]) -> str:
    """Show the median over the rounds, and their range."""
    shown = f"{statistics.median(ratios):.2f}"
    return f"{shown} ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else shown


if __name__ == "__main__":
    import typer

    typer.run(main)
