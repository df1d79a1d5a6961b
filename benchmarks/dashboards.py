"""The cost of the dashboards' queries to a Prometheus with a large fleet.

    python -m benchmarks.dashboards --gpus 1000

A real Prometheus has the canonical series of the fleet, its owners and the advisor's metrics. Each query of the
checked-in dashboards, with all variables set to All, alternates with an instant query of
`gpu:utilization_ratio:mean5m` for all GPUs, so that both have the same machine. Range queries are also sent as Grafana
does, over the dashboard's time range, beside a range query of one recorded series per node.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import requests

from benchmarks import common
from tests.preview.dashboard_queries import DashboardQuery, all_selected, load_dashboards, queries, substitute_variables
from tests.servers import create_blocks, prometheus

END = 1_795_003_200.0
BASELINE_QUERY = "gpu:utilization_ratio:mean5m"
MAX_RATIO = 5.0
GPUS_PER_NODE = 8
MODELS = ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L4", "NVIDIA H200")
POINTS_PER_GRAPH = 360

#: Series of each GPU with a value that is the same all the time.
GPU_RECORDS = {
    "gpu:up:last": 1, BASELINE_QUERY: 0.7, "gpu:memory_used_ratio:last": 0.6, "gpu:memory_total_bytes:last": 8e10,
    "gpu:processes:last": 1, "gpu:temperature_celsius:last": 61, "gpu:power_watts:last": 400,
    "gpu:power_limit_watts:last": 700, "gpu:sm_clock_hertz:last": 1.9e9, "gpu:sm_clock_max_hertz:last": 2e9,
    "gpu:sm_activity_ratio:mean5m": 0.5, "gpu:tensor_activity_ratio:mean5m": 0.2,
    "gpu:dram_activity_ratio:mean5m": 0.3, "gpu:throttle_hw_thermal_ratio:rate5m": 0,
    "gpu:throttle_sw_thermal_ratio:rate5m": 0, "gpu:throttle_power_brake_ratio:rate5m": 0,
    "gpu:throttle_power_cap_ratio:rate5m": 0.1, "gpu:pcie_receive_bytes_per_second:rate5m": 1e9,
    "gpu:pcie_transmit_bytes_per_second:rate5m": 1e8, "gpu:nvlink_receive_bytes_per_second:rate5m": 1e10,
    "gpu:row_remap_failed:last": 0, "gpu:row_remap_pending:last": 0, "gpu:fatal_errors:increase1h": 0,
}  # fmt: skip
HOST_RECORDS = {
    "gpus:count": 8, "gpus_down:sum": 0, "gpus_measured:count": 8, "gpus_busy:mean5m": 5.6,
    "gpus_below_1_percent:sum": 1, "gpus_below_60_percent:sum": 2, "gpus_below_90_percent:sum": 8,
    "gpu_memory_used_bytes:sum": 4e11, "gpu_memory_total_bytes:sum": 6.4e11, "gpu_power_watts:sum": 3200,
    "gpus_idle:sum30m": 0.5, "gpus_idle_holding:sum30m": 0.2,
}  # fmt: skip
OWNER_RECORDS = {"gpus:count": 1, "gpus_measured:count": 1, "gpus_busy:mean5m": 0.7, "gpu_memory_used_ratio:sum": 0.6,
    "gpu_memory_used_ratio:count": 1,
}  # fmt: skip
NODE_RECORDS = (
    "cpu_ratio:mean5m", "memory_used_ratio:last", "io_pressure_ratio:rate5m", "disk_busy_ratio:rate5m",
    "network_receive_ratio:rate5m", "network_transmit_ratio:rate5m",
)  # fmt: skip


@dataclass(frozen=True)
class QueryCost:
    """One query's time beside that of the one series, in seconds; medians."""

    query: str
    seconds: float
    baseline_seconds: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.baseline_seconds


