"""The wheel works where there is no repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
NEEDED = ["lxml", "tinycss2", "typer"]
"""What `lsplugin render` needs; everything else that the distribution asks for is for other commands."""


@pytest.mark.slow
def test_render_and_validate_from_a_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(REPOSITORY),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("label_studio_rlhf-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("templates", "lsplugin/preview", "lsplugin/validation"):
        for path in (REPOSITORY / folder).rglob("*.*"):
            if path.suffix in {".xml", ".json", ".css", ".js", ".md"}:
                kept = path.relative_to(REPOSITORY).as_posix()
                assert f"lsplugin/{kept.removeprefix('lsplugin/')}" in names
    assert {"demo_world/report.html.j2", "rm_lightning/report.html.j2", "rm_lightning/configs/lora.yaml"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "runs/"))]

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        str(REPOSITORY / "constraints.txt"),
    ]
    subprocess.run([*install, *NEEDED], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    away = tmp_path / "away"
    away.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def lsplugin(*arguments: str) -> str:
        program = tmp_path / "venv" / "bin" / "lsplugin"
        done = subprocess.run(
            [program, *arguments], cwd=away, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    config = lsplugin("render", "--answers", "2")
    assert re.search(r'<Pairwise name="comparison" toName="answer1,answer2"', config)
    assert ".lsplugin-answer" in config
    lsplugin("render", "-o", "config.xml")
    assert (away / "config.xml").read_text() == config
    assert lsplugin("validate", "config.xml") == "config.xml: ok\n"
    assert "Ranking in tiers" in lsplugin("templates")
    assert "<Ranker" in lsplugin("render", "--answers", "4", "--theme", "contrast")
