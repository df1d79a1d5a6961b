"""One GPU: utilization, throttling, owners and recommendations."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana import panels
from grafana.advisor_panels import advisor_variable, recommendations_table
from grafana.dashboard_frame import cell_value, dashboard_link, new_dashboard, recommendation_annotations
from grafana.queries import GPU_TARGET, HOT_CELSIUS, MEMORY_TARGET, NODES, RECOMMENDED_SINCE, recommendations_for_gpus

THIS_GPU = '{uuid="$uuid"}'
#: Parses a query result as Grafana formats it, with labels in alphabetical order.
INDEX_AND_UUID = '/index="(?<text>[^"]*)".*uuid="(?<value>[^"]*)"/'


def dashboard() -> Dashboard:
    own = recommendations_for_gpus(f"gpu:identity:info{THIS_GPU}")
    gpus = 'query_result(gpu:identity:info{cluster=~"$cluster", nodename="$nodename"})'
    board = (
        new_dashboard("gpu", "GPU", "How much of one GPU is used, what limits it, and who uses it?")
        .with_variable(panels.cluster_variable())
        .with_variable(panels.single_value_variable("nodename", "Node", NODES))
        .with_variable(panels.single_value_variable("uuid", "GPU", gpus, INDEX_AND_UUID))
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) ({own})"
            )
        )
    )
    for panel in overview():
        board = board.with_panel(panel)
    board = board.with_panel(identity()).with_panel(owners())
    board = board.with_panel(
        recommendations_table(
            "Recommendations for this GPU",
            "Open recommendations that concern this GPU, in fleets of up to 1,000 GPUs.",
            own,
        ).height(6)
    )
    board = board.with_row(Row("Utilization"))
    for graph in usage():
        board = board.with_panel(graph)
    board = board.with_row(Row("Throttling, power and temperature"))
    for graph in throttling():
        board = board.with_panel(graph)
    return board


def overview() -> list[Stat]:
    states = panels.value_mappings({"0": ("down", panels.BAD), "1": ("up", panels.GOOD)})
    return [
        panels.stat_panel(
            "Status",
            "Whether the last reading succeeded. No data if the exporter does not report it.",
            f"gpu:up:last{THIS_GPU}",
            panels.threshold_steps(panels.BAD, (1, panels.GOOD)),
        ).mappings(states),
        panels.ratio_panel(
            "GPU utilization",
            "Ratio of the last 5 minutes in which a kernel ran. Green from the target of 90 %.",
            f"gpu:utilization_ratio:mean5m{THIS_GPU}",
            GPU_TARGET,
        ),
        panels.stat_panel(
            "SM activity",
            "Ratio of busy SMs. Far below the utilization, kernels are too small or waiting.",
            f"gpu:sm_activity_ratio:mean5m{THIS_GPU}",
            unit="percentunit",
        ).decimals(0),
        panels.memory_panel(
            "Memory used",
            "Ratio of GPU memory in use. Green around the target: 80 to 90 %. Red from 95 %.",
            f"gpu:memory_used_ratio:last{THIS_GPU}",
        ),
        panels.stat_panel(
            "Temperature",
            f"Core temperature. Red from {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
            f"gpu:temperature_celsius:last{THIS_GPU}",
            panels.threshold_steps(panels.GOOD, (80, panels.WARNING), (HOT_CELSIUS, panels.BAD)),
            "celsius",
        ),
        panels.stat_panel(
            "Fatal errors in the last hour",
            "Errors that require a GPU reset or a reboot. No data if the exporter does not report them, or has none.",
            f"gpu:fatal_errors:increase1h{THIS_GPU}",
            panels.threshold_steps(panels.GOOD, (0.5, panels.BAD)),
        ).decimals(0),
    ]


def identity() -> Table:
    panel = panels.table_panel(
        "Identity",
        "From the exporter. Memory rows whose remapping is pending or failed are faulty.",
        [
            f"gpu:identity:info{THIS_GPU}",
            f"gpu:memory_total_bytes:last{THIS_GPU}",
            f"gpu:row_remap_pending:last{THIS_GPU}",
            f"gpu:row_remap_failed:last{THIS_GPU}",
        ],
        {
            "nodename": "Node",
            "index": "GPU",
            "name": "Model",
            "pci_bus_id": "PCI",
            "mig_profile": "MIG profile",
            "Value #B": "Memory",
            "Value #C": "Remap pending",
            "Value #D": "Remap failed",
        },
        wanted="index",
    )
    panel = panels.override_column(panel, "Memory", unit="bytes")
    panel = panels.set_column_widths(
        panel, {"GPU": 50, "PCI": 150, "Memory": 90, "Remap pending": 130, "Remap failed": 110}
    )
    panel = panels.add_column_links(
        panel, "Node", dashboard_link("node", "All GPUs of this node", nodename=cell_value("Node"))
    )
    return panel.span(12).height(5)


def owners() -> Table:
    panel = panels.table_panel(
        "Owners",
        "Pods, containers, systemd units, users and training jobs found by gpu-exporter. Click a job to see all its "
        "GPUs. Empty if nobody uses the GPU, or another exporter reports it.",
        [
            "max by (owner_kind, owner_namespace, owner_pod, owner_unit, owner_user, training_job) "
            f"(gpu_owner_info{THIS_GPU})"
        ],
        {
            "owner_kind": "Kind",
            "owner_namespace": "Namespace",
            "owner_pod": "Pod",
            "owner_unit": "Unit",
            "owner_user": "User",
            "training_job": "Job",
        },
    )
    return (
        panels.add_column_links(panel, "Job", dashboard_link("jobs", "This job", training_job=cell_value("Job")))
        .span(12)
        .height(5)
    )


def usage() -> list[TimeSeries]:
    return [
        panels.ratio_timeseries_panel(
            "Utilization and activity",
            "Utilization: ratio of time in which any kernel ran. The others are ratios of the GPU's capacity: SMs, "
            "tensor cores and memory bandwidth. Dashed: the utilization target of 90 %. Annotations: starts of "
            "recommendations.",
            (f"gpu:utilization_ratio:mean5m{THIS_GPU}", "utilization"),
            (f"gpu:sm_activity_ratio:mean5m{THIS_GPU}", "SMs"),
            (f"gpu:tensor_activity_ratio:mean5m{THIS_GPU}", "tensor cores"),
            (f"gpu:dram_activity_ratio:mean5m{THIS_GPU}", "memory bandwidth"),
            target=GPU_TARGET,
        ),
        panels.ratio_timeseries_panel(
            "Memory used over time",
            "Ratio of GPU memory in use. Dashed: the target of 85 %. Free memory allows larger batches.",
            (f"gpu:memory_used_ratio:last{THIS_GPU}", "memory used"),
            target=MEMORY_TARGET,
        ),
        panels.timeseries_panel(
            "PCIe throughput",
            "Bytes per second to and from the host. High while utilization is low: the GPU waits for data.",
            "Bps",
            (f"gpu:pcie_receive_bytes_per_second:rate5m{THIS_GPU}", "received"),
            (f"gpu:pcie_transmit_bytes_per_second:rate5m{THIS_GPU}", "sent"),
        ),
        panels.timeseries_panel(
            "NVLink throughput",
            "Bytes per second received from other GPUs.",
            "Bps",
            (f"gpu:nvlink_receive_bytes_per_second:rate5m{THIS_GPU}", "received"),
        ),
    ]


def throttling() -> list[TimeSeries]:
    return [
        panels.ratio_timeseries_panel(
            "Throttling by reason",
            "Ratio of time throttled. The power cap is normal under full load; heat and the power brake are not.",
            (f"gpu:throttle_hw_thermal_ratio:rate5m{THIS_GPU}", "heat (hardware)"),
            (f"gpu:throttle_sw_thermal_ratio:rate5m{THIS_GPU}", "heat (driver)"),
            (f"gpu:throttle_power_brake_ratio:rate5m{THIS_GPU}", "power brake"),
            (f"gpu:throttle_power_cap_ratio:rate5m{THIS_GPU}", "power cap"),
        ),
        panels.timeseries_panel(
            "Power draw and limit",
            "Power draw of the board, and the enforced limit.",
            "watt",
            (f"gpu:power_watts:last{THIS_GPU}", "draw"),
            (f"gpu:power_limit_watts:last{THIS_GPU}", "limit"),
        ),
        panels.add_target_line(
            panels.timeseries_panel(
                "Temperature over time",
                f"Core temperature. Dashed: {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
                "celsius",
                (f"gpu:temperature_celsius:last{THIS_GPU}", "core"),
            ),
            HOT_CELSIUS,
            panels.BAD,
        ),
        panels.timeseries_panel(
            "SM clock",
            "Current and maximum SM clock. Idle GPUs lower their clock.",
            "hertz",
            (f"gpu:sm_clock_hertz:last{THIS_GPU}", "current"),
            (f"gpu:sm_clock_max_hertz:last{THIS_GPU}", "maximum"),
        ),
    ]
