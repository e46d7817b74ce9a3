"""Kill a push, or its server, at any moment: is a task lost or twice? And how long do push and pull take undisturbed.

    python benchmarks/push_kills.py     # 10,000 tasks, a quarter of an hour; exit code 1 if anything is lost or twice

Against a real Label Studio of its own, on a copied folder. Tasks are counted through exports, by content key and by content; what
came in and went again is counted by triggers in the database.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx
import platformdirs
import typer

from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE
from lsplugin.console import say
from lsplugin.dataset import KEY, keyed, read_dataset
from lsplugin.files import read_json, write_jsonl
from lsplugin.project import PAGE
from lsplugin.server import LOG_FILE, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = {
    "import": re.compile(rb'"POST /api/projects/\d+/import'),
    "listing": re.compile(rb'"GET /api/tasks'),
    "removal": re.compile(rb'"(DELETE /api/tasks|POST /api/dm/actions)'),
    "project": re.compile(rb'"\w+ /api/projects'),
}
"""What a push asks of a server, as its log has it once it has answered; the first that fits."""

DATABASE = "label_studio.sqlite3"
COUNTING = """
CREATE TABLE push_kills (came INTEGER);
INSERT INTO push_kills VALUES (0);
CREATE TRIGGER push_kills_came AFTER INSERT ON task BEGIN UPDATE push_kills SET came = came + 1; END;
"""
"""Lets the database count the tasks that it is given: Label Studio gives the numbers of deleted tasks to new ones."""

STUCK = 600.0
"""A push that takes so many seconds never ends."""

COPIES = 300
"""Tasks sent a second time by the script itself, as a server does that finishes late, so that there is something to remove."""


class Moment(NamedTuple):
    """When to kill.

    Attributes:
        kind: what the server is to have answered by then; "start" for nothing.
        answers: how many of those.
        delay: how many seconds after the last of them.
    """

    kind: str
    answers: int
    delay: float


class Pace(NamedTuple):
    """What an undisturbed push takes, in seconds.

    Attributes:
        whole: in all.
        first: to its first request.
        batch: between imports.
        page: between pages of a listing.
        removal: to remove the copies.
    """

    whole: float
    first: float
    batch: float
    page: float
    removal: float = 0.0


class Found(NamedTuple):
    """What a project holds."""

    tasks: int
    lost: int
    twice: int
    strange: int

    @property
    def good(self) -> bool:
        """Whether it is everything, each once."""
        return not (self.lost or self.twice or self.strange)


@dataclass
class Disturbed:
    """What happened while a dataset was pushed under kills.

    Attributes:
        seconds: until it was all there.
        came_in: tasks that the server ever took.
        planted: tasks among them that this script sent a second time.
        killed: how often something was killed, by phase.
        over: pushes that ended before they could be killed.
        again: pushes that gave up and were run again.
    """

    seconds: float = 0.0
    came_in: int = 0
    planted: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    over: int = 0
    again: int = 0


class Log:
    """The requests that the server has answered since this was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = path.stat().st_size
        self.started = time.monotonic()
        self.seen: list[tuple[float, str]] = []

    def read(self) -> None:
        """Read on; each request stands in the log twice."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            lines = stream.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        self.offset += len(lines)
        now = time.monotonic() - self.started
        for line in lines.splitlines():
            kind = next((kind for kind, pattern in KINDS.items() if pattern.search(line)), None)
            if kind:
                self.seen.append((now, kind))

    def times(self, kind: str) -> list[float]:
        """When requests of a kind were answered, in seconds since the start."""
        return [when for when, what in self.seen if what == kind][::2]

    @property
    def last(self) -> str:
        """What was answered last."""
        return self.seen[-1][1] if self.seen else "start"


class Bench:
    """A Label Studio, a dataset, and pushes of the one into the other."""

    def __init__(self, folder: Path, count: int) -> None:
        self.data = folder / "data"
        shutil.copytree(migrated(), self.data, ignore=shutil.ignore_patterns("serve.*", "*.log"))
        with closing(sqlite3.connect(self.data / DATABASE)) as database:
            database.executescript(COUNTING)
        self.dataset = folder / "tasks.jsonl"
        write_jsonl(self.dataset, rows(count))
        self.keys: Counter[object] = Counter(task.key for task in keyed(read_dataset(self.dataset)))
        self.contents: Counter[object] = Counter(content(task.data) for task in read_dataset(self.dataset))
        self.complaints: Counter[str] = Counter()
        self.exported = folder / "exported.json"
        self.good = True
        self.last = Found(0, 0, 0, 0)
        self._stack = ExitStack()
        self.server = self._stack.enter_context(serve(self.data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill_server(self) -> None:
        """Kill its whole process group."""
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        self._stack.close()

    def start_server(self) -> None:
        """Start it again, at the same address."""
        port = int(self.server.connection.url.rpartition(":")[2])
        self.server = self._stack.enter_context(serve(self.data, port=port))

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a command in a process of its own; what it says is kept in a file."""
        connection = self.server.connection
        env = os.environ | {URL_VARIABLE: connection.url, KEY_VARIABLE: connection.api_key}
        with (self.data.parent / "said.txt").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "lsplugin", *args], env=env, stdout=subprocess.DEVNULL, stderr=said
            )

    def ended(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for a command's end; count what it complains of."""
        try:
            code = process.wait(timeout=STUCK)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SystemExit(f"a command did not end within {STUCK:.0f} s: {process.args!r}") from None
        text = (self.data.parent / "said.txt").read_text(errors="replace")
        if code > 0:
            lines = [line for line in text.splitlines() if line.startswith(("error: ", "Traceback"))]
            self.complaints[" / ".join(lines) or text[-500:]] += 1
        return code

    def seconds(self, *args: str) -> float:
        """Run a command that must end well."""
        started = time.monotonic()
        if self.ended(self.start(*args)) != 0:
            raise SystemExit(f"{args}: {dict(self.complaints)}")
        return time.monotonic() - started

    def until(self, process: subprocess.Popen[bytes], log: Log, moment: Moment) -> bool:
        """Wait for a moment; False where the process ends before it."""
        due: float | None = moment.delay if moment.kind == "start" else None
        deadline = time.monotonic() + STUCK
        while process.poll() is None and time.monotonic() < deadline:
            now = time.monotonic() - log.started
            log.read()
            times = log.times(moment.kind)
            if due is None and len(times) >= moment.answers:
                due = (times[moment.answers - 1] if moment.answers else now) + moment.delay
            if due is not None and now >= due:
                return True
            time.sleep(0.01)
        return False

    def undisturbed(self, title: str) -> Pace:
        """Time a push that nothing happens to."""
        log = Log(self.data / LOG_FILE)
        process = self.start("create", title, "--tasks", str(self.dataset))
        self.until(process, log, Moment("never", 1, 0))
        whole = time.monotonic() - log.started
        if self.ended(process) != 0:
            raise SystemExit(str(dict(self.complaints)))
        log.read()
        return Pace(whole, log.seen[0][0], gap(log.times("import")), gap(log.times("listing")))

    def removal(self, title: str, pace: Pace) -> tuple[Pace, float]:
        """Time a push that has nothing but copies to remove."""
        log = Log(self.data / LOG_FILE)
        process = self.start("push", title, str(self.dataset))
        self.until(process, log, Moment("never", 1, 0))
        whole = time.monotonic() - log.started
        if self.ended(process) != 0:
            raise SystemExit(str(dict(self.complaints)))
        return pace._replace(removal=log.times("removal")[0] - log.times("listing")[-1]), whole

    def to_end(self, process: subprocess.Popen[bytes], args: list[str], result: Disturbed) -> None:
        """Wait for a push, and run it again while it gives up."""
        while self.ended(process) != 0:
            result.again += 1
            if result.again > 9:
                raise SystemExit(str(dict(self.complaints)))
            process = self.start(*args)

    def named(self, title: str) -> list[dict[str, Any]]:
        """Projects of a title."""
        found = self.ask("/api/projects?page_size=100")["results"]
        return [project for project in found if project["title"] == title]

    def held(self, title: str) -> int:
        """How many tasks the project of a title has now."""
        return sum(project["task_number"] or 0 for project in self.named(title))

    def ask(self, path: str, tasks: list[dict[str, Any]] | None = None) -> Any:  # noqa: ANN401 - JSON is whatever it is
        """Ask the server something, or send it tasks."""
        url, key = self.server.connection.url, self.server.connection.api_key
        headers = {"Authorization": f"Token {key}"}
        answer = httpx.request("POST" if tasks else "GET", url + path, headers=headers, timeout=STUCK, json=tasks)
        return answer.raise_for_status().json()

    def plant(self, title: str) -> int:
        """Import the first tasks again, as a server does that finishes late what a killed push had sent."""
        copies = [{"data": task["data"], "meta": task["meta"]} for task in read_json(self.exported)[:COPIES]]
        self.ask(f"/api/projects/{self.named(title)[0]['id']}/import", copies)
        return len(copies)

    def came_in(self) -> int:
        """How many tasks the database was ever given."""
        with closing(sqlite3.connect(f"file:{self.data / DATABASE}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT came FROM push_kills").fetchone()[0])

    def pull(self, title: str) -> tuple[Path, float]:
        """Export the one project of a title, and say how long it took."""
        path = self.data.parent / f"{title}.json"
        return path, self.seconds("pull", title, "-o", str(path))

    def counts(self, title: str) -> str:
        """Count what a project holds, as the last cells of a table's row."""
        self.last = self.found(self.pull(title)[0])
        self.good &= self.last.good
        return f"{self.last.tasks} | {self.last.lost} | {self.last.twice} |"

    def found(self, exported: Path) -> Found:
        """Count an export's tasks, by content key and by content."""
        tasks = read_json(exported)
        counts: list[tuple[Counter[object], Counter[object]]] = [
            (Counter(task["meta"][KEY] for task in tasks), self.keys),
            (Counter(content(task["data"]) for task in tasks), self.contents),
        ]
        lost = max(sum((due - there).values()) for there, due in counts)
        twice = max(sum(times - 1 for times in there.values()) for there, _ in counts)
        strange = max(len(there.keys() - due.keys()) for there, due in counts)
        return Found(len(tasks), lost, twice, strange)


def migrated() -> Path:
    """Folder of a Label Studio that was started once, as its first start takes minutes."""
    version = importlib.metadata.version("label-studio")
    folder = platformdirs.user_cache_path("label-studio-rlhf") / "benchmarks" / version
    if not (folder / "label_studio.sqlite3").is_file():
        with serve(folder):
            pass
    return folder


def rows(count: int) -> Iterator[dict[str, str]]:
    """Make rows of 1 KB that differ from each other."""
    for number in range(count):
        words = hashlib.shake_256(str(number).encode()).hexdigest(320)
        yield {"prompt": f"Row {number}: {words[:180]}", "answer1": words[180:410], "answer2": words[410:]}


def content(data: dict[str, Any]) -> tuple[str, ...]:
    """Give what a row says, on whichever sides its answers are."""
    return (data["prompt"], *sorted((data["answer1"], data["answer2"])))


def gap(times: list[float]) -> float:
    """Mean seconds between requests."""
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.5


def moment(kind: str, dice: random.Random, pace: Pace, held: int) -> Moment:
    """Draw a moment in a phase of a push into a project that holds so many tasks."""
    pages = -(-held // PAGE)
    if kind == "start":
        return Moment("start", 0, dice.uniform(0.05, pace.first))
    if kind == "planning":  # `push` makes its tasks after it has found the project
        return Moment("project", 1, dice.uniform(0, pace.first / 2))
    if kind == "listing":
        return Moment("listing", dice.randint(1, max(1, pages - 1)), dice.uniform(0, pace.page))
    if kind == "removal":  # right after the last page
        return Moment("listing", pages, dice.uniform(0, pace.removal))
    return Moment("import", dice.randint(1, 2), dice.uniform(0, pace.batch))


def kill_pushes(bench: Bench, title: str, kills: int, dice: random.Random, pace: Pace) -> Disturbed:
    """Kill pushes into one project, each time at another moment, and run them again.

    After half of the kills during an import the server answers late: it is stopped, and goes on when the next push is asking.
    """
    due = (["start", "planning", "import", "listing", "import"] * kills)[: kills - kills // 5]
    dice.shuffle(due)
    due += ["removal"] * (kills - len(due))
    create, push = ["create", title, "--tasks", str(bench.dataset)], ["push", title, str(bench.dataset)]
    result, before, started = Disturbed(), bench.came_in(), time.monotonic()
    late: list[Timer] = []
    while due:
        kind = due.pop(0)
        if kind == "removal":
            join(late)
            bench.seconds(*create)
            result.planted += bench.plant(title)
        held = 0 if late else bench.held(title)
        log = Log(bench.data / LOG_FILE)
        process = bench.start(*(push if kind == "planning" and result.killed["import"] else create))
        if bench.until(process, log, moment(kind, dice, pace, held)):
            if kind == "import" and result.killed[kind] % 2 == 0:
                os.killpg(bench.server.process.pid, signal.SIGSTOP)
                late = [Timer(pace.first + 1, os.killpg, (bench.server.process.pid, signal.SIGCONT))]
                late[0].start()
            else:
                join(late)
            process.kill()
            process.wait()
            result.killed[kind] += 1
            log.read()
            say(f"  push killed after {time.monotonic() - log.started:.1f} s: {kind} (last answer: {log.last})")
        else:
            result.over += bench.ended(process) == 0
            due.insert(0, kind if kind == "removal" else "listing")
            say(f"  {kind}: over before it could be killed")
    join(late)
    bench.seconds(*create)
    result.seconds = time.monotonic() - started
    result.came_in = bench.came_in() - before
    return result


def kill_servers(bench: Bench, title: str, kills: int, dice: random.Random, pace: Pace) -> Disturbed:
    """Kill the server under pushes into one project, and start it again; once the push with it."""
    due = ["import", "both", *(["import", "listing"] * kills)[: kills - 3], "removal"]
    create = ["create", title, "--tasks", str(bench.dataset)]
    result, before, started = Disturbed(), bench.came_in(), time.monotonic()
    process = bench.start(*create)
    while due:
        kind = due.pop(0)
        if kind == "removal":
            bench.to_end(process, create, result)
            result.planted += bench.plant(title)
        if process.poll() is not None:
            process = bench.start(*create)
        log = Log(bench.data / LOG_FILE)
        if bench.until(process, log, moment(kind, dice, pace, bench.held(title))):
            if kind == "both":
                process.kill()
            bench.kill_server()
            result.killed[kind] += 1
            say(f"  server killed {time.monotonic() - log.started:.1f} s later: {kind}")
            bench.start_server()
        else:
            result.over += bench.ended(process) == 0
            due.insert(0, kind if kind == "removal" else "listing")
            say(f"  {kind}: over before it could be killed")
    bench.to_end(process, create, result)
    result.seconds = time.monotonic() - started
    result.came_in = bench.came_in() - before
    return result


def push_twice(bench: Bench, title: str) -> Disturbed:
    """Run two pushes of one dataset into one empty project at the same time, as somebody does who does not wait."""
    result, before, started = Disturbed(), bench.came_in(), time.monotonic()
    bench.seconds("create", title)
    args = ["push", title, str(bench.dataset)]
    both = [bench.start(*args), bench.start(*args)]
    for process in both:
        bench.to_end(process, args, result)
    result.seconds = time.monotonic() - started
    result.came_in = bench.came_in() - before
    return result


def join(late: list[Timer]) -> None:
    """Wait until a stopped server goes on."""
    while late:
        late.pop().join()


def main(count: int = 10_000, kills: int = 20, server_kills: int = 7, seed: int = 0) -> None:
    """Run it all and print what was found."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder), count) as bench:
        pace = bench.undisturbed("Undisturbed")
        bench.exported, pull = bench.pull("Undisturbed")
        nothing = bench.seconds("push", "Undisturbed", str(bench.dataset))
        bench.plant("Undisturbed")
        pace, removing = bench.removal("Undisturbed", pace)
        print(
            "| what | seconds | kills | came in | of them sent again by the script | taken out again | tasks | lost | twice |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        print(
            f"| `create --tasks`, undisturbed | {pace.whole:.0f} | 0 | {count} | 0 | 0 | {bench.counts('Undisturbed')}"
        )
        print(f"| `pull` | {pull:.0f} | | | | | | | |")
        print(f"| `push`, nothing new | {nothing:.0f} | | | | | | | |")
        print(f"| `push`, only {COPIES} copies to remove | {removing:.0f} | | | | | | | |", flush=True)
        runs: dict[str, Callable[[str], Disturbed]] = {
            "the push is killed": lambda title: kill_pushes(bench, title, kills, dice, pace),
            "the server is killed": lambda title: kill_servers(bench, title, server_kills, dice, pace),
            "two pushes at once": lambda title: push_twice(bench, title),
        }
        for what, run in runs.items():
            done, counted = run(what), bench.counts(what)
            phases = ", ".join(f"{kind} {times}" for kind, times in done.killed.items())
            cells = (f"{done.seconds:.0f}", f"{done.killed.total()} {phases}".strip(), done.came_in, done.planted)
            taken_out = done.came_in - bench.last.tasks
            print(f"| {what} | {' | '.join(map(str, cells))} | {taken_out} | {counted}", flush=True)
            say(f"  {done.again} pushes gave up and were run again, {done.over} ended before their kill")
        for complaint, times in bench.complaints.items():
            print(f"said {times} times: {complaint}")
        good = bench.good and not any("Traceback" in said for said in bench.complaints)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
