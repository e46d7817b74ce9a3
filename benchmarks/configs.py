"""How long a config takes: `lsplugin render` from a cold start, and `validate()` beside Label Studio's own LabelInterface.

python benchmarks/configs.py            # medians of 21 runs each, interleaved
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import typer

from lsplugin.render import render
from lsplugin.template import Spec
from lsplugin.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = Spec(
    chat=True,
    strength=True,
    both_bad=True,
    reason=True,
    reasons=("A", "B"),
    criteria=("C", "D"),
    rewrite=True,
    flag=True,
)


def milliseconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def cold_render() -> None:
    """Render as a user does, in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "lsplugin", "render", "--answers", "2"], check=True, stdout=subprocess.DEVNULL
    )


def sdk(config: str) -> None:
    """Let the SDK parse and validate the same config."""
    from label_studio_sdk.label_interface.interface import LabelInterface

    LabelInterface(config).validate()  # type: ignore[no-untyped-call]


def main(repeats: int = 21) -> None:
    """Print medians, and the middle half in brackets."""
    plain, full = render(), render(FULL)
    first = milliseconds(lambda: validate(plain))
    sdk(plain)  # its import takes seconds
    cases: dict[str, Callable[[], object]] = {
        "lsplugin render --answers 2, cold start": cold_render,
        f"validate(), default config ({len(plain.splitlines())} lines)": lambda: validate(plain),
        f"validate(), all options ({len(full.splitlines())} lines)": lambda: validate(full),
        "LabelInterface().validate(), default config": lambda: sdk(plain),
        "LabelInterface().validate(), all options": lambda: sdk(full),
    }
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            taken[name].append(milliseconds(run))
    print(f"{'first validate() of a process':55} {first:8.2f} ms")
    for name, times in taken.items():
        low, middle, high = statistics.quantiles(times, n=4)
        print(f"{name:55} {middle:8.2f} ms  [{low:.2f} to {high:.2f}]")


if __name__ == "__main__":
    typer.run(main)
