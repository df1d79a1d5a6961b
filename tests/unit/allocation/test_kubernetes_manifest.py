"""A request on a cluster as documents: what is there, how many pods, which nodes, and the user's Job with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.allocation.errors import NoInventoryError, UnsatisfiableRequestError
from gpu_advisor.allocation.frameworks import SetupOptions, pytorch_settings, tensorflow_settings
from gpu_advisor.allocation.gpu_request import parse_request
from gpu_advisor.allocation.kubernetes import manifest
from gpu_advisor.allocation.kubernetes.cluster_nodes import cluster_nodes, parse_quantity, pod_requests
from gpu_advisor.allocation.kubernetes.errors import InvalidJobError
from gpu_advisor.allocation.kubernetes.pod_allocation import allocation_of_pods
from gpu_advisor.allocation.kubernetes.pod_plan import NodeSelectorTerm, PodPlan, build_pod_plan
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.allocation.kubernetes_emulator import job_template, node, pod

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
ONE_TERM = (NodeSelectorTerm("nvidia.com/gpu.product", ("A",)),)


def plan_pods(text: str, *nodes: Any, pods: Any = (), **request: Any) -> PodPlan:
    return build_pod_plan(replace(parse_request(text), **request), cluster_nodes(nodes, pods))


def build_manifest(template: Any, found: PodPlan, **more: Any) -> Any:
    return manifest.build_job(template, found, manifest.submitted_job_name(template, "t"), "t", "c", **more)


# What is there


def test_free_is_allocatable_less_what_pods_of_the_node_ask_for():
    pods = [pod("a", "n", 2), pod("b", "n", 1, "Succeeded"), pod("c", None, 4), pod("d", "other", 1), pod("e", "n", 9)]
    assert [each.free for each in cluster_nodes([node("n", 8)], pods[:4])] == [6]
    assert [each.free for each in cluster_nodes([node("n", 8)], pods)] == [0]


@pytest.mark.parametrize(
    ("product", "memory_mib", "more", "expected"),
    [
        ("NVIDIA-A100-SXM4-80GB", 81920, {}, ("A100", 80.0, "")),
        ("NVIDIA-A100-SXM4-40GB", 40537, {}, ("A100", 40.0, "")),
        ("Tesla-T4", 15360, {}, ("T4", 16.0, "")),
        ("Tesla-T4", None, {}, ("T4", 16.0, "")),
        ("Tesla-V100-SXM2-16GB", None, {}, ("V100", 16.0, "")),
        ("NVIDIA-H100-80GB-HBM3", 81559, {}, ("H100", 80.0, "")),
        ("", None, {"labels": {"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"}}, ("A100", None, "")),
        ("", None, {}, ("", None, "")),
        ("NVIDIA-A100-SXM4-80GB-SHARED", 81920, {}, (..., ..., "its devices are parts of GPUs (...)")),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 4864, {}, (..., ..., "its devices are parts of GPUs (...)")),
        ("Tesla-T4", None, {"ready": False}, ("T4", 16.0, "not ready")),
        ("Tesla-T4", None, {"unschedulable": True}, ("T4", 16.0, "cordoned")),
    ],
)
def test_labels_and_state_of_a_node(product, memory_mib, more, expected):
    (found,) = cluster_nodes([node("n", 4, product, memory_mib, **more)], [])
    why = expected[2].replace("(...)", f"({product})")
    assert found.unavailable_reason == why
    assert found.free == (0 if why else 4)
    assert expected[0] is ... or (found.gpu_type, found.memory_gb) == expected[:2]


def test_a_node_without_gpus_is_none_of_ours():
    plain = node("cpu", 0, "")
    del plain["status"]["allocatable"]["nvidia.com/gpu"]
    assert cluster_nodes([plain, node("empty", 0)], []) == ()
    (intel,) = cluster_nodes([node("i", 2, "", None, resource="gpu.intel.com/xe")], [])
    assert (intel.vendor, intel.resource) == ("intel", "gpu.intel.com/xe")


def test_requests_of_a_pod_are_those_that_the_scheduler_counts():
    def container(count: int, **more: Any) -> dict[str, Any]:
        return {"name": "c", "resources": {"limits": {"nvidia.com/gpu": count}}} | more

    both = {"containers": [container(1), container(2)]}
    assert pod_requests({"spec": both}) == {"nvidia.com/gpu": 3}
    assert pod_requests({"spec": both | {"initContainers": [container(4), container(2)]}}) == {"nvidia.com/gpu": 4}
    beside = container(1, restartPolicy="Always")
    assert pod_requests({"spec": both | {"initContainers": [beside]}}) == {"nvidia.com/gpu": 4}
    assert pod_requests({"spec": both | {"initContainers": [beside, container(4)]}}) == {"nvidia.com/gpu": 5}
    assert parse_quantity("2k") == 2000


# How many pods, and where


def test_all_gpus_on_one_node_where_one_has_so_many():
    found = plan_pods(
        "4xA100-80GB", node("a", 8), node("b", 4, "NVIDIA-A100-SXM4-40GB", 40537), node("c", 8, "Tesla-T4")
    )
    assert (found.pods, found.gpus_per_pod, found.resource) == (1, 4, "nvidia.com/gpu")
    assert found.terms == (
        NodeSelectorTerm("nvidia.com/gpu.product", ("NVIDIA-A100-SXM4-80GB",), "nvidia.com/gpu.memory", 81919),
    )
    assert found.fits_now
    assert found.reasons == (
        "a: 8 of 8 nvidia.com/gpu are free", "b: its GPUs have 40 GB", "c: its GPUs are T4",
    )  # fmt: skip
    assert plan_pods("nvidia.com/gpu: 2", node("a", 4)).terms == ()  # any GPU


def test_what_is_full_is_not_impossible():
    found = plan_pods("2xT4", node("a", 2, "Tesla-T4"), pods=[pod("p", "a", 1)])
    assert not found.fits_now


@given(st.integers(1, 64), st.lists(st.integers(1, 16), min_size=1, max_size=6))
def test_parts_are_equal_and_fit_the_nodes(count, sizes):
    nodes = [node(f"n{index}", size) for index, size in enumerate(sizes)]
    if count > sum(sizes):
        with pytest.raises(UnsatisfiableRequestError, match="gpu_count"):
            plan_pods(f"{count}xA100", *nodes, distributed_training=True)
        return
    found = plan_pods(f"{count}xA100", *nodes, distributed_training=True)  # parts of one GPU always fit
    assert found.pods * found.gpus_per_pod == count
    assert sum(size // found.gpus_per_pod for size in sizes) >= found.pods
    assert found.fits_now
    assert found.pods == 1 or count > max(sizes)


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("H100", "gpu_type", "no node of the cluster"),
        ("amd.com/gpu: 1", "gpu_type", "no node of the cluster"),
        ("9xA100", "gpu_count", "set distributed_training"),
    ],
)
def test_what_no_node_could_ever_serve_is_named(text, field, words):
    with pytest.raises(UnsatisfiableRequestError, match=words) as caught:
        plan_pods(text, node("a", 8), node("down", 16, ready=False))
    assert caught.value.field == field
    assert len(caught.value.reasons) == 2
    with pytest.raises(NoInventoryError, match="device plug-in"):
        plan_pods(text)


# The user's Job


@pytest.mark.parametrize("version", ["1.33", "1.35"])
def test_the_job_with_the_patch_in_it_is_valid(version):
    several = plan_pods("12xA100-80GB", node("a", 8), node("b", 8), distributed_training=True)
    body = build_manifest(job_template(), several, queue="team", tolerations=[{"key": "team", "operator": "Exists"}])
    kubernetes_validate.validate(body, version, strict=True)
    spec, pod_spec = body["spec"], body["spec"]["template"]["spec"]
    assert (spec["parallelism"], spec["completions"], spec["completionMode"]) == (2, 2, "Indexed")
    assert pod_spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "6"}}
    assert pod_spec["containers"][0]["image"] == "registry.example/train:1"
    assert [each["key"] for each in pod_spec["tolerations"]] == ["nvidia.com/gpu", "team"]
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    kubernetes_validate.validate(
        build_manifest(job_template(), replace(several, terms=(), pods=1)), version, strict=True
    )


def test_the_template_is_left_as_it_was_and_its_wishes_stay_in_force():
    template = job_template()
    theirs = [{"matchExpressions": [{"key": zone, "operator": "Exists"}]} for zone in ("x", "y")]
    pod_spec = template["spec"]["template"]["spec"]
    pod_spec["affinity"] = {"podAntiAffinity": {}, "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": theirs}}}
    pod_spec["containers"][0]["resources"] = {"limits": {"memory": "4Gi", "nvidia.com/gpu": 2}}
    before = repr(template)
    found = PodPlan("nvidia.com/gpu", "nvidia", 1, 2, (*ONE_TERM, NodeSelectorTerm("gke", ("B",))), True, ())
    done = build_manifest(template, found)["spec"]["template"]["spec"]
    terms = done["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    keys = [[each["key"] for each in term["matchExpressions"]] for term in terms]
    product = "nvidia.com/gpu.product"
    assert keys == [["x", product], ["x", "gke"], ["y", product], ["y", "gke"]]
    assert done["affinity"]["podAntiAffinity"] == {}
    assert done["containers"][0]["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "2"}
    assert repr(template) == before


@pytest.mark.parametrize(
    ("template", "pods", "words"),
    [
        (job_template() | {"kind": "CronJob"}, 1, "must be batch/v1 and Job"),
        (job_template(template={"spec": {"containers": []}}), 1, "has 0 containers"),
        (job_template(template={"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}), 1, "2 containers .a, b."),
        (job_template(parallelism=3), 2, "spec.parallelism is 3, the request needs 2"),
        (job_template(template={"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"nvidia.com/gpu": 4}}}]}}), 1, "remove it from the Job"),
    ],
)  # fmt: skip
def test_a_job_that_contradicts_the_plan_is_refused(template, pods, words):
    with pytest.raises(InvalidJobError, match=words):
        build_manifest(template, PodPlan("nvidia.com/gpu", "nvidia", pods, 2, (), True, ()))


@given(st.text(max_size=300), st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,200}[a-z0-9])?", fullmatch=True))
def test_names_and_labels_are_such_as_kubernetes_takes(token, name):
    import re

    found = manifest.submitted_job_name({"metadata": {"name": name}}, token)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", found)
    assert len(found) <= 63
    assert re.fullmatch(r"[a-z0-9]{1,63}", manifest.token_label(token))


def test_the_patch_alone_is_what_kubectl_would_merge():
    found = manifest.pod_patch(PodPlan("amd.com/gpu", "amd", 1, 2, (), True, ()), "train")
    assert found["spec"] == {
        "containers": [{"name": "train", "resources": {"limits": {"amd.com/gpu": "2"}}}],
        "tolerations": [{"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }


# Settings of frameworks in the pods


def test_settings_in_a_pod_name_no_device():
    request = replace(parse_request("4xA100-80GB"), mixed_precision=True, distributed_training=True)
    found = build_pod_plan(request, cluster_nodes([node("a", 2), node("b", 2)], []))
    allocation = allocation_of_pods(found, request, "train-1", "train")
    options = SetupOptions(devices_given=True)
    torch = pytorch_settings(allocation, options)
    assert [each.node_name for each in torch.nodes] == ["train-1-0", "train-1-1"]  # the pods' host names
    assert [dict(each.environment) for each in torch.nodes] == [
        {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    ] * 2
    assert "--nnodes=2 --nproc-per-node=2" in torch.nodes[0].command
    assert "--rdzv-endpoint=train-1-0.train:29500" in torch.nodes[1].command
    assert (torch.mixed_precision.dtype, torch.world_size) == ("bfloat16", 4)
    keras = tensorflow_settings(allocation, options)
    assert [set(each.environment) for each in keras.nodes] == [{"TF_CONFIG"}] * 2
    assert keras.memory.limit_mib is not None


def test_settings_that_differ_between_nodes_are_not_in_the_pods():
    found = plan_pods("nvidia.com/gpu: 1", node("a", 2), node("b", 2, "Tesla-T4", 15360))
    assert (found.gpu_type, found.memory_gb) == ("", 16)
    found = plan_pods("nvidia.com/gpu: 1", node("a", 2), node("b", 2, "", None))
    assert found.memory_gb is None
