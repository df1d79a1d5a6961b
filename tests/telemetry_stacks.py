"""Situations of other monitoring stacks, which relabel and forward the same series. Each with what is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.telemetry_changes import HALF_WINDOW, UNTOUCHED
from tests.telemetry_histories import Sample
from tests.telemetry_oracle import AT
from tests.telemetry_situations import (
    Situation,
    Target,
    chain,
    constant,
    dcgm_gpu,
    dcgm_slice,
    node_metrics,
    own_gpu,
    summarize,
    target,
)


def _dcgm_pair(where: Target, node: str = "n1", first: int = 0) -> Iterator[Sample]:
    """Two GPUs: one busy 95 % of the time, one idle with some memory allocated."""
    yield from dcgm_gpu(where, f"GPU-{first}", node, 0, constant(0.95))
    yield from dcgm_gpu(where, f"GPU-{first + 1}", node, 1, constant(0.0), memory=0.01)


def _own_pair(where: Target, node: str = "n1") -> Iterator[Sample]:
    yield from own_gpu(where, "GPU-0", node, 0, constant(0.95))
    yield from own_gpu(where, "GPU-1", node, 1, constant(0.0), memory=0.01)


def _two_agents() -> Iterator[Sample]:
    """Remote write of two agents, each with its external labels; one stopped a quarter of an hour ago."""
    for agent, present in (("agent-0", lambda at: at < HALF_WINDOW), ("agent-1", lambda _: True)):
        where = target("gpu", "n1:9816", cluster="prod", prometheus_agent=agent, phase=3.0, present=present)
        for at in where.times():
            yield "up", where.labels, 1.0, at
        yield from _own_pair(where)


def _prefixed_names() -> Iterator[Sample]:
    """metric_relabel_configs put a team's prefix before each name."""
    where = target("dcgm", "n1:9400")
    yield from where.up()
    for name, labels, value, at in _dcgm_pair(where):
        yield f"acme_{name}", labels, value, at


def _federated_without_honor_labels() -> Iterator[Sample]:
    """The federation's own job and instance stand over those of the exporter."""
    where = target("federate", "prometheus-a:9090", exported_job="dcgm", exported_instance="n1:9400")
    for at in where.times():
        yield "up", {"job": "federate", "instance": "prometheus-a:9090"}, 1.0, at
    yield from _dcgm_pair(where)


def _without_utilization_field() -> Iterator[Sample]:
    """A field list with profiling metrics only, as DCGM 4 recommends for data centers."""
    where = target("dcgm", "n1:9400")
    yield from where.up()
    for index, level in enumerate((0.95, 0.0)):
        for name, labels, value, at in dcgm_gpu(where, f"GPU-{index}", "n1", index, constant(level), memory=0.01):
            if name == "DCGM_FI_DEV_GPU_UTIL":
                yield "DCGM_FI_PROF_GR_ENGINE_ACTIVE", labels, value / 100, at
            else:
                yield name, labels, value, at


def _managed_service_labels() -> Iterator[Sample]:
    """A managed Prometheus adds its own labels to each target, and `up` has them too."""
    where = target(
        "dcgm-exporter", "gke-pool-1:metrics", project_id="p", location="europe-west4", cluster="prod",
        namespace="gke-managed-system", pod="dcgm-exporter-x", node="gke-pool-1",
    )  # fmt: skip
    yield from where.up()
    owner = {"exported_pod": "train-0", "exported_namespace": "ml", "exported_container": "main"}
    yield from dcgm_gpu(where, "GPU-0", "dcgm-exporter-x", 0, constant(0.95), owners=lambda _: (owner,))
    yield from dcgm_gpu(where, "GPU-1", "dcgm-exporter-x", 1, constant(0.0), memory=0.01)


def _beside_dcgm(other: Target, metrics: Mapping[str, float], **labels: str) -> Iterator[Sample]:
    """An exporter without a mapping, beside one that is mapped."""
    where = target("dcgm", "n1:9400")
    yield from chain(where.up(), other.up(), _dcgm_pair(where))
    for at in other.times():
        for name, value in metrics.items():
            yield name, {**other.labels, **labels}, value, at


