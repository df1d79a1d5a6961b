"""GPUs, nodes, owners and targets from identity series; and which exporters' series an expression reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Node
from gpu_advisor.observation.compile import compile_by_exporter, step_utilization
from gpu_advisor.observation.identity import (
    FAILED_DRIVER_STATES,
    build_gpus,
    build_nodes,
    explain_unmatched_hosts,
    find_down_targets,
    find_duplicate_gpus,
    jobs_by_gpu,
    nodes_by_address,
)
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import metrics_of
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.detection import GpuInventory, TargetKey
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.identity_rows import Row, RowReader
from gpu_advisor.sources.exporters.mapping import RECORDED_SERIES, ExporterMapping
from gpu_advisor.sources.exporters.mapping_files import mappings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import identity_row, labels

TARGET = {"job": "gpu", "instance": "a:1"}
HERE = identity_row(uuid="1", index="2", name="H100", vendor="nvidia", nodename="n", exporter="dcgm-exporter", **TARGET)
HERE_TARGET = TargetKey("gpu", "a:1")
UP, DOWN = {HERE_TARGET: 1.0}, {HERE_TARGET: 0.0}


def mapping_of(name: str) -> ExporterMapping:
    return next(mapping for mapping in mappings() if mapping.name == name)


def test_a_gpu_has_all_its_labels() -> None:
    (gpu,) = build_gpus(GpuInventory((HERE,)), {"1": 1.0}, UP, {})
    assert gpu == type(gpu)("1", "2", "H100", "nvidia", "n", True, "dcgm-exporter")


@pytest.mark.parametrize(("label", "unified"), [({}, False), ({"unified": "true"}, True), ({"unified": ""}, False)])
def test_a_gpu_whose_memory_is_the_cpus_as_well(label: dict[str, str], unified: bool) -> None:
    (row,) = RowReader(mapping_of("gpu-exporter")).read([labels(uuid="1", index="0", **label, **TARGET)])
    (gpu,) = build_gpus(GpuInventory((row,)), {}, {}, {})
    assert gpu.unified is unified


@pytest.mark.parametrize(("health", "up"), [(None, None), (0.0, False), (1.0, True)])
def test_health_is_unknown_where_no_series_has_it(health: float | None, up: bool | None) -> None:
    (gpu,) = build_gpus(GpuInventory((HERE,)), {} if health is None else {"1": health}, UP, {})
    assert gpu.up is up


def test_labels_that_are_missing_are_empty_and_a_row_without_uuid_is_no_gpu() -> None:
    nameless = identity_row(index="0", **TARGET)
    (gpu,) = build_gpus(GpuInventory((nameless, {"uuid": "1"}, identity_row(uuid="", **TARGET))), {}, {}, {})
    assert (gpu.uuid, gpu.index, gpu.name, gpu.vendor, gpu.node, gpu.exporter) == ("1", "", "", "", "", "")


@pytest.mark.parametrize(
    ("row", "node"),
    [
        (identity_row(uuid="1", nodename="n", instance="10.0.0.1:9400"), "n"),
        (identity_row(uuid="1", instance="10.0.0.1:9400"), "host-a"),  # node_exporter names the host of this address
        (identity_row(uuid="1", instance="10.0.0.9:9400"), "10.0.0.9:9400"),
        (identity_row(uuid="1"), ""),
    ],
)
def test_the_node_is_the_exporters_name_else_the_hosts_else_the_address(row: Row, node: str) -> None:
    nodes = [Node("host-a", "10.0.0.1:9100")]
    (gpu,) = build_gpus(GpuInventory((row,)), {}, {}, {}, nodes)
    assert gpu.node == node


@pytest.mark.parametrize(
    ("targets", "driver", "kept"),
    [
        (DOWN, None, True),  # an outage is not fewer GPUs
        (UP, None, False),  # taken out
        ({TargetKey("gpu", "b:1"): 1.0}, None, False),  # its target is scraped no more
        ({TargetKey("gpu", "a:1", "east"): 0.0, TargetKey("gpu", "a:1"): 1.0}, None, False),  # another cluster's
        ({TargetKey("other", "b:1"): 0.0}, None, True),  # its job has no `up`: federated, or pushed
        ({}, None, True),  # nothing is known of targets
        *((UP, state, True) for state in sorted(FAILED_DRIVER_STATES)),
        (UP, "ok", False),
        (UP, "absent", False),
    ],
)
def test_a_recent_gpu_is_kept_while_its_exporter_cannot_list_it(
    targets: dict[TargetKey, float], driver: str | None, kept: bool
) -> None:
    drivers = {} if driver is None else {labels(state=driver, **TARGET): 1.0}
    found = build_gpus(GpuInventory((), (HERE,)), {}, targets, drivers)
    assert [gpu.uuid for gpu in found] == (["1"] if kept else [])


@pytest.mark.parametrize(("recent", "kept"), [({HERE_TARGET}, True), ({TargetKey("gpu", "b:1")}, False)])
def test_a_target_that_was_removed_is_kept_while_it_is_recent(recent: set[TargetKey], kept: bool) -> None:
    others = {TargetKey("gpu", "b:1"): 1.0}
    assert bool(build_gpus(GpuInventory((), (HERE,)), {}, others, {}, recent_targets=recent)) is kept


def test_clusters_with_the_same_names_are_apart() -> None:
    def row(cluster: str, uuid: str) -> Row:
        return identity_row(
            uuid=uuid, index="0", nodename="n", instance="a:1", job="gpu", cluster=cluster, exporter="x"
        )

    rows = (row("east", "1"), row("west", "1"), row("west", "2"))
    found = build_gpus(GpuInventory(rows), {"east/1": 1.0, "west/1": 0.0, "2": 1.0}, {}, ())
    assert [(gpu.uuid, gpu.node, gpu.up) for gpu in found] == [
        ("east/1", "east/n", True), ("2", "west/n", True), ("west/1", "west/n", False),
    ]  # fmt: skip
    nodes = build_nodes(identity_row(nodename="n", instance="a:1", cluster=cluster) for cluster in ("west", "east"))
    assert nodes == (Node("east/n", "a:1", "east"), Node("west/n", "a:1", "west"))
    assert jobs_by_gpu([labels(uuid="1", cluster="west", owner_unit="u")], {"1"}) == {"west/1": "u"}
    assert find_duplicate_gpus(GpuInventory(rows)) == {}


def test_the_present_identity_and_the_first_exporter_count() -> None:
    former = identity_row(uuid="1", index="9", nodename="old", **TARGET)
    second = identity_row(uuid="1", index="7", nodename="n", exporter="nvitop-exporter", **TARGET)
    found = build_gpus(GpuInventory((HERE, second), (former,)), {}, DOWN, {})
    assert [(gpu.index, gpu.exporter) for gpu in found] == [("2", "dcgm-exporter")]


def test_gpus_are_in_the_order_of_node_and_number() -> None:
    rows = [identity_row(uuid=f"{node}{i}", index=str(i), nodename=node) for node in "ba" for i in (100000, 10, 9, 1)]
    found = build_gpus(GpuInventory(tuple(rows)), {}, {}, {})
    assert [gpu.uuid for gpu in found] == [f"{node}{i}" for node in "ab" for i in (1, 9, 10, 100000)]


def test_what_several_exporters_report_is_found() -> None:
    rows = (
        HERE,
        identity_row(uuid="1", exporter="nvitop-exporter"),
        identity_row(uuid="2", exporter="nvitop-exporter"),
        identity_row(uuid="2", exporter="nvitop-exporter", instance="b"),  # twice the same one
        identity_row(exporter="nvitop-exporter"),
    )
    assert find_duplicate_gpus(GpuInventory(rows)) == {"1": ("dcgm-exporter", "nvitop-exporter")}
    assert find_duplicate_gpus(GpuInventory((), rows)) == {}


@pytest.mark.parametrize(
    ("owners", "jobs"),
    [
        ([{"uuid": "1", "training_job": "llm", "owner_pod": "p", "owner_namespace": "n"}], {"1": "llm"}),
        ([{"uuid": "1", "owner_pod": "p", "owner_namespace": "n"}], {"1": "n/p"}),
        ([{"uuid": "1", "owner_unit": "u", "owner_container": "c"}], {"1": "u"}),
        ([{"uuid": "1", "owner_container": "c"}], {"1": "c"}),
        ([{"uuid": "1", "training_job": "", "owner_unit": "u"}], {"1": "u"}),
        ([{"uuid": "1", "owner_unit": "u"}, {"uuid": "1", "owner_unit": "v"}], {}),  # shared
        ([{"uuid": "1", "owner_unit": "u", "pid": "1"}, {"uuid": "1", "owner_unit": "u", "pid": "2"}], {"1": "u"}),
        ([{"uuid": "1"}, {"owner_unit": "u"}], {}),
    ],
)
def test_a_gpu_has_a_job_if_one_owner_has_it(owners: Sequence[dict[str, str]], jobs: dict[str, str]) -> None:
    assert jobs_by_gpu({labels(**owner): 1.0 for owner in owners}) == jobs


def test_targets_that_are_down_are_those_of_jobs_with_gpus() -> None:
    targets = {
        TargetKey("gpu", "b:1"): 0.0,
        TargetKey("gpu", "a:1"): 0.0,
        TargetKey("gpu", "c:1"): 1.0,
        TargetKey("web", "w:1"): 0.0,
    }
    assert find_down_targets(targets, [HERE]) == ("a:1", "b:1")
    assert find_down_targets(targets, []) == ("a:1", "b:1", "w:1")


def test_a_node_is_the_first_by_address_and_needs_name_and_address() -> None:
    rows = [
        identity_row(nodename="n", instance="b:1"),
        identity_row(nodename="n", instance="a:1"),
        identity_row(nodename="m", instance="c:1"),
        identity_row(nodename="x"),
        identity_row(instance="d:1"),
        identity_row(nodename="", instance="e:1"),
    ]
    assert build_nodes(rows) == (Node("m", "c:1"), Node("n", "a:1"))


# Expressions

OWN, DCGM, RECORDED = (
    ExporterDialect(next(each for each in mappings() if each.name == name), interval_seconds=interval)
    for name, interval in (("gpu-exporter", None), ("dcgm-exporter", 30.0), (RECORDED_SERIES, None))
)
CPU = next(ExporterDialect(each) for each in mappings() if each.scope == "node")


@given(st.sampled_from([None, 1.0, 15.0, 24.0, 25.0, 60.0]))
def test_a_step_is_read_over_two_scrapes_at_least(interval: float | None) -> None:
    evaluation = Settings.model_validate({"evaluation": {"step_seconds": 60}}).evaluation
    expression = step_utilization([ExporterDialect(OWN.mapping, interval_seconds=interval)], evaluation.step_seconds)
    assert expression is not None
    window = max(60, -(-5 * int(interval or 0) // 2))
    alone = OWN.expression("gpu_utilization", "mean", window)
    assert alone is not None
    assert to_promql(expression) == to_promql(alone)


def test_the_history_is_read_from_exporters_of_gpus_and_not_from_recorded_series() -> None:
    evaluation = Settings().evaluation
    both = step_utilization([RECORDED, OWN, CPU, DCGM], evaluation.step_seconds)
    assert both == step_utilization([OWN, DCGM], evaluation.step_seconds)
    assert both is not None
    assert both != step_utilization([OWN], evaluation.step_seconds)
    assert step_utilization([RECORDED, CPU], evaluation.step_seconds) is None
    assert step_utilization([], evaluation.step_seconds) is None


def test_nodes_behind_one_address_have_no_host_metrics() -> None:
    """Behind a proxy, what is read by the address may be of either; the same address in another cluster is another."""
    shared = [Node("n1", "proxy:9290"), Node("n2", "proxy:9290")]
    alone = [Node("n3", "n3:9100"), Node("east/n1", "proxy:9290", "east")]
    found = nodes_by_address([*shared, *alone])
    assert found == {("", "n3:9100"): "n3", ("east", "proxy:9290"): "east/n1"}
    message = explain_unmatched_hosts(GpuInventory(), [*shared, *alone])
    assert "n1, n2 have one instance, proxy:9290" in message
    assert "relabeling" in message
    assert explain_unmatched_hosts(GpuInventory(), alone) == ""


def test_recorded_series_of_a_long_window_stand_for_the_raw_ones_of_later_exporters() -> None:
    day = signals.DAILY_PEAK_UTILIZATION.name
    before = compile_by_exporter(lambda _: [OWN, RECORDED, DCGM], Settings())
    after = compile_by_exporter(lambda _: [RECORDED, OWN, DCGM], Settings())
    assert list(before[signals.UTILIZATION.name]) == ["gpu-exporter", "dcgm-exporter"]
    assert list(after[signals.UTILIZATION.name]) == ["gpu-exporter", "dcgm-exporter"]
    assert list(after[day]) == [RECORDED_SERIES]
    assert signals.NODE_CPU.name not in before
    assert signals.NODE_CPU.name in compile_by_exporter(lambda _: [OWN, CPU], Settings())


@pytest.mark.parametrize(("hours", "names"), [(5, ["gpu-exporter", "dcgm-exporter"]), (6, [RECORDED_SERIES])])
def test_after_recorded_series_no_raw_samples_of_that_window_are_read(hours: int, names: list[str]) -> None:
    settings = Settings.model_validate({"evaluation": {"idle_window_seconds": hours * 3600}})
    found = compile_by_exporter(lambda _: [RECORDED, OWN, DCGM], settings)
    assert list(found[signals.IDLE_UTILIZATION.name]) == names
    assert list(found[signals.UTILIZATION.name]) == ["gpu-exporter", "dcgm-exporter"]


def test_two_dialects_of_one_family_are_one_expression() -> None:
    slow = ExporterDialect(DCGM.mapping, interval_seconds=60)
    found = compile_by_exporter(lambda _: [DCGM, slow], Settings())[signals.UTILIZATION_COVERAGE.name]
    assert list(found) == ["dcgm-exporter"]
    assert metrics_of(found["dcgm-exporter"])
    assert "or" in to_promql(found["dcgm-exporter"])
