"""Steps are done once, again when something changed, and by one `next` at a time; what people have is not made anew by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lsplugin.connection import KEY_VARIABLE, URL_VARIABLE
from lsplugin.errors import LspluginError
from rounds.ledger import Ledger
from rounds.run import Waiting, go_on
from rounds.settings import Started, read_settings
from rounds.state import Place, locked
from rounds.status import waiting_line
from rounds.steps import Step, steps
from tests.helpers import complaint, run_cli, write_json, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parent.parent

JOIN = """
import sys, time, pathlib
*sources, output = sys.argv[1:]
pathlib.Path("runs.log").open("a").write(output + "\\n")
if pathlib.Path("slow").exists():
    time.sleep(60)
pathlib.Path(output).write_text("".join(pathlib.Path(name).read_text() for name in sources).upper())
"""
"""A command as small as can be: it joins files, in capitals, and keeps a log of its runs."""


def step(name: str, reads: list[str], output: str) -> Step:
    """A step of round 1 that joins files."""
    return Step(1, name, f"makes {output}", ("join", *reads, output), tuple(reads), (output,))


def chain(_: Started) -> list[Step]:
    """a and b -> first -> the tasks that people get -> last."""
    return [
        step("first", ["a", "b"], "round-1/first"),
        step("create", ["round-1/first"], "round-1/project.txt"),
        step("last", ["round-1/project.txt", "b"], "round-1/last"),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rounds of two files and a command."""
    (tmp_path / "join.py").write_text(JOIN)
    (tmp_path / "a").write_text("one ")
    (tmp_path / "b").write_text("two ")
    (tmp_path / "rounds.yaml").write_text(Started(policy="x", number="0000", title="t").to_yaml())
    return tmp_path


def done(folder: Path, *, again: bool = False, table: Callable[[Started], list[Step]] = chain) -> list[str]:
    """Call `next`; give what was run by it."""
    log = folder / "runs.log"
    log.unlink(missing_ok=True)
    assert go_on(lambda: Place(folder, table), folder, again=again, tell=lambda _: None) is None
    return log.read_text().split() if log.exists() else []


def states(folder: Path) -> dict[str, str]:
    """The state of every step."""
    return {found.step.name: found.state for found in Place(folder, chain).all()}


EVERYTHING = ["round-1/first", "round-1/project.txt", "round-1/last"]


def test_every_step_once(folder: Path) -> None:
    assert states(folder) == dict.fromkeys(("first", "create", "last"), "to do")
    assert done(folder) == EVERYTHING
    assert (folder / "round-1/last").read_text() == "ONE TWO TWO "
    assert done(folder) == []
    assert states(folder) == dict.fromkeys(("first", "create", "last"), "done")


def test_what_changed_after_people_were_asked_is_done_again(folder: Path) -> None:
    done(folder)
    (folder / "round-1/last").write_text("spoilt")
    assert states(folder)["last"] == "stale"
    assert done(folder) == ["round-1/last"]
    (folder / "round-1/last").unlink()
    assert "missing" in Place(folder, chain).find(chain(Place(folder).settings)[2]).why
    assert done(folder) == ["round-1/last"]


def test_what_people_have_stays_unless_asked_for(folder: Path) -> None:
    done(folder)
    (folder / "b").write_text("three ")
    assert states(folder) == {"first": "kept", "create": "done", "last": "stale"}
    assert done(folder) == ["round-1/last"]
    assert (folder / "round-1/last").read_text() == "ONE TWO THREE "
    assert done(folder, again=True) == EVERYTHING
    assert (folder / "round-1/project.txt").read_text() == "ONE THREE "


def test_what_is_lost_is_made_again_only_from_the_same(folder: Path) -> None:
    done(folder)
    (folder / "round-1/first").unlink()
    assert done(folder) == ["round-1/first"]  # and it is the same, so all that follows is as it was
    (folder / "round-1/first").unlink()
    (folder / "a").write_text("other ")
    with pytest.raises(
        LspluginError, match=r"first: a changed; round-1/first is missing; people have tasks that depend on it"
    ):
        done(folder)
    assert done(folder, again=True) == EVERYTHING


def test_other_settings_count_for_what_people_do_not_have(folder: Path) -> None:
    done(folder)

    def other(settings: Started) -> list[Step]:
        return [
            *(
                Step(one.round, one.name, one.says, (*one.command[:-1], "a", one.command[-1]), one.reads, one.writes)
                for one in chain(settings)
            )
        ]

    assert done(folder, table=other) == ["round-1/last"]
    assert (folder / "round-1/last").read_text() == "ONE TWO TWO ONE "


