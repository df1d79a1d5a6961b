"""The pages of docs/: generated pages are current, links resolve, and the programs accept the commands."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from gpu_advisor.cli import cli as advisor
from gpu_exporter.config import load_settings
from gpu_exporter.devices import DRIVERS
from gpu_exporter.host import COLLECTORS
from gpu_exporter.wiring import COLLECTOR_GROUPS

from tests.unit.test_dashboards import known_metrics

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/runbooks/*.md")])
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
ANCHOR = re.compile(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["configuration", "api", "alerts", "diagnosis", "planning", "cost", "gpu_types", "nvidia"]
)
def test_a_generated_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    builder = importlib.import_module(f"build_{name}")
    assert builder.PAGE.read_text(encoding="utf-8").splitlines() == builder.text().splitlines(), builder.COMMAND


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, hyphens, no punctuation."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_resolve(page: Path) -> None:
    for target, anchor in ANCHOR.findall(page.read_text(encoding="utf-8")):
        if not target or target.endswith(".md"):
            assert anchor in anchors(page.parent / target if target else page), f"{page.name}: {target}#{anchor}"


def test_paths_in_the_readmes_index_exist() -> None:
    index = (ROOT / "README.md").read_text(encoding="utf-8").split("## What is where")[1]
    paths = re.findall(r"`([^` ]+/[^` ]*)`", index)
    assert len(paths) > 15
    assert [path for path in paths if not [*ROOT.glob(path)]] == []


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """The program's commands in indented blocks, each up to a comment, a pipe or the next command."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            found = re.match(rf"    (?:\$ )?{program} (.*)", line)
            if found:
                words = shlex.split(found[1], comments=True)
                ends = [words.index(sign) for sign in ("|", "&&", "||", ">", "&", "--") if sign in words]
                yield f"{page.name}: {line.strip()}", words[: min(ends, default=None)]


@pytest.mark.parametrize(("where", "words"), [pytest.param(*each, id=each[0]) for each in commands("gpu-advisor")])
def test_the_advisor_accepts_the_commands(where: str, words: list[str]) -> None:
    command = advisor.get_command(click.Context(advisor), words[0])
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words[1])
    assert command, where
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= {*known, "--help"}, where


@pytest.mark.parametrize(("where", "words"), [pytest.param(*each, id=each[0]) for each in commands("gpu-exporter")])
def test_the_exporter_accepts_the_commands(where: str, words: list[str]) -> None:
    if not any(word.startswith("--config.file") for word in words):
        load_settings(words, (*COLLECTOR_GROUPS, *DRIVERS, *COLLECTORS))


@pytest.mark.parametrize("name", ["install", "how-it-decides", "faq"])
def test_metrics_named_in_the_pages_are_published(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bgpu_(?!exporter\b|advisor\b|utilization\b)\w+", text))
    assert named <= known_metrics()


def test_the_charts_values_in_the_pages_exist() -> None:
    values = yaml.safe_load((ROOT / "charts/gpu-advisor/values.yaml").read_text(encoding="utf-8"))
    paths = [found for page in PAGES for found in re.findall(r"--set ([\w.]+)=", page.read_text(encoding="utf-8"))]
    assert paths
    for path in paths:
        below = values
        for key in path.split("."):
            # Only the schema knows the keys below a mapping that is empty by default.
            assert key in below or below == {}, path
            below = below.get(key, {})
            if not isinstance(below, dict):
                break


@pytest.mark.parametrize("where", ["docs/install.md", "docs/faq.md"])
def test_services_named_in_the_pages_exist_in_the_stack(where: str) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    text = (ROOT / where).read_text(encoding="utf-8")
    for name in re.findall(r"docker compose (?:logs|restart|exec)(?: -\S+)* (\S+)", text):
        assert name.rstrip("`") in services, name
