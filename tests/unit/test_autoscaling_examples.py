"""The autoscaling examples: valid manifests, existing metrics, and missing data is never zero."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from gpu_advisor.commands.autoscale import command
from gpu_advisor.notify.metrics import METRIC_FAMILIES
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.serving.mapping import server_mappings

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

FOLDER = Path(__file__).parents[2] / "examples/autoscaling"

#: ScaledObject's fields (https://keda.sh/docs/latest/reference/scaledobject-spec) as far as used here.
KEDA = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "fallback", "advanced", "triggers",
    },
    "spec.fallback": {"failureThreshold", "replicas", "behavior"},
    "spec.advanced": {"horizontalPodAutoscalerConfig"},
    "spec.advanced.horizontalPodAutoscalerConfig": {"behavior"},
    "trigger": {"type", "metricType", "metadata"},
    "trigger.metadata": {"serverAddress", "query", "threshold", "ignoreNullValues"},
}  # fmt: skip


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("name", ["hpa.yaml", "apply-cronjob.yaml"])
@pytest.mark.parametrize("version", ["1.33", "1.35"])
def test_manifests_are_valid(name: str, version: str) -> None:
    found = documents(name)
    assert found
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_hpa_with_zero_tolerance_is_valid_too() -> None:
    (hpa,) = documents("hpa.yaml")
    for direction in ("scaleUp", "scaleDown"):
        hpa["spec"]["behavior"][direction]["tolerance"] = "0"
    kubernetes_validate.validate(hpa, "1.35", strict=True)


KEDA_FILES = ("keda-scaledobject.yaml", "keda-running-requests.yaml")


@pytest.mark.parametrize("name", KEDA_FILES)
def test_the_scaled_object_has_only_documented_fields(name: str) -> None:
    (found,) = documents(name)
    assert (found["apiVersion"], found["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    for path in filter(lambda each: not each.startswith("trigger"), KEDA):
        part = found
        for key in filter(None, path.split(".")):
            part = part[key]
        assert set(part) <= KEDA[path], path
    (trigger,) = found["spec"]["triggers"]
    assert (set(trigger), set(trigger["metadata"])) == (KEDA["trigger"], KEDA["trigger.metadata"])
    assert all(isinstance(value, str) for value in trigger["metadata"].values())  # KEDA rejects other types
    # The behavior is that of an HPA: validate it as one.
    (hpa,) = documents("hpa.yaml")
    hpa["spec"]["behavior"] = found["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    kubernetes_validate.validate(hpa, "1.33", strict=True)


@pytest.mark.parametrize("name", KEDA_FILES)
def test_missing_data_is_never_zero(name: str) -> None:
    (found,) = documents(name)
    spec = found["spec"]
    assert spec["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
    assert spec["minReplicaCount"] >= 1
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert "or vector(0)" not in (FOLDER / name).read_text()


def test_requests_are_counted_by_metrics_that_the_server_has_and_a_start_outlasts_no_window() -> None:
    (found,) = documents("keda-running-requests.yaml")
    query = found["spec"]["triggers"][0]["metadata"]["query"]
    (vllm,) = (each for each in server_mappings() if each.name == "vllm")
    names = set(re.findall(r"vllm:\w+", query))
    assert names == {"vllm:num_requests_running", "vllm:num_requests_waiting"} <= vllm.metric_names
    labels = re.findall(r"(\w+)=\"([^\"]*)\"", query)
    assert labels == [("namespace", found["metadata"]["namespace"]), (vllm.labels["model"][0], "chat")] * 2
    behavior = found["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (pool,) = Settings.model_validate(documents("serving-pool.yaml")[0]).pools
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] > pool.start_delay_seconds
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0


def test_the_pool_of_a_language_model_is_that_of_the_autoscalers() -> None:
    (pool,) = Settings.model_validate(documents("serving-pool.yaml")[0]).pools
    (keda,) = documents("keda-scaledobject.yaml")
    assert pool.name == keda["spec"]["scaleTargetRef"]["name"]
    assert pool.slo is not None
    assert (pool.slo.ttft_p95, pool.slo.itl_p95) == (1.0, 0.05)
    assert pool.gpu is not None
    limits = (keda["spec"]["minReplicaCount"], keda["spec"]["maxReplicaCount"])
    assert (pool.gpu.min, pool.gpu.max) == tuple(pool.gpus_per_replica * each for each in limits)


def test_the_metrics_exist_with_the_queried_labels() -> None:
    """The targets make the metric equal the number of replicas."""
    text = "".join(path.read_text() for path in FOLDER.iterdir()).replace("(hpa|desired)", "hpa")
    names = set(re.findall(r"gpu_advisor_\w+", text))
    assert {"gpu_advisor_hpa_replicas", "gpu_advisor_desired_replicas", "gpu_advisor_replicas"} <= names
    assert all(METRIC_FAMILIES[name][2] == ("pool",) for name in names)
    (hpa,) = documents("hpa.yaml")
    (metric,) = hpa["spec"]["metrics"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
    (keda,) = documents("keda-scaledobject.yaml")
    assert keda["spec"]["triggers"][0]["metadata"]["threshold"] == "1"
    (rule,) = documents("prometheus-adapter-rules.yaml")[0]["externalRules"]
    pattern = re.search('__name__=~"(.+?)"', rule["seriesQuery"])
    assert pattern is not None
    assert re.fullmatch(pattern[1], metric["external"]["metric"]["name"])


def test_the_cron_job_has_valid_arguments_and_permissions() -> None:
    account, role, binding, job = documents("apply-cronjob.yaml")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    subcommand, *arguments = pod["containers"][0]["args"]
    with click.Context(command, info_name=subcommand) as context:
        command.parse_args(context, list(arguments))
        assert context.params["apply_"] is True
    (rule,) = role["rules"]
    assert (rule["resources"], set(rule["verbs"])) == (["deployments/scale"], {"get", "patch"})
    assert f"deployment/{rule['resourceNames'][0]}" == context.params["workload"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"] == pod["serviceAccountName"]