def test_a_command_that_fails_is_named_and_goes_on(folder: Path) -> None:
    (folder / "b").unlink()
    with pytest.raises(
        LspluginError,
        match=r"round 1, first: its command ended with exit code 1,.*\(python -m join a b round-1/first\)",
    ):
        done(folder)
    assert not (folder / "ledger.jsonl").exists()
    (folder / "b").write_text("two ")
    assert done(folder) == EVERYTHING


def test_the_ledger_says_what_was_done(folder: Path) -> None:
    done(folder)
    record = Ledger(folder / "ledger.jsonl").records[2]
    assert record.command == ["python", "-m", "join", "round-1/project.txt", "b", "round-1/last"]
    assert record.reads["b"] == {
        "sha256": "17454a93840569f32711142f7cfafc3d063c9a33c846852ff736f0ff9c84a420"
    }  # printf "two " | sha256sum
    assert record.reads["round-1/project.txt"]["content"] == ""
    assert record.versions["python"].startswith("3.")
    assert record.seconds > 0


def test_the_same_work_has_the_same_fingerprint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    done(folder)
    before = Ledger(folder / "ledger.jsonl").fingerprint()
    (folder / "round-1/last").unlink()
    done(folder)
    assert len(Ledger(folder / "ledger.jsonl").records) == 4
    assert Ledger(folder / "ledger.jsonl").fingerprint() == before
    (folder / "a").write_text("other ")
    done(folder, again=True)
    ledger = Ledger(folder / "ledger.jsonl")
    assert ledger.fingerprint() != before
    old, new = (ledger.records[number].writes["round-1/first"]["sha256"] for number in (0, 4))
    assert ledger.writer("round-1/first") is ledger.records[4]
    assert [ledger.writer("round-1/first", digest) for digest in (old, new)] == [ledger.records[0], ledger.records[4]]
    assert ledger.writer("round-1/else") is None


def test_a_torn_ledger_is_named(folder: Path) -> None:
    done(folder)
    ledger = folder / "ledger.jsonl"
    ledger.write_text(ledger.read_text() + '{"round": 1}\n')
    with pytest.raises(LspluginError, match=r"ledger.jsonl, line 4: expected the record of a step"):
        Place(folder, chain)


def test_it_waits_until_every_task_has_its_people(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setenv(KEY_VARIABLE, "k" * 40)
    (folder / "copy_file.py").write_text("import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])")
    (folder / "round-1").mkdir()
    (folder / "round-1/project.txt").write_text("12\n")
    (folder / "rounds.yaml").write_text(Started(policy="x", number="0000", title="t", annotators_per_task=2).to_yaml())
    table = [Step(1, "pull", "", ("copy_file", "server.json", "round-1/export.json"), (), ("round-1/export.json",))]

    def called(people: list[list[tuple[int, bool]]], *, enough: bool = False) -> Waiting | None:
        tasks = [
            {"annotations": [{"completed_by": by, "was_cancelled": skipped} for by, skipped in found]}
            for found in people
        ]
        write_json(folder / "server.json", tasks)
        return go_on(lambda: Place(folder, lambda _: table), folder, enough=enough, tell=lambda _: None)

    two = [(1, False), (2, False)]
    # one person's two labels are not two people's, and a skip is no label
    waiting = called([two, [(1, False), (1, False)], [(1, False), (2, True)], []])
    assert waiting == Waiting(1, 1, 4, "http://127.0.0.1:9/projects/12", skipped=1)
    assert waiting_line(waiting) == (
        "round 1 waits: 1 of 4 tasks labelled (1 of the others were skipped; --enough goes on without them), "
        "at http://127.0.0.1:9/projects/12"
    )
    with pytest.raises(LspluginError, match="takes the labels that are there, and there are none"):
        called([[], []], enough=True)
    assert called([two, two, []]) is not None
    assert called([two, []], enough=True) is None
    assert called([], enough=False) is None  # it is in the ledger now


RUN = """
import sys
from pathlib import Path
from rounds.run import Waiting, go_on
from rounds.state import Place
from tests.test_rounds_ledger import chain
folder = Path(sys.argv[1])
go_on(lambda: Place(folder, chain), folder, tell=print)
"""


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_command_that_outlives_its_next_keeps_others_out(folder: Path) -> None:
    (folder / "slow").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], start_new_session=True, stdout=subprocess.DEVNULL
    )
    wait_for((folder / "runs.log").exists)
    with pytest.raises(LspluginError, match="another `next` is at work there"), locked(folder):
        pass
    process.kill()
    process.wait()
    with pytest.raises(LspluginError, match="another `next` is at work there"), locked(folder):
        pass  # its command still runs
    os.killpg(process.pid, signal.SIGKILL)

    def free() -> bool:
        try:
            with locked(folder):
                return True
        except LspluginError:
            return False

    wait_for(free)
    (folder / "slow").unlink()
    assert done(folder) == EVERYTHING