def fleet(gpus: int, hours: float, curves: bool) -> Iterator[str]:
    """OpenMetrics lines. Series of GPUs are there for the last 5 minutes, with `curves` for all of the time."""
    hosts = [END - 60 * i for i in reversed(range(int(hours * 60)))]
    recent = hosts if curves else hosts[-5:]
    names = [f"node-{i:04}" for i in range(max(1, gpus // GPUS_PER_NODE))]
    for i in range(gpus):
        node, model, uuid = names[i // GPUS_PER_NODE % len(names)], MODELS[i // 80 % len(MODELS)], f"GPU-{i:06}"
        who = f'uuid="{uuid}",index="{i % GPUS_PER_NODE}",name="{model}",vendor="nvidia",nodename="{node}"'
        owner = f'uuid="{uuid}",owner_kind="pod",owner_namespace="n{i % 20}",owner_pod="p{i}",training_job="j{i // 16}"'
        yield from _constant_series("gpu:identity:info", who, 1, recent)
        yield from _constant_series("gpu_owner_info", owner, 1, recent)
        for name, value in OWNER_RECORDS.items():
            yield from _constant_series(f"owner:{name}", owner.split(",", 1)[1], value, recent)
        yield from _constant_series("gpu:idle:mean30m", f'uuid="{uuid}"', i % 16 == 0, recent)
        for name, value in GPU_RECORDS.items():
            yield from _constant_series(name, f'uuid="{uuid}"', value, recent)
    for i, node in enumerate(names):
        model = MODELS[i // 10 % len(MODELS)]
        yield from _constant_series("node:identity:info", f'instance="{node}:9100",nodename="{node}"', 1, hosts)
        for name in NODE_RECORDS:
            yield from _constant_series(f"node:{name}", f'instance="{node}:9100"', 0.4, hosts)
        for name, value in HOST_RECORDS.items():
            yield from _constant_series(f"host:{name}", f'nodename="{node}",name="{model}"', value, hosts)
    for model in MODELS:
        price = f'name="{model}",currency="USD",estimated="false"'
        yield from _constant_series("gpu_advisor_gpu_price_per_hour", price, 2, hosts)
        for name, value in HOST_RECORDS.items():
            yield from _constant_series(f"model:{name}", f'name="{model}"', value * len(names) / len(MODELS), hosts)
    yield from _team_series(gpus, hosts)
    yield from _recommendation_series(gpus, hosts)


def _team_series(gpus: int, times: Sequence[float]) -> Iterator[str]:
    """Twenty namespaces of five teams."""
    for i in range(20):
        labels = f'team="team {i % 5}",namespace="n{i}"'
        for state, share in (("all", 1.0), ("measured", 1.0), ("busy", 0.7)):
            value = share * gpus / 20
            yield from _constant_series("gpu_advisor_team_gpus", f'{labels},state="{state}"', value, times)
        money = f'{labels},currency="USD",estimated="false"'
        yield from _constant_series("gpu_advisor_team_unused_cost_per_hour", money, 0.3 * gpus / 20 * 2, times)


def _recommendation_series(gpus: int, times: Sequence[float]) -> Iterator[str]:
    for i in range(max(1, gpus // 20)):
        labels = f'id="{i}",kind="k{i % 15}",scope_kind="gpu",scope="GPU-{i:06}",severity="info",alert="A{i % 15}"'
        yield from _constant_series("gpu_advisor_recommendation_info", labels, 1, times)
        yield from _constant_series("gpu_advisor_recommendation_since_timestamp_seconds", f'id="{i}"', END - 900, times)
        yield from _constant_series("gpu_advisor_recommendation_gpus", f'id="{i}"', 20, times[-5:])
        saved = f'id="{i}",currency="USD",estimated="false",bound="exact"'
        yield from _constant_series("gpu_advisor_recommendation_savings_per_hour", saved, 2, times)
        for k in range(20):
            about = f'id="{i}",uuid="GPU-{(20 * i + k) % gpus:06}"'
            yield from _constant_series("gpu_advisor_recommendation_gpu_info", about, 1, times[-5:])
    for i in range(gpus):
        for item in ("gpu_utilization", "gpu_memory"):
            check = f'item="{item}",scope_kind="gpu",scope="GPU-{i:06}"'
            yield from _constant_series("gpu_advisor_check_status", f'{check},status="missed"', 1, times[-5:])
            yield from _constant_series("gpu_advisor_check_value_ratio", check, 0.5, times[-5:])
    yield from _constant_series("gpu_advisor_source_up", 'source="prometheus"', 1, times)


def _constant_series(name: str, labels: str, value: float, times: Sequence[float]) -> Iterator[str]:
    return (f"{name}{{{labels}}} {float(value)} {at:.0f}\n" for at in times)


def asked(range_text: str) -> Iterator[tuple[DashboardQuery, str]]:
    """Each query with everything chosen, as it is sent; those that several panels have once."""
    single = {"nodename": "node-0000", "uuid": "GPU-000000"}
    values = {name: all_selected(board, single) for name, board in load_dashboards().items()}
    fixed = {"__range": range_text, "__rate_interval": "2m"}
    every = ((query, substitute_variables(query.expr, {**values[query.dashboard], **fixed})) for query in queries())
    yield from {text: (query, text) for query, text in every}.values()


def cost(
    url: str, session: requests.Session, query: str, name: str, repeats: int, span_seconds: float = 0
) -> QueryCost:
    """In turn with the one series; with a span, both as curves."""
    one = "sum by (nodename) (host:gpus_busy:mean5m)" if span_seconds else BASELINE_QUERY
    ours, beside = [], []
    for _ in range(repeats):
        beside.append(_time_call(lambda: _query(session, url, one, span_seconds)))
        ours.append(_time_call(lambda: _query(session, url, query, span_seconds)))
    return QueryCost(name, median(ours), median(beside))


def _query(session: requests.Session, url: str, query: str, span_seconds: float) -> None:
    form = {"query": query, "time": str(END)}
    path = "query"
    if span_seconds:
        step = max(60, span_seconds / POINTS_PER_GRAPH)
        form = {"query": query, "start": str(END - span_seconds), "end": str(END), "step": str(step)}
        path = "query_range"
    answer = session.post(f"{url}/api/v1/{path}", data=form, timeout=60)
    if answer.status_code != 200:
        raise RuntimeError(f"{query}: {answer.text[:500]}")


def _time_call(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _row(cost: QueryCost) -> list[str]:
    return [cost.query, f"{1e3 * cost.seconds:.1f}", f"{1e3 * cost.baseline_seconds:.1f}", f"{cost.ratio:.2f}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--hours", type=float, default=24.0, help="length of the past")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "past.txt").open("w") as file:
            file.writelines(fleet(options.gpus, options.hours, False))
            file.write("# EOF\n")
        create_blocks(folder / "past.txt", folder / "blocks")
        with prometheus(folder, blocks=folder / "blocks") as server, requests.Session() as session:
            every = [(str(query), text, query.instant) for query, text in asked("24h")]
            now = [cost(server.url, session, text, name, options.repeats) for name, text, _ in every]
            curves = [
                cost(server.url, session, text, name, options.repeats, 3 * 3600)
                for name, text, instant in every
                if not instant
            ]
    worst = sorted(now, key=lambda each: -each.ratio)
    slowest = sorted(curves, key=lambda each: -each.seconds)
    for title, costs in (("as instant queries", worst), ("as curves of 3 h", slowest)):
        print(common.table([[title, "ms", "beside it, ms", "ratio"], *map(_row, costs[:15])]), end="\n\n")
    goal = common.Goal(
        f"no query takes more than {MAX_RATIO:g} times an instant query of one recorded series",
        worst[0].ratio <= MAX_RATIO, f"{worst[0].ratio:.2f}: {worst[0].query}",
    )  # fmt: skip
    print(goal)
    common.write("dashboards", {
        "gpus": options.gpus, "hours": options.hours, "queries": len(now),
        "instant": [{**asdict(c), "ratio": c.ratio} for c in worst],
        "curves of 3 h": [{**asdict(c), "ratio": c.ratio} for c in slowest],
    })  # fmt: skip
    return 1 if common.missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
