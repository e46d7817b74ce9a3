"""The command line as a person meets it: help with examples, and one clear line for every mistake."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from lsplugin.cli import app as lsplugin_app
from ppo.cli import app as ppo_app
from tests.helpers import complaint, run_cli, unused_port, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import LabelStudio

ROW = {"prompt": "p", "answer1": "a", "answer2": "b"}


def commands() -> list[tuple[str, str]]:
    return [
        (app.info.name or "", command.name or command.callback.__name__)  # type: ignore[union-attr]
        for app in (lsplugin_app, ppo_app)
        for command in app.registered_commands
    ]


@pytest.mark.parametrize(("program", "command"), commands())
def test_every_command_has_a_helpful_help_with_an_example(program: str, command: str) -> None:
    result = run_cli([program, command, "--help"])
    assert result.code == 0
    shown = re.sub(r"\s+", " ", result.stdout)
    assert "Example:" in shown
    assert f"{program} {command}" in shown.split("Example:")[1]


def test_render_writes_a_file_or_prints(tmp_path: Path) -> None:
    printed = run_cli(["lsplugin", "render", "--answers", "2"])
    assert printed.code == 0
    run_cli(["lsplugin", "render", "-o", tmp_path / "config.xml"])
    assert (tmp_path / "config.xml").read_text() == printed.stdout
    assert "compares exactly two answers" in complaint(
        ["lsplugin", "render", "--answers", "3", "--template", "pairwise"]
    )


def test_mistakes_in_files_are_found_before_any_server_is_asked(tmp_path: Path) -> None:
    bad_row = write_json(tmp_path / "row.json", [ROW, {"prompt": "p", "answer1": "a"}])
    (tmp_path / "no.json").write_text("[\n{]\n")
    nowhere = ["--url", f"http://127.0.0.1:{unused_port()}", "--api-key", "k"]
    assert "row 2: `answer2` is missing" in complaint(["lsplugin", "create", "Title", "--tasks", bad_row, *nowhere])
    assert "no.json, line 2: expected JSON" in complaint(
        ["lsplugin", "create", "Title", "--tasks", tmp_path / "no.json", *nowhere]
    )
    assert "no.json, line 2: expected JSON" in complaint(["lsplugin", "push", "1", tmp_path / "no.json", *nowhere])
    assert "none.json: no such file" in complaint(["lsplugin", "pairs", tmp_path / "none.json"])
    (tmp_path / "bad.xml").write_text("<View>")
    assert "the config has errors, first on line 1" in complaint(
        ["lsplugin", "create", "T", "--config", tmp_path / "bad.xml", *nowhere]
    )


def test_what_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = complaint(["lsplugin", "render", "-o", tmp_path / "file" / "config.xml"])
    assert str(tmp_path / "file") in said


def test_no_server_there(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    for command in (["pull", "1", "-o", tmp_path / "e.json"], ["create", "Title"]):
        assert f"no Label Studio at {url}" in complaint(["lsplugin", *command, "--url", url, "--api-key", "k"])
    assert not (tmp_path / "e.json").exists()


def test_no_server_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "lsplugin serve" in complaint(["lsplugin", "pull", "1"])


@pytest.mark.server
def test_what_the_server_refuses_is_one_line(connected: LabelStudio, tmp_path: Path) -> None:
    wrong = ["--url", connected.url, "--api-key", "0" * 40]
    assert "does not accept this key" in complaint(["lsplugin", "pull", "1", *wrong])
    assert "has no project 999999" in complaint(["lsplugin", "pull", "999999"])
    assert 'has no project titled "nothing of the kind"' in complaint(["lsplugin", "pull", "nothing of the kind"])
    assert "a title has 3 to 50 characters" in complaint(["lsplugin", "create", "T"])
    assert not (tmp_path / "export.json").exists()


def test_a_policy_that_is_none_and_a_reward_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "p"}\n')
    said = complaint(["ppo", "generate", "--policy", "no-such-model", "--prompts", "prompts.jsonl"])
    assert said.startswith("no-such-model: no such model")
    assert "python -m rm_lightning fit" in complaint(["ppo", "run"])
    (tmp_path / "bad.jsonl").write_text('{"prompt": "p"}\n{"text": "p"}\n')
    said = complaint(["ppo", "generate", "--policy", "x", "--prompts", "bad.jsonl"])
    assert said.startswith("bad.jsonl, line 2: expected `prompt` to be text")
    assert not (tmp_path / "dataset.json").exists()
