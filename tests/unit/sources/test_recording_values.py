"""What the rules of another exporter record, by promtool: whatever the scrape interval, the pods, the copies."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from gpu_advisor.sources.exporters.recording_rules import render_rules

from tests.servers import require_binary

pytestmark = pytest.mark.servers

#: Minutes of data, and when results are asked for: the first hourly rules ran ten minutes before.
MINUTES, AT = 75, 70
RECORD = r"\b\w+:\w+:\w+\b"
DCGM = 'gpu="0",UUID="GPU-6d5c",modelName="H100",Hostname="n1"'
TARGET = 'job="dcgm",instance="10.0.0.1:9400"'
UP = f"up{{{TARGET}}}"
UTILIZATION = f"DCGM_FI_DEV_GPU_UTIL{{{DCGM},{TARGET}}}"


@dataclass(frozen=True)
class RecordedCase:
    """Series by name, in promtool's notation, scraped every `interval` seconds; results after AT minutes."""

    interval: int
    series: dict[str, str]
    expected: dict[str, list[tuple[str, float]]]


def samples(interval: int, minutes: float) -> int:
    return round(minutes * 60 / interval)


def constant(value: float, interval: int, minutes: float = MINUTES) -> str:
    return f"{value:g}x{samples(interval, minutes)}"


def gpu(uuid: str = "GPU-6d5c", extra: str = "") -> list[tuple[str, float]]:
    return [(f'{{uuid="{uuid}"{extra}}}', 1.0)]


def idle_at(interval: int) -> RecordedCase:
    return RecordedCase(
        interval,
        {UP: constant(1, interval), UTILIZATION: constant(0, interval)},
        {
            "round(gpu:utilization_coverage_ratio:mean30m, 0.1)": gpu(),
            "round(gpu:utilization_coverage_ratio:mean1h, 0.1)": gpu(),
            "gpu:idle:mean30m": gpu(),
            "host:gpus_idle:sum30m": [('{nodename="n1",name="H100"}', 1.0)],
        },
    )


def series_of(pods: int, interval: int) -> dict[str, str]:
    """The GPU held by one pod after the other, ten minutes each, busy in every second."""
    found = {UP: constant(1, interval)}
    each = samples(interval, 10)
    for pod in range(pods):
        before = f"_x{pod * each} " if pod else ""
        name = f'DCGM_FI_DEV_GPU_UTIL{{{DCGM},pod="p{pod}",{TARGET}}}'
        found[name] = f"{before}{100 if pod % 2 else 0}x{each - 1} stale"
    return found