def _cloud_accelerator_names() -> Iterator[Sample]:
    """A cloud's own names for its nodes' accelerators."""
    names = {"kubernetes_io:node_accelerator_duty_cycle": 93.0, "kubernetes_io:node_accelerator_memory_used": 1e9}
    cloud = target("cloud-monitoring", "stackdriver:9255")
    return _beside_dcgm(cloud, names, node_name="n2", accelerator_id="0", make="nvidia", model="L4")


def _plugin_names() -> Iterator[Sample]:
    """An agent's nvidia-smi plug-in, with names of its own."""
    names = {"nvidia_smi_utilization_gpu": 93.0, "nvidia_smi_memory_used": 900.0}
    return _beside_dcgm(target("telegraf", "n2:9273"), names, host="n2", index="0", uuid="GPU-7", name="NVIDIA L4")


def _ipv6_addresses() -> Iterator[Sample]:
    """Addresses in brackets; both exporters know the short host name."""
    gpus, hosts = target("dcgm", "[fd00::7]:9400"), target("node", "[fd00::7]:9100")
    yield from chain(gpus.up(), hosts.up(), node_metrics(hosts, "n1.hpc.example", network=0.9), _dcgm_pair(gpus))


def _ipv6_without_a_name() -> Iterator[Sample]:
    """The exporter reports no host name: the scraped address joins."""
    gpus, hosts = target("dcgm", "[fd00::7]:9400"), target("node", "[fd00::7]:9100")
    yield from chain(gpus.up(), hosts.up(), node_metrics(hosts, "n1", network=0.9))
    for name, labels, value, at in _dcgm_pair(gpus):
        yield name, {label: text for label, text in labels.items() if label != "Hostname"}, value, at


def _behind_a_proxy() -> Iterator[Sample]:
    """One address for two nodes, which a label of the scrape distinguishes."""
    for number, (node, network) in enumerate((("n1", 0.9), ("n2", 0.2))):
        gpus = target("dcgm", "proxy:9290", target=node)
        hosts = target("node", "proxy:9290", target=node)
        yield from chain(gpus.up(), hosts.up(), node_metrics(hosts, node, network=network))
        yield from _dcgm_pair(gpus, node, 2 * number)


def _node_renamed() -> Iterator[Sample]:
    """A new host name in the middle of the window, under the same address."""
    for node, present in (("old", lambda at: at < HALF_WINDOW), ("n1", lambda at: at >= HALF_WINDOW)):
        where = target("gpu", "10.0.0.1:9816", present=present)
        for at in where.times():
            yield "up", where.labels, 1.0, at
        yield from _own_pair(where, node)


def _two_families() -> Iterator[Sample]:
    """nvidia_gpu_exporter, which leaves out `GPU-` and writes small letters, beside dcgm-exporter."""
    dcgm, smi = target("dcgm", "n1:9400"), target("smi", "n1:9835")
    yield from chain(dcgm.up(), smi.up())
    for number, level in enumerate((0.95, 0.0)):
        uuid = f"{number}aaaaaaa-4d2a-4c1e-9b7f-6a5e4d3c2b1a"
        yield from dcgm_gpu(dcgm, f"GPU-{uuid}", "n1", number, constant(level), memory=0.01)
        own = {**smi.labels, "uuid": uuid}
        for at in smi.times():
            yield "nvidia_smi_gpu_info", {**own, "name": "NVIDIA H100", "index": str(number)}, 1.0, at
            yield "nvidia_smi_utilization_gpu_ratio", own, level, at


def _mig_reconfigured() -> Iterator[Sample]:
    """A board is reconfigured in the middle of the window: its old MIG instances are removed."""
    where = target("dcgm", "n1:9400")
    yield from where.up()
    for instance, level, profile, present in (
        (1, 0.95, "3g.40gb", lambda at: at < HALF_WINDOW),
        (2, 0.95, "3g.40gb", lambda at: at < HALF_WINDOW),
        (0, 0.0, "7g.80gb", lambda at: at >= HALF_WINDOW),
    ):
        part = target("dcgm", "n1:9400", present=present)
        for name, labels, value, at in dcgm_slice(part, "GPU-0", "n1", 0, instance, constant(level)):
            yield name, {**labels, "GPU_I_PROFILE": profile}, value, at


