"""One GPU: how much of it is used, what holds it back, who uses it, and what is recommended for it."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries

from grafana.advice import advisor_variable, recommendations
from grafana.board import cell, frame, link, marks
from grafana.panels import (
    BAD,
    GOOD,
    MIDDLING,
    column,
    lines,
    link_column,
    listing,
    number,
    one_of,
    share,
    shares,
    steps,
    target_line,
    texts,
    widths,
)
from grafana.series import GPU_TARGET, HOT_CELSIUS, MEMORY_TARGET, SINCE, advice_on

THIS = '{uuid="$uuid"}'
#: Of an answer's text, as Grafana writes it: the labels stand in the order of the alphabet.
INDEX_AND_UUID = '/index="(?<text>[^"]*)".*uuid="(?<value>[^"]*)"/'


def dashboard() -> Dashboard:
    own = advice_on(f"gpu:identity:info{THIS}")
    gpus = 'query_result(gpu:identity:info{nodename="$nodename"})'
    board = (
        frame("gpu", "GPU", "How much of one GPU is used, what holds it back, and who uses it?")
        .with_variable(one_of("nodename", "Node", "label_values(gpu:identity:info, nodename)"))
        .with_variable(one_of("uuid", "GPU", gpus, INDEX_AND_UUID))
        .with_variable(advisor_variable())
        .annotation(marks(f"{SINCE} * on (id) group_left (kind, severity, scope, alert) ({own})"))
    )
    for panel in glance():
        board = board.with_panel(panel)
    board = board.with_panel(identity()).with_panel(owners())
    board = board.with_panel(
        recommendations(
            "What is recommended for this GPU?",
            "Open recommendations about it, alone or among others, in fleets of up to 1,000 GPUs.",
            own,
        ).height(6)
    )
    board = board.with_row(Row("How much of it is used?"))
    for graph in usage():
        board = board.with_panel(graph)
    board = board.with_row(Row("What holds it back?"))
    for graph in limits():
        board = board.with_panel(graph)
    return board


def glance() -> list[Stat]:
    answers = texts({"0": ("does not answer", BAD), "1": ("answers", GOOD)})
    return [
        number(
            "Does it answer?",
            "Whether the last reading succeeded. No data where the exporter does not tell.",
            f"gpu:up:last{THIS}",
            steps(BAD, (1, GOOD)),
        ).mappings(answers),
        share(
            "How busy is it now?",
            "Share of the last 5 minutes in which a kernel ran. Green from the target of 90 % on.",
            f"gpu:utilization_ratio:mean5m{THIS}",
            GPU_TARGET,
        ),
        number(
            "How much of it works meanwhile?",
            "Share of its multiprocessors that were busy. Far below the share of time: kernels are too small or wait.",
            f"gpu:sm_activity_ratio:mean5m{THIS}",
            unit="percentunit",
        ).decimals(0),
        share(
            "How full is its memory now?",
            "Memory that processes hold, of all there is. Green from the target of 85 % on.",
            f"gpu:memory_used_ratio:last{THIS}",
            MEMORY_TARGET,
        ),
        number(
            "How hot is it now?",
            f"Temperature of the core. Red from {HOT_CELSIUS} °C on, where the alert GpuTooHot fires.",
            f"gpu:temperature_celsius:last{THIS}",
            steps(GOOD, (80, MIDDLING), (HOT_CELSIUS, BAD)),
            "celsius",
        ),
        number(
            "Errors of the last hour",
            "Errors after which the GPU needs a reset or the node a reboot. No data where the exporter does not tell "
            "of any, or none has come since it runs.",
            f"gpu:fatal_errors:increase1h{THIS}",
            steps(GOOD, (0.5, BAD)),
        ).decimals(0),
    ]


def identity() -> Table:
    panel = listing(
        "Which GPU is this?",
        "As its exporter names it. Rows that wait to be remapped, or could not be, are faulty memory.",
        [
            f"gpu:identity:info{THIS}",
            f"gpu:memory_total_bytes:last{THIS}",
            f"gpu:row_remap_pending:last{THIS}",
            f"gpu:row_remap_failed:last{THIS}",
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
    panel = column(panel, "Memory", unit="bytes")
    panel = widths(panel, {"GPU": 50, "PCI": 150, "Memory": 90, "Remap pending": 130, "Remap failed": 110})
    panel = link_column(panel, "Node", link("node", "All GPUs of this node", nodename=cell("Node")))
    return panel.span(12).height(5)


def owners() -> Table:
    panel = listing(
        "Who uses it?",
        "Owners that gpu-exporter found: pods, containers, units, users and training jobs. A click on a job shows all "
        "its GPUs. Empty if nobody uses it, or another exporter tells of it.",
        [
            "max by (owner_kind, owner_namespace, owner_pod, owner_unit, owner_user, training_job) "
            f"(gpu_owner_info{THIS})"
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
    return link_column(panel, "Job", link("jobs", "This job", training_job=cell("Job"))).span(12).height(5)


def usage() -> list[TimeSeries]:
    return [
        shares(
            "How much of the time, and how much of the GPU?",
            "Busy: share of the time in which any kernel ran. The others are shares of what the GPU could do in that "
            "time: of its multiprocessors, tensor cores and memory bandwidth. Dashed: the target of 90 % for busy. "
            "Marks: since when a recommendation is given.",
            (f"gpu:utilization_ratio:mean5m{THIS}", "busy"),
            (f"gpu:sm_activity_ratio:mean5m{THIS}", "multiprocessors"),
            (f"gpu:tensor_activity_ratio:mean5m{THIS}", "tensor cores"),
            (f"gpu:dram_activity_ratio:mean5m{THIS}", "memory bandwidth"),
            target=GPU_TARGET,
        ),
        shares(
            "How full is its memory?",
            "Memory that processes hold, of all there is. Dashed: the target of 85 %. Memory to spare allows larger "
            "batches.",
            (f"gpu:memory_used_ratio:last{THIS}", "memory held"),
            target=MEMORY_TARGET,
        ),
        lines(
            "How much does it exchange over PCIe?",
            "Bytes a second to and from the host. Much, while it is not busy: it waits for data.",
            "Bps",
            (f"gpu:pcie_receive_bytes_per_second:rate5m{THIS}", "received"),
            (f"gpu:pcie_transmit_bytes_per_second:rate5m{THIS}", "sent"),
        ),
        lines(
            "How much does it exchange over NVLink?",
            "Bytes a second received from other GPUs.",
            "Bps",
            (f"gpu:nvlink_receive_bytes_per_second:rate5m{THIS}", "received"),
        ),
    ]


def limits() -> list[TimeSeries]:
    return [
        shares(
            "How much of the time is it held back, and why?",
            "Share of the time in which clocks were held down. The power limit at work is normal under full load; "
            "heat and the supply are not.",
            (f"gpu:throttle_hw_thermal_ratio:rate5m{THIS}", "heat (hardware)"),
            (f"gpu:throttle_sw_thermal_ratio:rate5m{THIS}", "heat (driver)"),
            (f"gpu:throttle_power_brake_ratio:rate5m{THIS}", "supply"),
            (f"gpu:throttle_power_cap_ratio:rate5m{THIS}", "power limit"),
        ),
        lines(
            "How near is it to its power limit?",
            "Power of the whole board, and the limit in force.",
            "watt",
            (f"gpu:power_watts:last{THIS}", "drawn"),
            (f"gpu:power_limit_watts:last{THIS}", "limit"),
        ),
        target_line(
            lines(
                "How hot is it?",
                f"Temperature of the core. Dashed: {HOT_CELSIUS} °C, where the alert GpuTooHot fires.",
                "celsius",
                (f"gpu:temperature_celsius:last{THIS}", "core"),
            ),
            HOT_CELSIUS,
            BAD,
        ),
        lines(
            "How fast are its clocks?",
            "Clock of the multiprocessors, and their highest. Idle GPUs lower it on purpose.",
            "hertz",
            (f"gpu:sm_clock_hertz:last{THIS}", "now"),
            (f"gpu:sm_clock_max_hertz:last{THIS}", "highest"),
        ),
    ]
