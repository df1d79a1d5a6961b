"""Recording rules: what is checked in is what the mapping gives, and promtool has nothing to say about any of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from gpu_advisor.commands.rules import command
from gpu_advisor.sources.mapping import RECORDED, mappings
from gpu_advisor.sources.recording import DAILY, FINE, HOURLY, INFO, text

from tests.servers import require

ROOT = Path(__file__).resolve().parents[3]
GPU_FAMILIES = [mapping.name for mapping in mappings() if mapping.scope == "gpu" and not mapping.companion]


def test_the_rules_of_our_own_exporter_are_checked_in() -> None:
    assert (ROOT / "prometheus/rules/recording.yml").read_text() == text(), "run: make rules"


@pytest.mark.servers
@pytest.mark.parametrize("names", [[], *([name] for name in GPU_FAMILIES), GPU_FAMILIES])
def test_promtool_is_silent(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(text(names, ["gpus", "more"]))
    command = [require("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SUCCESS" in done.stdout


def test_every_selector_is_held_to_the_jobs_asked_for() -> None:
    for group in yaml.safe_load(text(["dcgm-exporter"], ["gpus"]))["groups"]:
        for rule in group["rules"]:
            assert rule["expr"].count("DCGM_FI_") == rule["expr"].count('{job="gpus"'), rule


def test_what_is_read_of_recorded_series_is_recorded() -> None:
    recorded = {series.record for series in (*FINE, *HOURLY)} | {INFO, *DAILY}
    mapping = next(mapping for mapping in mappings() if mapping.name == RECORDED)
    read = set(mapping.identity.metrics)
    for quantity in mapping.quantities:
        for form in mapping.forms(quantity):
            read |= {form.gauge.metric} if form.gauge else set()
            read |= {form.rollup.mean, form.rollup.coverage or INFO} if form.rollup else set()
    assert read <= recorded
    assert all(line.count(":") == 2 for line in recorded)  # level:metric:operations


def test_every_canonical_series_is_documented() -> None:
    documented = (ROOT / "docs/mappings.md").read_text()
    assert [
        record
        for record in (INFO, *(each.record for each in (*FINE, *HOURLY)), *DAILY)
        if f"`{record}`" not in documented
    ] == []


def test_the_command() -> None:
    done = CliRunner().invoke(command, ["--source", "dcgm", "--job", 'a"b'])
    assert done.exit_code == 0
    assert 'job="a\\"b"' in yaml.safe_load(done.output)["groups"][0]["rules"][0]["expr"]
    wrong = CliRunner().invoke(command, ["--source", "dgcm"])
    assert wrong.exit_code == 2
    assert "dcgm" in wrong.output
