"""Which command is the same run that was interrupted, and which is another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lsplugin.preferences import Pair, write_pairs
from rm_lightning.resume import begin, end, logs


class Config(SimpleNamespace):
    """What LightningCLI hands over, as far as it counts here."""

    def as_dict(self) -> dict[str, Any]:
        return {name: value if name != "data" else vars(value) for name, value in vars(self).items()}


def config(folder: Path, rate: float = 1.0, *, fresh: bool = False) -> Any:
    data = SimpleNamespace(pairs=str(folder / "pairs.jsonl"), validation_pairs=None, test_pairs=None)
    return Config(output=folder / "rm", data=data, ckpt_path=None, fresh=fresh, rate=rate)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "pairs.jsonl", [Pair("a", "good", "bad")])
    begin(config(tmp_path))
    latest = logs(tmp_path / "rm") / "checkpoints" / "latest.ckpt"
    latest.parent.mkdir(parents=True)
    latest.touch()
    return latest


def test_the_same_command_goes_on(interrupted: Path, tmp_path: Path) -> None:
    again = config(tmp_path)
    begin(again)
    assert again.ckpt_path == str(interrupted)
    assert interrupted.exists()


@pytest.mark.parametrize("change", ["rate", "fresh", "content"])
def test_another_setting_or_other_data_is_another_run(change: str, interrupted: Path, tmp_path: Path) -> None:
    if change == "content":
        write_pairs(tmp_path / "pairs.jsonl", [Pair("a", "bad", "good")])
    again = config(tmp_path, 2.0 if change == "rate" else 1.0, fresh=change == "fresh")
    begin(again)
    assert again.ckpt_path is None
    assert not interrupted.exists()


def test_only_the_first_process_clears_away(interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    begin(config(tmp_path, 2.0))
    assert interrupted.exists()


def test_a_finished_run_begins_anew(interrupted: Path, tmp_path: Path) -> None:
    end(config(tmp_path))
    assert not interrupted.exists()
    interrupted.touch()
    again = config(tmp_path)
    begin(again)
    assert again.ckpt_path is None
