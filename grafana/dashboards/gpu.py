"""One GPU: how much of it is used, what holds it back, who uses it, and what is recommended for it."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advisor_panels import advisor_variable, recommendations_table
from grafana.dashboard_frame import cell_value, link, new_dashboard, recommendation_annotations
from grafana.panels import (
    BAD,
    GOOD,
    WARNING,
    add_column_links,
    add_target_line,
    override_column,
    ratio_panel,
    ratio_timeseries_panel,
    set_column_widths,
    single_value_variable,
    stat_panel,
    steps,
    table_panel,
    timeseries_panel,
    value_mappings,
)
from grafana.queries import GPU_TARGET, HOT_CELSIUS, MEMORY_TARGET, RECOMMENDED_SINCE, recommendations_for_gpus

THIS_GPU = '{uuid="$uuid"}'
#: Of an answer's text, as Grafana writes it: the labels stand in the order of the alphabet.
INDEX_AND_UUID = '/index="(?<text>[^"]*)".*uuid="(?<value>[^"]*)"/'


def dashboard() -> Dashboard:
    own = recommendations_for_gpus(f"gpu:identity:info{THIS_GPU}")
    gpus = 'query_result(gpu:identity:info{nodename="$nodename"})'
    board = (
        new_dashboard("gpu", "GPU", "How much of one GPU is used, what holds it back, and who uses it?")
        .with_variable(single_value_variable("nodename", "Node", "label_values(gpu:identity:info, nodename)"))
        .with_variable(single_value_variable("uuid", "GPU", gpus, INDEX_AND_UUID))
        .with_variable(advisor_variable())
        .annotation(
            recommendation_annotations(
                f"{RECOMMENDED_SINCE} * on (id) group_left (kind, severity, scope, alert) ({own})"
            )
        )
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(identity()).with_panel(owners())
    board = board.with_panel(
        recommendations_table(
            "What is recommended for this GPU?",
            "Open recommendations about it, alone or among others, in fleets of up to 1,000 GPUs.",
            own,
        ).height(6)
    )
    board = board.with_row(Row("How much of it is used?"))
    for graph in usage():
        board = board.with_panel(graph)
    board = board.with_row(Row("What holds it back?"))
    for graph in throttling():
        board = board.with_panel(graph)
    return board


def glance() -> list[Stat]:
    answers = value_mappings({"0": ("does not answer", BAD), "1": ("answers", GOOD)})
    return [
        stat_panel(
            "Does it answer?",
            "Whether the last reading succeeded. No data where the exporter does not tell.",
            f"gpu:up:last{THIS_GPU}",
            steps(BAD, (1, GOOD)),
        ).mappings(answers),
        ratio_panel(
            "How busy is it now?",
            "Share of the last 5 minutes in which a kernel ran. Green from the target of 90 % on.",
            f"gpu:utilization_ratio:mean5m{THIS_GPU}",
            GPU_TARGET,
        ),
        stat_panel(
            "How much of it works meanwhile?",
            "Share of its multiprocessors that were busy. Far below the share of time: kernels are too small or wait.",
            f"gpu:sm_activity_ratio:mean5m{THIS_GPU}",
            unit="percentunit",
        ).decimals(0),
        ratio_panel(
            "How full is its memory now?",
            "Memory that processes hold, of all there is. Green from the target of 85 % on.",
            f"gpu:memory_used_ratio:last{THIS_GPU}",
            MEMORY_TARGET,
        ),
        stat_panel(
            "How hot is it now?",
            f"Temperature of the core. Red from {HOT_CELSIUS} °C on, where the alert GpuTooHot fires.",
            f"gpu:temperature_celsius:last{THIS_GPU}",
            steps(GOOD, (80, WARNING), (HOT_CELSIUS, BAD)),
            "celsius",
        ),
        stat_panel(
            "Errors of the last hour",
            "Errors after which the GPU needs a reset or the node a reboot. No data where the exporter does not tell "
            "of any, or none has come since it runs.",
            f"gpu:fatal_errors:increase1h{THIS_GPU}",
            steps(GOOD, (0.5, BAD)),
        ).decimals(0),
    ]


def identity() -> Table:
    panel = table_panel(
        "Which GPU is this?",
        "As its exporter names it. Rows that wait to be remapped, or could not be, are faulty memory.",
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
            "mig_profile": "Slice",
            "Value #B": "Memory",
            "Value #C": "Remap pending",
            "Value #D": "Remap failed",
        },
        wanted="index",
    )
    panel = override_column(panel, "Memory", unit="bytes")
    panel = set_column_widths(panel, {"GPU": 50, "PCI": 150, "Memory": 90, "Remap pending": 130, "Remap failed": 110})
    panel = add_column_links(panel, "Node", link("node", "All GPUs of this node", nodename=cell_value("Node")))
    return panel.span(12).height(5)


def owners() -> Table:
    panel = table_panel(
        "Who uses it?",
        "Owners that gpu-exporter found: pods, containers, units, users and training jobs. A click on a job shows all "
        "its GPUs. Empty if nobody uses it, or another exporter tells of it.",
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
    return add_column_links(panel, "Job", link("jobs", "This job", training_job=cell_value("Job"))).span(12).height(5)


def usage() -> list[TimeSeries]:
    return [
        ratio_timeseries_panel(
            "How much of the time, and how much of the GPU?",
            "Busy: share of the time in which any kernel ran. The others are shares of what the GPU could do in that "
            "time: of its multiprocessors, tensor cores and memory bandwidth. Dashed: the target of 90 % for busy. "
            "Marks: since when a recommendation is given.",
            (f"gpu:utilization_ratio:mean5m{THIS_GPU}", "busy"),
            (f"gpu:sm_activity_ratio:mean5m{THIS_GPU}", "multiprocessors"),
            (f"gpu:tensor_activity_ratio:mean5m{THIS_GPU}", "tensor cores"),
            (f"gpu:dram_activity_ratio:mean5m{THIS_GPU}", "memory bandwidth"),
            target=GPU_TARGET,
        ),
        ratio_timeseries_panel(
            "How full is its memory?",
            "Memory that processes hold, of all there is. Dashed: the target of 85 %. Memory to spare allows larger "
            "batches.",
            (f"gpu:memory_used_ratio:last{THIS_GPU}", "memory held"),
            target=MEMORY_TARGET,
        ),
        timeseries_panel(
            "How much does it exchange over PCIe?",
            "Bytes a second to and from the host. Much, while it is not busy: it waits for data.",
            "Bps",
            (f"gpu:pcie_receive_bytes_per_second:rate5m{THIS_GPU}", "received"),
            (f"gpu:pcie_transmit_bytes_per_second:rate5m{THIS_GPU}", "sent"),
        ),
        timeseries_panel(
            "How much does it exchange over NVLink?",
            "Bytes a second received from other GPUs.",
            "Bps",
            (f"gpu:nvlink_receive_bytes_per_second:rate5m{THIS_GPU}", "received"),
        ),
    ]


def throttling() -> list[TimeSeries]:
    return [
        ratio_timeseries_panel(
            "How much of the time is it held back, and why?",
            "Share of the time in which clocks were held down. The power limit at work is normal under full load; "
            "heat and the supply are not.",
            (f"gpu:throttle_hw_thermal_ratio:rate5m{THIS_GPU}", "heat (hardware)"),
            (f"gpu:throttle_sw_thermal_ratio:rate5m{THIS_GPU}", "heat (driver)"),
            (f"gpu:throttle_power_brake_ratio:rate5m{THIS_GPU}", "supply"),
            (f"gpu:throttle_power_cap_ratio:rate5m{THIS_GPU}", "power limit"),
        ),
        timeseries_panel(
            "How near is it to its power limit?",
            "Power of the whole board, and the limit in force.",
            "watt",
            (f"gpu:power_watts:last{THIS_GPU}", "drawn"),
            (f"gpu:power_limit_watts:last{THIS_GPU}", "limit"),
        ),
        add_target_line(
            timeseries_panel(
                "How hot is it?",
                f"Temperature of the core. Dashed: {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
                "celsius",
                (f"gpu:temperature_celsius:last{THIS_GPU}", "core"),
            ),
            HOT_CELSIUS,
            BAD,
        ),
        timeseries_panel(
            "How fast are its clocks?",
            "Clock of the multiprocessors, and their highest. Idle GPUs lower it on purpose.",
            "hertz",
            (f"gpu:sm_clock_hertz:last{THIS_GPU}", "now"),
            (f"gpu:sm_clock_max_hertz:last{THIS_GPU}", "highest"),
        ),
    ]
