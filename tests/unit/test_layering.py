"""The import contracts of pyproject.toml can fail, and the pure core touches neither clock, disk nor network."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_graph import Structure, structure

ROOT = Path(__file__).resolve().parents[2]
ADVISOR = ROOT / "advisor/gpu_advisor"

#: What decides: the same inputs give the same outputs, at any time, on any machine.
PURE = ("evaluation", "promql", "hardware", "backtest", "planning")

#: Reads a model's definition with torch, as a person asked for.
NOT_PURE = {"planning/traced.py", "planning/architecture_table.py", "backtest/trace.py", "backtest/recorded.py"}

FORBIDDEN_MODULES = {
    "asyncio", "flask", "glob", "http", "os", "pathlib", "random", "requests", "shutil", "socket", "sqlite3",
    "ssl", "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
FORBIDDEN_CALLS = {"open", "input", "print", "now", "utcnow", "today", "read_text", "write_text", "getenv"}


def impurities(source: str) -> Iterator[str]:
    """What in this source reaches out of the program, or depends on when it runs."""
    for node in ast.walk(ast.parse(source)):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        yield from (f"imports {module}" for module in modules if module.split(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in FORBIDDEN_CALLS:
                yield f"calls {name}() in line {node.lineno}"


def test_the_core_is_pure() -> None:
    files = [file for package in PURE for file in (ADVISOR / package).rglob("*.py")]
    assert len(files) > 40
    found = {
        name: list(impurities(file.read_text()))
        for file in files
        if (name := str(file.relative_to(ADVISOR))) not in NOT_PURE
    }
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import time", "from time import monotonic", "import os.path", "from socket import socket", "open('x')",
        "datetime.now()", "datetime.datetime.now(tz)", "date.today()", "import requests", "Path('x').read_text()",
    ],
)  # fmt: skip
def test_an_impurity_is_found(line: str) -> None:
    assert list(impurities(f"def f():\n    {line}\n"))


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("gpu_advisor/evaluation/engine.py", "import gpu_advisor.sources.base", "The core imports no sources"),
        ("gpu_advisor/evaluation/facts.py", "import gpu_advisor.web", "The advisor's packages import downwards"),
        ("gpu_advisor/training/monitor.py", "import gpu_advisor.settings", "Training helpers import nothing"),
        ("gpu_exporter/cli.py", "import gpu_advisor", "Exporter and advisor share nothing"),
        ("gpu_exporter/metrics.py", "import gpu_exporter.server", "The exporter's packages import downwards"),
    ],
)
def test_a_wrong_import_breaks_a_contract(tmp_path: Path, file: str, line: str, broken: str) -> None:
    for program in ("advisor/gpu_advisor", "exporter/gpu_exporter"):
        shutil.copytree(ROOT / program, tmp_path / Path(program).name, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / file).open("a") as target:
        target.write(f"\n{line}\n")
    command = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(broken in row and "BROKEN" in row for row in done.stdout.splitlines()), done.stdout


@pytest.mark.parametrize("package", ["gpu_advisor", "gpu_exporter"])
def test_no_import_points_upwards(package: str) -> None:
    assert structure(package).upward == frozenset()


def test_a_cycle_is_an_upward_import() -> None:
    cyclic = Structure(("a", "b", "c"), frozenset({("a", "b"), ("b", "a"), ("b", "c")}))
    assert cyclic.upward == {("a", "b"), ("b", "a")}