def test_steps_are_chained() -> None:
    table = steps(Started(policy="/base", number="0000", title="t", rounds=3))
    written: set[str] = set()
    for one in table:
        inner = {path for path in one.reads if path.startswith("round-")}
        assert inner <= written, one  # nothing is read that no earlier step wrote
        assert not written & set(one.writes), one
        named = {part for part in one.command if part.startswith(("round-", "prompts/"))} - set(one.writes)
        assert named <= set(one.reads), one  # and whatever a command names is known to the ledger
        written |= set(one.writes)
    assert [one.name for one in table if one.round == 2] == [
        "draw", "generate start", "generate tuned", "score", "choose", "create", "pull", "pairs", "report", "gather",
        "fit reward", "fit judge", "tune", "evaluate",
    ]  # fmt: skip
    judge = next(one for one in table if one.name == "fit judge" and one.round == 3)
    assert "round-3/reward.jsonl" not in judge.reads
    tune = next(one for one in table if one.name == "tune" and one.round == 3)
    assert tune.reads == ("/base", "round-3/rm", "prompts/tuning.jsonl")


def test_settings_come_back_as_written(tmp_path: Path) -> None:
    own = Started(
        policy="gpt2",
        number="00ff",
        title="Fragen: überall?",
        labels=7,
        fit="--data.test 0.2",
        url="http://localhost:1",
    )
    (tmp_path / "rounds.yaml").write_text(own.to_yaml())
    assert read_settings(tmp_path) == own
    assert len(Started(policy="x", number="00ff", title="t" * 80).project(12)) == 50


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("labels: 200", "lables: 200", "there is no setting lables; did you mean labels?"),
        ("labels: 200", "labels: many", "expected labels to be a whole number, found 'many'"),
        ("labels: 200", "labels: 1", "labels 1: expected 2 or more"),
        ("seed: 0", "seed: true", "expected seed to be a whole number, found True"),
        ("policy: gpt2", "policy: null", "expected policy to be text, found None"),
        ("judge_share: 0.25", "judge_share: 0", "judge_share 0: expected a share above 0 and below 1"),
        ("uncertain: 0.0", "uncertain: 1.5", "uncertain 1.5: expected a share between 0 and 1"),
        ("fit: ''", 'fit: "--a \'b"', "expected options as in a shell (No closing quotation)"),
        ("labels: 200", "labels: [", "expected YAML, found something else"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = Started(policy="gpt2", number="00ff", title="t").to_yaml()
    assert old in text
    (tmp_path / "rounds.yaml").write_text(text.replace(old, new))
    assert said in complaint(["rounds", "status", tmp_path])


def test_no_rounds_there(tmp_path: Path) -> None:
    assert "rounds.yaml: no such file; `python -m rounds start" in complaint(["rounds", "next", tmp_path])


def test_start_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"Question {n}"} for n in range(60)])
    few = write_lines(tmp_path / "few.jsonl", [{"prompt": "One"}])
    full, new = tmp_path / "full", tmp_path / "new"
    full.mkdir()
    (full / "mine.txt").touch()
    own: list[str | Path] = ["rounds", "start", new, "--policy", "gpt2", "--prompts"]
    assert "expected a new or empty folder, found mine.txt" in complaint(
        ["rounds", "start", full, "--policy", "g", "--prompts", prompts]
    )
    assert "expected 2 prompts or more for tuning" in complaint([*own, few])
    assert "--held-out-share 1.0" in complaint([*own, prompts, "--held-out-share", "1"])
    bad = tmp_path / "bad.xml"
    bad.write_text("<View><Pairwise/></View>")
    assert "lsplugin validate did not end well" in complaint([*own, prompts, "--config", bad])
    assert not new.exists()
    assert run_cli([*own, prompts, "--labels", "10"]).code == 0
    assert "rounds were started there" in complaint([*own, prompts])
    parts = [
        {json.loads(line)["prompt"] for line in (new / "prompts" / f"{name}.jsonl").read_text().splitlines()}
        for name in ("tuning", "judging", "held_out")
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert run_cli(["rounds", "status", new]).code == 0


@pytest.mark.parametrize("file", ["docs/rounds.md", "examples/rounds.ipynb"])
def test_what_the_docs_type_exists(file: str) -> None:
    text = (REPOSITORY / file).read_text().replace("\\\\\\n", " ").replace('\\n",', "\n")
    typed = re.findall(r"python -m rounds (\w+)([^\n#]*)", text)
    assert len({command for command, _ in typed}) >= 4
    for command, rest in typed:
        shown = run_cli(["rounds", command, "--help"])
        assert shown.code == 0
        assert "Example: python -m rounds" in shown.stdout
        options = re.findall(r"(?<=\s)--[a-z-]+", re.sub(r'\\?".*?"', "", rest))
        assert all(re.search(rf"{option}\b", shown.stdout) for option in options), (command, options)
