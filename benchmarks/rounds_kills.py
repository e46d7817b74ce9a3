"""Rounds killed at random moments against rounds that nobody killed: the same ledger, the same policy.

    python benchmarks/rounds_kills.py     # two rounds, 20 kills, each of them SIGKILL to `next` and all it started

Both begin from one folder, each with a Label Studio of its own, copied from one. People are played by one simulated annotator,
who says the same of the same task whenever it comes. Exit code 1 where fingerprints or policies differ.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from push_kills import migrated
from rounds_gold import begin

from demo_world.annotators import Annotator
from demo_world.labelling import label_project
from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE
from lsplugin.console import say
from lsplugin.server import Server, serve
from rounds.ledger import LEDGER, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

STUCK = 3600.0
"""Seconds after which a `next` never ends."""

PERSON = Annotator("ana", skip=0.0)
"""Nobody else is there to take what is skipped."""


class Driver:
    """Rounds in one folder, on a server of their own."""

    def __init__(self, demo: Path, server: Server, seed: int) -> None:
        self.demo, self.server, self.seed = demo, server, seed
        self.said = demo.parent / "said.txt"

    def start(self) -> subprocess.Popen[str]:
        """Start `next` as the head of a process group."""
        env = os.environ | {URL_VARIABLE: self.server.connection.url, KEY_VARIABLE: self.server.connection.api_key}
        return subprocess.Popen(
            [sys.executable, "-m", "rounds", "next", str(self.demo)], env=env, stdout=subprocess.PIPE, text=True,
            stderr=self.said.open("w"), start_new_session=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str]) -> str:
        """Wait for its end; give what it printed."""
        printed, _ = process.communicate(timeout=STUCK)
        if process.returncode:
            raise SystemExit(f"next ended with {process.returncode}: {self.said.read_text()[-800:]}")
        return printed.strip()

    def doing(self) -> str:
        """Name the step that is at work."""
        lines = [line for line in self.said.read_text(errors="replace").splitlines() if line.startswith("round ")]
        return lines[-1].split(":")[0] if lines else "starting"

    def to_end(self, phase: Callable[[int], None]) -> None:
        """Do all rounds; `phase` comes before each `next` that ends by itself, with its number."""
        number = 0
        while True:
            phase(number)
            said = self.end(self.start())
            if "waits" not in said:
                return
            label_project(
                self.server.connection.url,
                self.server.connection.api_key,
                int(said.rpartition("/")[2]),
                seed=self.seed,
                crew=[PERSON],
            )
            number += 1


def policies(demo: Path) -> dict[str, str]:
    """Hash the weights of all policies."""
    return {
        file.parent.parent.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(demo.glob("round-*/policy/model.safetensors"))
    }


def killing(
    driver: Driver, times: list[float], upto: list[int], dice: random.Random
) -> tuple[Callable[[int], None], Counter[str]]:
    """Give what kills `next` before it may end, by phase, and what counts the kills by step.

    Args:
        driver: of the rounds to kill.
        times: what each `next` took undisturbed, seconds.
        upto: how many kills by the end of each.
        dice: draws the moments.
    """
    killed: Counter[str] = Counter()

    def phase(number: int) -> None:
        left = upto[number] - killed.total()
        while left > 0:
            process = driver.start()
            moment = dice.uniform(0.3, max(3.0, 2 * times[number] / (left + 1)))
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                killed[driver.doing()] += 1
                left -= 1
                say(f"  killed after {moment:.1f} s: {driver.doing()}")
            else:
                driver.end(process)
                return  # over before it could be killed; the next phase has what is left

    return phase, killed


def main(
    labels: Annotated[int, typer.Option(help="Tasks a round.")] = 40,
    rounds: Annotated[int, typer.Option(help="How many.")] = 2,
    episodes: Annotated[int, typer.Option(help="Of PPO, a round.")] = 128,
    kills: Annotated[int, typer.Option(help="How many.")] = 20,
    seed: Annotated[int, typer.Option(help="Of rounds and moments.")] = 0,
) -> None:
    """Run both and compare."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        begin(folder, rounds=rounds, labels=labels, episodes=episodes, epochs=2, train=200, held_out=30, seed=seed)
        for name in ("alone", "killed"):
            shutil.copytree(folder / "demo", folder / name / "demo")
            shutil.copytree(migrated(), folder / name / "server", ignore=shutil.ignore_patterns("serve.*", "*.log"))
        began: list[float] = []
        with serve(folder / "alone/server") as server:
            Driver(folder / "alone/demo", server, seed).to_end(lambda _: began.append(time.monotonic()))
        times = [after - before for before, after in pairwise([*began, time.monotonic()])]
        say(f"undisturbed, `next` took {', '.join(f'{one:.0f} s' for one in times)}, labelling included")
        upto = [round(kills * sum(times[: number + 1]) / sum(times)) for number in range(len(times))]
        with serve(folder / "killed/server") as server:
            driver = Driver(folder / "killed/demo", server, seed)
            phase, killed = killing(driver, times, upto, random.Random(seed))
            driver.to_end(phase)
        print(f"killed {killed.total()} times: {', '.join(f'{count} in {step}' for step, count in killed.items())}")
        if not same(folder / "alone/demo", folder / "killed/demo"):
            raise SystemExit(1)


def same(alone: Path, killed: Path) -> bool:
    """Compare two folders of rounds, and say what differs."""
    ledgers = [Ledger(demo / LEDGER) for demo in (alone, killed)]
    prints = [ledger.fingerprint() for ledger in ledgers]
    hashes = [policies(demo) for demo in (alone, killed)]
    print(f"fingerprints {prints[0][:16]} and {prints[1][:16]}; policies:")
    for name, digest in hashes[0].items():
        print(f"  {name}: {digest[:16]} and {hashes[1].get(name, 'nothing')[:16]}")
    for step, record in ledgers[0].current.items():
        other = ledgers[1].current.get(step)
        if other is None or record.hashed != other.hashed:
            print(f"  differs: {step}\n    {record.hashed}\n    {other and other.hashed}")
    equal = prints[0] == prints[1] and hashes[0] == hashes[1]
    print("the same" if equal else "DIFFERENT")
    return equal


if __name__ == "__main__":
    typer.run(main)