CASES: dict[str, RecordedCase] = {
    **{f"idle, scraped every {interval} s": idle_at(interval) for interval in (5, 15, 30, 45, 60, 120)},
    "Prometheus was down for ten minutes": RecordedCase(
        30,
        {
            UP: f"{constant(1, 30, 50)} _x20 {constant(1, 30, 30)}",
            UTILIZATION: f"{constant(0, 30, 50)} _x20 {constant(0, 30, 30)}",
        },
        {"round(gpu:utilization_coverage_ratio:mean30m, 0.1)": [('{uuid="GPU-6d5c"}', 0.7)], "gpu:idle:mean30m": []},
    ),
    "the exporter has just been installed": RecordedCase(
        30,
        {UP: f"_x{samples(30, AT - 2)} 1x60", UTILIZATION: f"_x{samples(30, AT - 2)} 0x60"},
        {"gpu:idle:mean30m": [], "round(gpu:utilization_coverage_ratio:mean30m, 0.1)": [('{uuid="GPU-6d5c"}', 0.2)]},
    ),
    "every second scrape failed": RecordedCase(
        30,
        {UP: "1 0 " * samples(60, MINUTES), UTILIZATION: "0 stale " * samples(60, MINUTES)},
        {"round(gpu:utilization_coverage_ratio:mean30m, 0.1)": [('{uuid="GPU-6d5c"}', 0.5)], "gpu:idle:mean30m": []},
    ),
    "no series up, as after remote write": RecordedCase(
        30,
        {UTILIZATION: constant(0, 30)},
        {"gpu:utilization_coverage_ratio:mean30m": gpu(), "gpu:idle:mean30m": gpu()},
    ),
    "another pod every ten minutes": RecordedCase(
        30,
        series_of(8, 30),
        {
            "round(gpu:utilization_ratio:mean1h, 0.1)": [('{uuid="GPU-6d5c"}', 0.5)],
            "round(gpu:utilization_coverage_ratio:mean30m, 0.1)": gpu(),
        },
    ),
    "two jobs scrape one exporter": RecordedCase(
        30,
        {
            UP: constant(1, 30),
            UTILIZATION: constant(0, 30),
            'up{job="copy",instance="b:1"}': constant(1, 30),
            f'DCGM_FI_DEV_GPU_UTIL{{{DCGM},job="copy",instance="b:1"}}': constant(0, 30),
        },
        {
            "gpu:utilization_coverage_ratio:mean30m": gpu(),
            "gpu:utilization_ratio:mean30m": [('{uuid="GPU-6d5c"}', 0.0)],
            "host:gpus:count": [('host:gpus:count{nodename="n1",name="H100"}', 1.0)],
        },
    ),
    "two clusters with the same names": RecordedCase(
        60,
        {
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{uuid}",modelName="H100",Hostname="n1",cluster="{cluster}",{TARGET}}}':
                constant(value, 60)
            for uuid, cluster, value in (("GPU-1", "a", 100), ("N/A", "a", 0), ("GPU-2", "b", 0), ("N/A", "b", 100))
        }
        | {f'up{{cluster="{cluster}",{TARGET}}}': constant(1, 60) for cluster in "ab"},
        {
            "gpu:utilization_ratio:mean30m": [
                ('gpu:utilization_ratio:mean30m{uuid="GPU-1",cluster="a"}', 1.0),
                ('gpu:utilization_ratio:mean30m{uuid="10.0.0.1:9400~0",cluster="a"}', 0.0),
                ('gpu:utilization_ratio:mean30m{uuid="GPU-2",cluster="b"}', 0.0),
                ('gpu:utilization_ratio:mean30m{uuid="10.0.0.1:9400~0",cluster="b"}', 1.0),
            ],
            "host:gpus_idle:sum30m": [
                ('host:gpus_idle:sum30m{nodename="n1",name="H100",cluster="a"}', 1.0),
                ('host:gpus_idle:sum30m{nodename="n1",name="H100",cluster="b"}', 1.0),
            ],
            "model:gpus:count": [
                ('model:gpus:count{name="H100",cluster="a"}', 2.0), ('model:gpus:count{name="H100",cluster="b"}', 2.0),
            ],
        },
    ),
    "MIG slices": RecordedCase(
        30,
        {
            UP: constant(1, 30),
            **{
                f'{metric}{{{DCGM},GPU_I_ID="{slice_id}",GPU_I_PROFILE="1g.10gb",{TARGET}}}': constant(value, 30)
                for slice_id, metric, value in (
                    (7, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.25), (8, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0),
                    (7, "DCGM_FI_DEV_FB_USED", 2500), (8, "DCGM_FI_DEV_FB_USED", 0),
                    (7, "DCGM_FI_DEV_FB_FREE", 7500), (8, "DCGM_FI_DEV_FB_FREE", 10000),
                    (7, "DCGM_FI_DEV_POWER_USAGE", 300), (8, "DCGM_FI_DEV_POWER_USAGE", 300),
                )
            },
        },
        {
            "gpu:utilization_ratio:mean30m": [
                ('gpu:utilization_ratio:mean30m{uuid="GPU-6d5c~7"}', 0.25),
                ('gpu:utilization_ratio:mean30m{uuid="GPU-6d5c~8"}', 0.0),
            ],
            "gpu:memory_used_ratio:last": [
                ('gpu:memory_used_ratio:last{uuid="GPU-6d5c~7"}', 0.25),
                ('gpu:memory_used_ratio:last{uuid="GPU-6d5c~8"}', 0.0),
            ],
            "gpu:power_watts:last": [('gpu:power_watts:last{uuid="GPU-6d5c"}', 300.0)],
            'gpu:identity:info{mig_profile!=""}': [
                (
                    f'gpu:identity:info{{uuid="GPU-6d5c~{slice_id}",index="0:{slice_id}",name="H100 MIG 1g.10gb",'
                    'nodename="n1",vendor="nvidia",mig_profile="1g.10gb",parent_uuid="GPU-6d5c"}', 1.0,
                )
                for slice_id in (7, 8)
            ],
            "host:gpus:count": [('host:gpus:count{nodename="n1",name="H100"}', 1.0)],
            "host:gpu_power_watts:sum": [('host:gpu_power_watts:sum{nodename="n1",name="H100"}', 300.0)],
        },
    ),
    "DCGM's placeholders": RecordedCase(
        60,
        {
            UP: constant(1, 60),
            f"DCGM_FI_DEV_FB_USED{{{DCGM},{TARGET}}}": constant(40000, 60),
            f"DCGM_FI_DEV_FB_FREE{{{DCGM},{TARGET}}}": "9223372036854775792x75",
            f"DCGM_FI_DEV_POWER_USAGE{{{DCGM},{TARGET}}}": "140737488355328x75",
        },
        {"gpu:memory_used_ratio:last": [], "gpu:memory_total_bytes:last": [], "gpu:power_watts:last": []},
    ),
}  # fmt: skip


def needed_rules(queries: str) -> str:
    """The rules of DCGM's exporter that record what the queries read: promtool evaluates each for every minute."""
    groups = yaml.safe_load(render_rules(["dcgm-exporter"]))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    needed = set(re.findall(RECORD, queries))
    for rule in reversed(rules):  # a rule reads those before it
        needed |= set(re.findall(RECORD, rule["expr"])) if rule["record"] in needed else set()
    for group in groups:
        group["rules"] = [rule for rule in group["rules"] if rule["record"] in needed]
    return yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}, width=10_000, sort_keys=False)


@pytest.mark.parametrize("name", CASES)
def test_recorded_values(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    (tmp_path / "rules.yml").write_text(needed_rules(" ".join(case.expected)))
    queries = [
        {
            "expr": expr,
            "eval_time": f"{AT}m",
            "exp_samples": [{"labels": _labels(expr, labels), "value": value} for labels, value in wanted],
        }
        for expr, wanted in case.expected.items()
    ]
    series = [{"series": key, "values": values} for key, values in case.series.items()]
    tests = [{"interval": f"{case.interval}s", "input_series": series, "promql_expr_test": queries}]
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    test = tmp_path / "test.yml"
    test.write_text(yaml.safe_dump(document, width=10_000))
    command = [require_binary("promtool"), "test", "rules", str(test)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _labels(expr: str, labels: str) -> str:
    """A bare selector keeps the name of its series."""
    return labels if "round(" in expr or not labels.startswith("{") else expr + labels
