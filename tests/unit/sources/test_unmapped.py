"""Exporters that look like GPU exporters and have no mapping are named; others are not."""

from __future__ import annotations

import re

import pytest
from gpu_advisor.promql.expressions import Matcher
from gpu_advisor.sources.exporters.mapping_files import mappings
from gpu_advisor.sources.exporters.unmapped import (
    GPU_METRIC,
    MAX_SHOWN_METRICS,
    NAME_LABEL,
    is_gpu_metric,
    metrics_by_job,
    unmapped_exporters,
    unmapped_query,
)

NO_MAPPING = {
    "mlu": ["mlu_utilization", "mlu_memory_used", "mlu_temperature"],
    "gaudi": ["habanalabs_utilization", "habanalabs_memory_used_bytes", "habanalabs_power_mW"],
    "neuron": ["neuroncore_utilization_ratio", "neuron_runtime_memory_used_bytes"],
    "dcu": ["dcu_utilizationrate", "dcu_usedmemory_bytes", "dcu_temp"],
    "metax": ["mx_gpu_usage_percent", "mx_memory_used", "mx_gpu_temperature", "mx_gpu_power_watts"],
    "script": ["gpu_utilization_percent", "gpu_memory_used_mb"],
    "cloud": ["kubernetes_io:node_accelerator_duty_cycle", "kubernetes_io:node_accelerator_memory_used"],
    "agent": ["agent_googleapis_com:gpu_utilization", "agent_googleapis_com:gpu_memory_bytes_used"],
    "opentelemetry": ["hw.gpu.utilization", "hw.gpu.memory.usage", "hw.gpu.io"],
    "smi": ["nvidia_smi_exporter_utilization", "nvidia_smi_exporter_memory_used"],
}
OTHERS = {
    "node": ["node_memory_MemTotal_bytes", "node_disk_io_input_bytes_total", "node_cpu_seconds_total"],
    "vllm": ["vllm:gpu_cache_usage_perc", "vllm:num_requests_running"],
    "kube-state-metrics": ["kube_pod_container_resource_requests", "kube_node_gpu_power_memory"],
    "slurm": ["slurm_gpus_alloc", "slurm_gpus_utilization"],
    "advisor": ["gpu_advisor_pool_gpus", "gpu_advisor_pool_utilization_ratio", "gpu_advisor_memory_bytes"],
    "scheduler": ["scheduler_gpu_requests_total"],
    "dotted": ["system.gpus", "k8s.node.memory.usage", "gpulse.utilization", "gpulse.memory"],
    "rules": ["cluster:gpu_utilization:avg", "cluster:gpu_memory:sum", "gpu:power_watts:last"],
}


@pytest.mark.parametrize("job", NO_MAPPING)
def test_an_exporter_without_a_mapping_is_named_with_a_remedy(job: str) -> None:
    [found] = unmapped_exporters({job: NO_MAPPING[job], "node": OTHERS["node"]}, mappings())
    assert found.job == job
    assert set(found.metrics) <= set(NO_MAPPING[job])
    assert found.metrics[0] in found.message
    assert ("translation_strategy" if job == "opentelemetry" else "mappings test") in found.message
    assert all(re.fullmatch(GPU_METRIC, name) for name in found.metrics)


@pytest.mark.parametrize("job", OTHERS)
def test_what_only_mentions_gpus_is_left_alone(job: str) -> None:
    assert unmapped_exporters({job: OTHERS[job]}, mappings()) == ()


@pytest.mark.parametrize(
    "mapping", [each for each in mappings() if each.scope == "gpu" and not each.companion], ids=str
)
def test_what_has_a_mapping_is_not_named(mapping) -> None:
    names = [*mapping.identity.metrics, "gpu_extra_utilization", "gpu_extra_memory", "gpu_extra_power"]
    assert unmapped_exporters({"job": names}, mappings()) == ()


def test_a_mapping_of_the_user_counts() -> None:
    assert unmapped_exporters({"mlu": NO_MAPPING["mlu"]}, [])
    own = mappings()[4].model_copy(
        update={"identity": mappings()[4].identity.model_copy(update={"metrics": ("mlu_utilization",)})}
    )
    assert unmapped_exporters({"mlu": NO_MAPPING["mlu"]}, [own]) == ()


def test_the_message_is_short() -> None:
    [found] = unmapped_exporters({"": [f"gpu_memory_{n}" for n in range(90)] + ["gpu_power"]}, mappings())
    assert len(found.metrics) == MAX_SHOWN_METRICS
    assert "and 86 more" in found.message
    assert "job (none)" in found.message


def test_the_query_leaves_mapped_jobs_out() -> None:
    assert 'job!="dcgm"' in unmapped_query(["dcgm"])
    assert 'job!~"a|b\\\\.c"' in unmapped_query(["b.c", "a"])
    assert "job!" not in unmapped_query([])
    assert unmapped_query(["dcgm"], [Matcher("team", "=", "ml")]).count('job!="dcgm", team="ml"}') == 1
    rows = [((NAME_LABEL, "a"), ("job", "x")), ((NAME_LABEL, "b"), ("job", "x")), ((NAME_LABEL, "c"),)]
    assert metrics_by_job(rows) == {"x": {"a", "b"}, "": {"c"}}


def test_names_are_recognized_by_whole_words() -> None:
    for name in ("node_input_bytes", "cpu_utilization", "http_output_total", "ngpus", "gpustack"):
        assert not is_gpu_metric(name), name
    for name in ("DCGM_FI_DEV_GPU_UTIL", "npu_chip_info_power", "amd_gpu_clock", "gpu_power", "hw_gpu_io_bytes_total"):
        assert is_gpu_metric(name), name
