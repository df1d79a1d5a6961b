"""TrainingCollector: the same families as the monitor's own exposition, in a prometheus_client registry."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from gpu_advisor.training import TrainingCollector, TrainingMonitor
from gpu_advisor.training.metrics import FAMILIES
from gpu_advisor.training.publishers import MonitorError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.training.test_monitor import full


def families(text: str) -> dict[str, tuple[str, str, list[tuple[str, dict[str, str], float]]]]:
    """Type, help and sorted samples of each family."""
    return {
        family.name: (
            family.type,
            family.documentation,
            sorted(((one.name, one.labels, one.value) for one in family.samples), key=repr),
        )
        for family in text_string_to_metric_families(text)
    }


def test_a_registry_exposes_the_same_families_as_the_monitor():
    monitor = full(job='a "quoted" job')
    registry = CollectorRegistry()
    registry.register(monitor.collector())
    exposed = families(generate_latest(registry).decode())
    assert exposed == families(monitor.page())
    assert len(exposed) == len(FAMILIES)
    labels = {"training_job": 'a "quoted" job', "rank": "3", "uuid": "GPU-1"}
    assert registry.get_sample_value("training_steps_total", labels) == 2
    assert registry.get_sample_value("training_value", {**labels, "name": "accuracy", "statistic": "mean"}) == 0.5


def test_nonfinite_values_are_exposed():
    monitor = TrainingMonitor(job="job", figures=False)
    with monitor.step():
        monitor.record(loss=math.inf)
    registry = CollectorRegistry()
    registry.register(TrainingCollector(monitor))
    labels = {"training_job": "job", "rank": "0"}
    assert registry.get_sample_value("training_loss", labels) == math.inf


def test_nothing_is_exposed_before_the_first_step_and_after_the_end():
    registry = CollectorRegistry()
    with TrainingMonitor(job="job", figures=False) as monitor:
        registry.register(monitor.collector())
        assert list(registry.collect()) == []
        with monitor.step():
            monitor.record(loss=torch.tensor(2.0))
        assert {family.name for family in registry.collect()} >= {"training_steps", "training_loss"}
    assert list(registry.collect()) == []


def test_a_registry_refuses_a_second_monitor():
    """Two would expose each family twice, which no parser accepts."""
    registry = CollectorRegistry()
    registry.register(TrainingMonitor(job="one").collector())
    with pytest.raises(ValueError, match="training_steps"):
        registry.register(TrainingMonitor(job="two").collector())


def test_without_prometheus_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "gpu_advisor.training.collector")
    with pytest.raises(MonitorError, match="pip install prometheus-client"):
        TrainingMonitor(job="job").collector()