def _hole_of_a_restart() -> Iterator[Sample]:
    """Prometheus was down for two minutes of the half hour: for all targets alike, without `up`."""
    where = target("gpu", "n1:9816", present=lambda at: not AT - 1000 < at < AT - 880)
    for at in where.times():
        yield "up", where.labels, 1.0, at
    yield from _own_pair(where)


def _names_as_instances() -> Iterator[Sample]:
    """`instance` is relabelled to the node's name, without a port; the exporter reports its pod."""
    gpus, hosts = target("dcgm", "n1"), target("node", "n1")
    yield from chain(gpus.up(), hosts.up(), node_metrics(hosts, "n1", network=0.9), _dcgm_pair(gpus, "dcgm-x7k"))


_JOINED = {**UNTOUCHED, "n1 network": 0.9, "n1 gpu_utilization": 0.475}

STACKS: tuple[Situation, ...] = (
    Situation("two agents with external labels, one stopped", _two_agents, summarize, UNTOUCHED),
    Situation("names with a prefix", _prefixed_names, summarize, {
        "gpus": 0, "fleet unmapped_exporters message": "dcgm",
    }),
    Situation("federated without honor_labels", _federated_without_honor_labels, summarize, UNTOUCHED),
    Situation("DCGM without GPU_UTIL, with profiling fields", _without_utilization_field, summarize, UNTOUCHED),
    Situation("a managed service's labels", _managed_service_labels, summarize, UNTOUCHED),
    Situation("a cloud's accelerator names", _cloud_accelerator_names, summarize, {
        **UNTOUCHED, "fleet unmapped_exporters message": "cloud-monitoring",
    }),
    Situation("an agent's nvidia-smi plug-in", _plugin_names, summarize, {
        **UNTOUCHED, "fleet unmapped_exporters message": "telegraf",
    }),
    Situation("IPv6 addresses", _ipv6_addresses, summarize, {
        **UNTOUCHED, "n1.hpc.example network": 0.9, "n1.hpc.example gpu_utilization": 0.475,
    }),
    Situation("IPv6 addresses, no host name reported", _ipv6_without_a_name, summarize, _JOINED),
    # One address for both: what is read by it may be of either.
    Situation("two nodes behind one proxy", _behind_a_proxy, summarize, {
        "gpus": 4, "released": ["GPU-1", "GPU-3"], "n1 network status": "unknown", "n2 network status": "unknown",
        "n1 gpu_utilization": 0.475, "fleet host_metrics message": "n1, n2 have one instance, proxy:9290",
    }),
    Situation("a node renamed in the window", _node_renamed, summarize, {**UNTOUCHED, "n1 gpu_utilization": 0.475}),
    Situation("two families, other spelling of the uuid", _two_families, summarize, {
        "gpus": 2, "fleet gpu_utilization": 0.475, "fleet exporters message": "duplicate series of 2 GPUs",
        "released": ["GPU-1aaaaaaa-4d2a-4c1e-9b7f-6a5e4d3c2b1a"],
    }),
    Situation("MIG reconfigured in the window", _mig_reconfigured, summarize, {
        "gpus": 1, "released": [], "abstained": ["insufficient_history"],
    }),
    Situation("a hole of two minutes", _hole_of_a_restart, summarize, {
        **UNTOUCHED, "gpu_idle_coverage GPU-0": 112 / 120, "gpu_idle_coverage GPU-1": 112 / 120,
    }),
    Situation("the node's name as instance, a pod's as host", _names_as_instances, summarize, {
        **UNTOUCHED, "fleet host_metrics message": "dcgm-x7k/n1, node_exporter n1",
    }),
)  # fmt: skip
