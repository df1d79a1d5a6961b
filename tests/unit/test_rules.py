"""Alert rules and configuration of Prometheus and Alertmanager, checked by their own tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.notify.alert_owners import owner_labels
from gpu_advisor.state.view import alert_name

from tests.preview.dashboard_queries import metrics_in
from tests.servers import require_binary
from tests.unit.test_dashboards import known_metrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
#: Alerts sent by the advisor, not by rules.
RECOMMENDATIONS = {alert_name(kind) for kind in KINDS}


def alerts() -> dict[str, dict[str, Any]]:
    groups = [g for path in sorted(PROMETHEUS.glob("rules/*.yml")) for g in yaml.safe_load(path.read_text())["groups"]]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    found = {rule["alert"]: rule for rule in rules}
    assert len(found) == len(rules), "duplicate alert name"
    return found


def run(tool: str, *arguments: str) -> str:
    """Output of the tool. Without it the test is skipped, or fails if servers are required."""
    done = subprocess.run(
        [require_binary(tool), *arguments], capture_output=True, text=True, timeout=120, cwd=PROMETHEUS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.servers
def test_prometheus_accepts_its_configuration():
    assert "WARNING" not in run("promtool", "check", "config", "prometheus.yml")


@pytest.mark.servers
def test_prometheus_accepts_the_rules():
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, sorted(PROMETHEUS.glob("rules/*.yml"))))


@pytest.mark.servers
def test_the_rules_pass_their_unit_tests():
    run("promtool", "test", "rules", *map(str, sorted(PROMETHEUS.glob("tests/*.yml"))))


@pytest.mark.servers
def test_alertmanager_accepts_its_configuration():
    run("amtool", "check-config", "alertmanager.yml")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("owner", "receiver"),
    [
        (GpuOwner("ml", "train-0", team="ml"), "team-ml"),
        (GpuOwner(job="7", kind="slurm", user="ada", team="vision"), "team-vision"),
        (GpuOwner(job="7", kind="slurm", user="ada", team="a team, with a comma"), "platform"),
        (GpuOwner("research-nlp", "notebook"), "research"),
        (GpuOwner(user="bob"), "platform"),
        (None, "platform"),
    ],
)
def test_the_example_routes_owners_to_their_teams(owner: GpuOwner | None, receiver: str):
    run("amtool", "check-config", "alertmanager-teams.yml")
    labels = {"alertname": "GpuAdvisorIdleReclaim", "severity": "warning", **(owner_labels(owner) if owner else {})}
    arguments = [f"{name}={value}" for name, value in labels.items()]
    routed = run("amtool", "config", "routes", "test", "--config.file=alertmanager-teams.yml", *arguments)
    assert routed.splitlines()[0] == receiver  # a warning follows


@pytest.mark.parametrize("name", alerts())
def test_an_alert_has_a_severity_and_a_runbook_url(name):
    rule = alerts()[name]
    base = re.search(r"^(https://\S+/)$", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    assert base, "docs/runbooks/README.md lacks the base URL of the runbooks"
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{base[1]}{name}.md"


@pytest.mark.parametrize("name", sorted(alerts().keys() | RECOMMENDATIONS))
def test_an_alert_has_a_runbook(name):
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Impact", "Diagnosis", "Mitigation"]
    assert f"[{name}]({name}.md)" in (RUNBOOKS / "README.md").read_text()


def test_runbooks_belong_to_alerts_and_their_links_resolve():
    names = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert names == alerts().keys() | RECOMMENDATIONS
    for path in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\((\w+\.md)\)", path.read_text()):
            assert (RUNBOOKS / target).exists(), f"{path.name} links to {target}"


def test_each_alert_has_a_firing_and_a_silent_test():
    tests = [t for path in PROMETHEUS.glob("tests/*.yml") for t in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts().keys()
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts().keys()


@pytest.mark.parametrize("name", alerts())
def test_an_alert_queries_existing_metrics(name):
    rule = alerts()[name]
    assert metrics_in(rule["expr"]) <= known_metrics()
    queried = re.findall(r'printf "((?:[^"\\]|\\.)*)" [^|]*\| query', rule["annotations"]["description"])
    assert {m for query in queried for m in metrics_in(query.replace("%q", '""'))} <= known_metrics()


def test_inhibitions_name_existing_alerts():
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    names = alerts().keys()
    for rule in config["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            pattern = matcher.split('"')[1]
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, name) for name in names), f"{part}: no such alert"


def test_the_configuration_contains_no_secrets():
    text = (PROMETHEUS / "alertmanager.yml").read_text()
    assert not re.search(r"(?:password|api_url|token|credentials)\s*:\s*\S", text)
