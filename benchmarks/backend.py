"""How long the ML backend takes, over real HTTP: a batch of 4 tasks at a time, and 50 requests at once.

    python benchmarks/backend.py [--model FOLDER] [--times 200]

Without --model, a reward model is made of the demo world's base model with an untrained head, which is as fast as a trained one.
The tasks are the demo world's pairs, each asked once.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from lsplugin.preferences import read_pairs
from lsplugin.render import render
from lsplugin.template import Spec
from rm_lightning.backbone import load_scorer, load_tokenizer
from rm_lightning.defaults import default_backbone, default_pairs
from rm_lightning.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = 4


def main(
    model: Annotated[Path | None, typer.Option("--model", help="Folder of a reward model.")] = None,
    times: Annotated[int, typer.Option("--times", min=20, help="Requests, one after the other.")] = 200,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Requests at the same moment.")] = 50,
) -> None:
    """Measure, and print a table."""
    quiet()
    bodies = requests(times + at_once)
    with tempfile.TemporaryDirectory() as scratch, served(model or untrained(Path(scratch) / "rm")) as url:
        with httpx.Client(base_url=url, timeout=100) as http:
            print(http.get("/health").json()["model_version"])
            ask(http, bodies[0])
            alone = sorted(ask(http, body) for body in bodies[:times])
        with (
            ThreadPoolExecutor(at_once) as pool,
            httpx.Client(base_url=url, timeout=100, limits=httpx.Limits()) as http,
        ):
            health = pool.submit(lambda: [timed(http, "GET", "/health", None) for _ in range(20)])
            began = time.perf_counter()
            together = sorted(pool.map(lambda body: ask(http, body), bodies[-at_once:]))
            whole = time.perf_counter() - began
            meanwhile = sorted(health.result())
    tell(f"{times} requests of {BATCH} tasks, one after the other", alone)
    tell(f"{at_once} requests of {BATCH} tasks at once, all done after {whole:.2f} s", together)
    tell("GET /health meanwhile", meanwhile)


def requests(count: int) -> list[dict[str, Any]]:
    """Make bodies of /predict, as Label Studio sends them."""
    pairs = [pair for pair in read_pairs(default_pairs(0)) if pair.chosen.strip() and pair.rejected.strip()]
    tasks = [
        {"id": number, "data": {"prompt": pair.prompt, "answer1": pair.chosen, "answer2": pair.rejected}, "meta": {}}
        for number, pair in enumerate(pairs)
    ]
    parts = [[tasks[(BATCH * n + k) % len(tasks)] for k in range(BATCH)] for n in range(count)]
    return [{"tasks": part, "project": "1.1", "label_config": render(Spec()), "params": {}} for part in parts]


def untrained(folder: Path) -> Path:
    """Make a reward model of the demo world's base model."""
    tokenizer = load_tokenizer(default_backbone())
    load_scorer(default_backbone(), tokenizer, new=True).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Run the backend for the length of the block."""
    command = [sys.executable, "-m", "rm_lightning", "serve", "--model", str(model), "--port", "0", "--queue", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(line.split()[3] for line in process.stderr if " serves on " in line)
    finally:
        process.terminate()
        process.wait(30)


def timed(http: httpx.Client, method: str, path: str, body: object) -> float:
    """Ask, and give the seconds that it took."""
    began = time.perf_counter()
    answer = http.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - began


def ask(http: httpx.Client, body: dict[str, Any]) -> float:
    """Ask for predictions."""
    return timed(http, "POST", "/predict", body)


def tell(what: str, seconds: list[float]) -> None:
    """Print a line of milliseconds."""
    part = statistics.quantiles(seconds, n=20)
    figures = (("median", statistics.median(seconds)), ("95%", part[18]), ("slowest", seconds[-1]))
    print(f"{what}: " + ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in figures))


if __name__ == "__main__":
    typer.run(main)
