"""Imports point one way, and what is expensive is imported by those who need it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PLAIN = {
    "lsplugin.errors",
    "lsplugin.files",
    "lsplugin.preferences",
    "lsplugin.published",
    "lsplugin.console",
    "lsplugin.options",
    "lsplugin.pictures",
}
"""What the trainers may know of lsplugin: nothing in it knows Label Studio."""
MORE = {
    "demo_world/cli.py": {"lsplugin.connection"},
    "rounds/run.py": {"lsplugin.connection"},
    "rounds/figures.py": {"lsplugin.agreement"},
    "rm_lightning/sources.py": {"lsplugin.cli_pairs", "lsplugin.export", "lsplugin.judged", "lsplugin.pairs"},
    "rm_lightning/prelabels.py": {"lsplugin.dataset", "lsplugin.prelabel"},
}
"""Who may know more: the trainer that is handed an export reads it as `lsplugin pairs` does, the backend answers as
`lsplugin push --predictions` would."""
ORDER = ["lsplugin", "demo_world", "rm_lightning", "ppo", "rounds"]


def imports_of(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from lsplugin import console` counts as lsplugin.console."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module in ORDER else {node.module}
    return found


FILES = [file for package in ORDER for file in sorted((REPOSITORY / package).glob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_imports_point_one_way(file: Path) -> None:
    package = file.parent.name
    later = ORDER[ORDER.index(package) + 1 :]
    names = imports_of(file)
    assert not {name for name in names if name.split(".")[0] in later}
    if package == "rounds":  # it runs the others as a user does
        assert {name.split(".")[0] for name in names} & set(ORDER) <= {"lsplugin", "rounds"}
    if package != "lsplugin":
        allowed = PLAIN | MORE.get(f"{package}/{file.name}", set())
        assert {name for name in names if name.split(".")[0] == "lsplugin"} <= allowed
        assert "label_studio_sdk" not in {name.split(".")[0] for name in names}
    else:
        assert not {name.split(".")[0] for name in names} & {"torch", "transformers", "lightning", "torchmetrics"}


def modules_after(code: str) -> set[str]:
    """Which modules a fresh interpreter holds after running some code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return {name.split(".")[0] for name in done.stderr.split()}


EXPENSIVE = {"label_studio_sdk", "torch", "transformers", "lightning", "pandas", "matplotlib"}


def test_preferences_cost_a_trainer_nothing() -> None:
    assert not modules_after("import lsplugin.preferences") & (EXPENSIVE | {"lxml", "typer", "rich"})


def test_rendering_needs_neither_sdk_nor_torch() -> None:
    assert not modules_after("from lsplugin.__main__ import main\ntry: main(['render'])\nexcept SystemExit: pass") & (
        EXPENSIVE | {"tinycss2", "markdown_it", "nh3", "httpx"}
    )


@pytest.mark.parametrize("package", ["lsplugin", "ppo", "demo_world", "rounds"])
def test_help_needs_neither_sdk_nor_torch(package: str) -> None:
    code = f"from {package}.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not modules_after(code) & EXPENSIVE


def test_the_reward_model_never_sees_the_sdk() -> None:
    assert "label_studio_sdk" not in modules_after("import rm_lightning.cli, rm_lightning.serve, ppo.run")
