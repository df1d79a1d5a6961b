"""The pages of docs/: generated pages are current, links resolve, and what they name exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

from tests.doc_blocks import PAGES
from tests.unit.test_dashboards import known_metrics

ROOT = Path(__file__).resolve().parents[2]
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
