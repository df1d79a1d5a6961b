"""The package, the chart and the changelog agree on the version, and CI covers the supported Python versions."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import gpu_advisor
import gpu_exporter
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VERSION = gpu_exporter.__version__
HEADING = re.compile(r"^## (\d+\.\d+\.\d+) \((unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    return loaded


def pre_commit_commands() -> list[str]:
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repo["repo"] == "local"
    return [hook["entry"] for hook in repo["hooks"]]


def test_the_installed_package_has_the_version_of_the_source() -> None:
    assert metadata("gpu-advisor")["Version"] == VERSION, "reinstall the package: make test"
    assert gpu_advisor.__version__ == VERSION


def test_an_unknown_attribute_of_the_advisor_is_an_error() -> None:
    with pytest.raises(AttributeError, match="__verison__"):
        _ = gpu_advisor.__verison__


def test_the_chart_has_the_version() -> None:
    chart = yaml.safe_load((ROOT / "charts/gpu-advisor/Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION), "charts/gpu-advisor/Chart.yaml"


def test_the_changelog_begins_with_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = HEADING.findall(text)
    assert len(found) == len(re.findall("^## ", text, re.MULTILINE)), "headings are: ## 1.2.3 (2026-01-31)"
    versions = [tuple(map(int, version.split("."))) for version, _ in found]
    assert found[0][0] == VERSION
    assert versions == sorted(set(versions), reverse=True)
    assert "unreleased" not in [date for _, date in found[1:]]


def test_every_supported_python_is_tested() -> None:
    classifiers = metadata("gpu-advisor").get_all("Classifier") or []
    supported = [c.rpartition(" ")[2] for c in classifiers if c.startswith("Programming Language :: Python :: 3.")]
    assert workflow()["jobs"]["tests"]["strategy"]["matrix"]["python-version"] == supported
    assert metadata("gpu-advisor")["Requires-Python"] == f">={supported[0]}"


def test_the_workflow_calls_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    made = {words[words.index("make") + 1] for words in map(shlex.split, commands) if "make" in words}
    assert {"lint", "pytest", "docs-site", "test-compose"} == made
    assert made <= targets


def test_pre_commit_runs_the_tools_of_make_lint() -> None:
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))
    assert {Path(command.split()[0]).name for command in pre_commit_commands()} == tools
