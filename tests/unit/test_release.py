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
from packaging.requirements import Requirement

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
    assert {"lint", "pytest", "docs-site", "test-compose", "test-engines"} == made
    assert made <= targets


def test_pre_commit_runs_the_tools_of_make_lint() -> None:
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))
    assert {Path(command.split()[0]).name for command in pre_commit_commands()} == tools


LOCKS = {"exporter": ("web",), "advisor": ("advisor", "web", "kubernetes")}


@pytest.mark.parametrize("part", LOCKS)
def test_the_images_dependencies_are_locked_with_hashes(part: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    text = (ROOT / f"docker/requirements-{part}.txt").read_text(encoding="utf-8")
    blocks = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)[^\n]*((?:\n    [^\n]*)*)", text, re.MULTILINE)
    assert blocks
    assert all("--hash=sha256:" in rest for _, _, rest in blocks)
    assert "index-url" not in text
    assert "://" not in text
    locked = {re.sub("[-_.]+", "-", name).lower(): version for name, version, _ in blocks}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in LOCKS[part] for line in project["optional-dependencies"][extra]]
    for line in (*project["dependencies"], *extras):
        wanted = Requirement(line)
        version = locked.get(re.sub("[-_.]+", "-", wanted.name).lower())
        assert version, f"{wanted.name} is not in the lock file: make lock"
        assert version in wanted.specifier, f"{wanted.name}: make lock"


def test_images_install_what_is_locked_on_a_base_with_an_exact_tag() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    for part in LOCKS:
        assert f"--require-hashes -r requirements-{part}.txt" in text
    assert text.count("--no-deps") == 1 + len(LOCKS)


def test_a_release_records_digests_an_sbom_and_an_audit() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["artifacts"]["steps"]
    commands = " ".join(step.get("run", "") for step in steps)
    for word in ("RepoDigests", "PYTHON_IMAGE=$PYTHON_IMAGE", "make sbom", "make audit"):
        assert word in commands
