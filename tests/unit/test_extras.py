"""Every `pip install` hint names an extra that exists, in a form that works: the package is not on PyPI."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from gpu_advisor.extras import REPOSITORY, install_hint

ROOT = Path(__file__).parents[2]
SOURCES = ("*.py", "*.md", "*.yml", "*.yaml", "*.service", "Makefile", "*Dockerfile*")

#: '.[train]' and 'gpu-advisor[train]', each with what follows in the quotes.
HINT = re.compile(r"'(?P<package>\.|gpu-advisor)\[(?P<extras>[a-z, ]+)\](?P<rest>[^']*)'")


def declared_extras() -> set[str]:
    section = re.search(
        r"^\[project\.optional-dependencies\]\n(.*?)^\[",
        (ROOT / "pyproject.toml").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert section is not None
    return set(re.findall(r"^([a-z]+) = \[", section[1], re.MULTILINE))


def hints() -> list[tuple[str, re.Match[str]]]:
    listed = subprocess.run(
        ["git", "ls-files", "--", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [
        (name, hint)
        for name in listed
        if Path(name).name != Path(__file__).name and (ROOT / name).is_file()
        for hint in HINT.finditer((ROOT / name).read_text(encoding="utf-8"))
    ]


def test_every_hint_names_an_extra_that_exists():
    found = hints()
    assert len(found) > 10
    for name, hint in found:
        unknown = set(re.split(r", ?", hint["extras"])) - declared_extras()
        assert not unknown, f"{name}: {hint[0]}"


def test_no_hint_installs_from_an_index():
    for name, hint in hints():
        assert hint["package"] == "." or hint["rest"].startswith(" @ git+"), f"{name}: {hint[0]}"


def test_the_code_names_declared_extras():
    for path in (ROOT / "advisor" / "gpu_advisor").rglob("*.py"):
        for extra in re.findall(r"install_hint\(['\"](\w+)['\"]\)", path.read_text(encoding="utf-8")):
            assert extra in declared_extras(), f"{path}: {extra}"


@pytest.mark.parametrize("extra", ["train", "web"])
def test_the_hint_has_both_forms(extra):
    assert f"'.[{extra}]'" in install_hint(extra)
    assert f"'gpu-advisor[{extra}] @ git+{REPOSITORY}'" in install_hint(extra)
    assert HINT.search(install_hint(extra))
