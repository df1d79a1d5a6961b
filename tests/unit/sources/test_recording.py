"""Recording rules: what is checked in is what the mapping gives, and promtool has nothing to say about any of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from gpu_advisor.commands.rules import command
from gpu_advisor.sources.exporters import aggregate_rules
from gpu_advisor.sources.exporters.aggregate_rules import GPU_INFO
from gpu_advisor.sources.exporters.mapping import RECORDED_SERIES
from gpu_advisor.sources.exporters.mapping_files import mappings
from gpu_advisor.sources.exporters.recording_rules import (
    DAILY_SERIES,
    EVALUATION_SERIES,
    HOURLY_SERIES,
    MINUTE_SERIES,
    NODE_INFO,
    render_rules,
)
from gpu_advisor.sources.exporters.serving.recording_rules import FRONTENDS, SERVING_RECORDS

from tests.servers import require_binary

ROOT = Path(__file__).resolve().parents[3]
RECORDS = [each.record for each in (*EVALUATION_SERIES, *MINUTE_SERIES, *HOURLY_SERIES)]
RECORDS += [each.record for each in (*aggregate_rules.EVALUATION_SERIES, *aggregate_rules.MINUTE_SERIES)]
GPU_FAMILIES = [mapping.name for mapping in mappings() if mapping.scope == "gpu" and not mapping.companion]


def test_the_rules_of_our_own_exporter_are_checked_in() -> None:
    assert (ROOT / "prometheus/rules/recording.yml").read_text() == render_rules(), "run: make rules"


def test_the_rules_of_inference_servers_are_checked_in() -> None:
    made = CliRunner().invoke(command, ["--serving"]).output
    assert (ROOT / "prometheus/rules/serving-recording.yml").read_text() == made, "run: make rules"


def test_rules_of_inference_servers_are_held_to_the_jobs_asked_for() -> None:
    made = CliRunner().invoke(command, ["--serving", "--job", "llm", "--cluster-label", ""]).output
    for group in yaml.safe_load(made)["groups"]:
        for rule in group["rules"]:
            read = len(re.findall(r"\{[^}]*\}", rule["expr"]))
            if rule["record"] == FRONTENDS:  # over series that are recorded of these jobs
                assert "cluster" not in rule["expr"]
                continue
            assert read == rule["expr"].count('job="llm"') > 0, rule
            assert "cluster" not in rule["expr"]
    refused = CliRunner().invoke(command, ["--serving", "--source", "dcgm"])
    assert refused.exit_code == 2
    assert "--source" in refused.output


@pytest.mark.servers
@pytest.mark.parametrize("names", [[], *([name] for name in GPU_FAMILIES), GPU_FAMILIES])
def test_promtool_is_silent(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(render_rules(names, ["gpus", "more"]))
    command = [require_binary("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SUCCESS" in done.stdout


def test_every_selector_is_held_to_the_jobs_asked_for() -> None:
    for group in yaml.safe_load(render_rules(["dcgm-exporter"], ["gpus"]))["groups"]:
        for rule in group["rules"]:
            read = len(re.findall(r"\bDCGM_FI_\w+|\bup\b", rule["expr"]))
            assert read == rule["expr"].count('{job="gpus"'), rule


def test_what_is_read_of_recorded_series_is_recorded() -> None:
    recorded = {series.record for series in (*EVALUATION_SERIES, *MINUTE_SERIES, *HOURLY_SERIES)} | {
        GPU_INFO,
        NODE_INFO,
        *DAILY_SERIES,
    }
    mapping = next(mapping for mapping in mappings() if mapping.name == RECORDED_SERIES)
    read = set(mapping.identity.metrics)
    for quantity in mapping.quantities:
        for form in mapping.definitions(quantity):
            read |= {form.gauge.metric} if form.gauge else set()
            read |= {form.rollup.mean, form.rollup.coverage or GPU_INFO} if form.rollup else set()
    assert read <= recorded
    assert all(line.count(":") == 2 for line in recorded)  # level:metric:operations


def test_what_is_recorded_of_a_day_needs_the_data_of_a_day() -> None:
    coverage = [record for record in DAILY_SERIES if "coverage" in record]
    for record, expr in DAILY_SERIES.items():
        assert record in coverage or any(f"({each} >= 0.9)" in expr for each in coverage), record


def test_every_canonical_series_is_documented() -> None:
    documented = (ROOT / "docs/mappings.md").read_text()
    every = (GPU_INFO, NODE_INFO, *RECORDS, *DAILY_SERIES)
    assert [record for record in every if f"`{record}`" not in documented] == []
    rows = [f"| `{each.record}` | {each.about} |" for each in SERVING_RECORDS]
    assert [row for row in rows if row not in documented] == []


def test_the_command() -> None:
    done = CliRunner().invoke(command, ["--source", "dcgm", "--job", 'a"b'])
    assert done.exit_code == 0
    assert 'job="a\\"b"' in yaml.safe_load(done.output)["groups"][0]["rules"][0]["expr"]
    wrong = CliRunner().invoke(command, ["--source", "dgcm"])
    assert wrong.exit_code == 2
    assert "dcgm" in wrong.output


@pytest.mark.parametrize("names", [[], *([name] for name in GPU_FAMILIES)])
def test_what_is_made_of_recorded_series_reads_such_as_are_recorded_before(names: list[str]) -> None:
    rules = [rule for group in yaml.safe_load(render_rules(names))["groups"] for rule in group["rules"]]
    recorded = [rule["record"] for rule in rules]
    assert len(set(recorded)) == len(recorded)
    for number, rule in enumerate(rules):
        assert set(re.findall(r"\b\w+:\w+:\w+\b", rule["expr"])) <= set(recorded[:number]), rule
    assert {"host:gpus_busy:mean5m", "model:gpus:count", "gpu:idle:mean30m"} <= set(recorded)


def test_what_an_exporter_does_not_tell_is_not_added_up() -> None:
    assert "host:gpus_down:sum" in render_rules()
    assert "owner:gpus:count" in render_rules(["dcgm-exporter", "gpu-exporter"])
    assert "owner:" not in render_rules(["dcgm-exporter"])
    assert "host:gpus_down:sum" not in render_rules(["dcgm-exporter"])


@pytest.mark.parametrize("name", GPU_FAMILIES)
def test_every_gpu_has_a_node(name: str) -> None:
    [rule] = [rule for rule in yaml.safe_load(render_rules([name]))["groups"][0]["rules"] if rule["record"] == GPU_INFO]
    assert name == "gpu-exporter" or '"nodename", "$1", "' in rule["expr"], rule
