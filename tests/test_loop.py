"""What the README promises: its commands exist, and the script of the loop runs and shows what it is there to show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo_world.report import as_text, check
from lsplugin.errors import LspluginError
from tests.conftest import copy_migrated
from tests.helpers import run_cli

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"^\s*(?:[A-Z]+=\$\()?(?:python -m )?(lsplugin|ppo|demo_world|rm_lightning) (\w+)(.*)$")


def commands_of(file: Path) -> set[tuple[str, str, str]]:
    """Every command of ours in a README's code blocks or a script: (program, command, option)."""
    text = file.read_text()
    if file.suffix == ".md":
        text = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    found = set()
    for line in text.replace("\\\n", " ").splitlines():
        if match := COMMAND.match(line.split(" #")[0]):
            program, command, rest = match.groups()
            options = re.findall(r"(?<=\s)--?[a-z_][\w.-]*", rest)
            found |= {(program, command, option) for option in options or [""]}
    return found


@pytest.mark.parametrize("file", ["README.md", "examples/loop.sh"])
def test_every_command_and_option_exists(file: str) -> None:
    found = commands_of(REPOSITORY / file)
    assert len(found) > 15
    helps = {(program, command): run_cli([program, command, "--help"]).stdout for program, command, _ in found}
    missing = [
        (p, c, option) for p, c, option in found if not re.search(rf"(^|\s|,){re.escape(option)}\b", helps[p, c])
    ]
    assert missing == []


def test_a_demo_that_shows_nothing_says_so() -> None:
    def summary(**changes: object) -> dict[str, object]:
        def measure(mean: float) -> dict[str, float]:
            return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}

        return {
            "tasks": {"sent": 3, "labelled": 3, "pulled": 3, "unlabelled": 0},
            "annotations": {"pulled": 4, "pairs": 3, "dropped": {"skipped": 1}},
            "policy": {"gold": {"base": measure(0.0), "tuned": measure(1.0)}},
        } | changes

    check(summary())
    with pytest.raises(LspluginError, match="tasks were lost"):
        check(summary(tasks={"sent": 3, "labelled": 2, "pulled": 3}))
    with pytest.raises(LspluginError, match="annotations were lost"):
        check(summary(annotations={"pulled": 4, "pairs": 3, "dropped": {}}))
    worse = {"gold": {"base": {"mean": 0, "low": -1, "high": 1}, "tuned": {"mean": 1, "low": 0.9, "high": 1.1}}}
    with pytest.raises(LspluginError, match="did not clearly raise the gold score"):
        check(summary(policy=worse))


@pytest.mark.slow
@pytest.mark.server
def test_the_loop_runs_and_the_policy_gets_better(migrated: Path, tmp_path: Path) -> None:
    """examples/loop.sh itself, on fewer prompts, with a server whose database is migrated already."""
    copy_migrated(migrated, tmp_path / "run" / "label-studio")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABEL_STUDIO_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RUN": str(tmp_path / "run"),
        "PROMPTS": "300",
        "HELD_OUT": "120",
        "EPISODES": "1280",
    }
    script = ["bash", str(REPOSITORY / "examples" / "loop.sh")]
    done = subprocess.run(
        script, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["tasks"] == {"sent": 300, "labelled": 300, "pulled": 300, "unlabelled": 0}
    assert done.stdout.endswith(as_text(summary) + "\n")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert summary["samples"][0]["tuned"] in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)  # self-contained
    password = (
        (tmp_path / "run" / "label-studio" / "connection.env").read_text().split("LABEL_STUDIO_PASSWORD=")[1].split()[0]
    )
    assert password not in done.stdout + done.stderr
