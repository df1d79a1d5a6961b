"""Replays: the account of a policy's decisions, the baselines, traces from files, the command."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpu_advisor.backtest.baselines import HpaPolicy, ThresholdPolicy
from gpu_advisor.backtest.compare import advisor_policy, compare_policies
from gpu_advisor.backtest.replay import Observation, ReplayResult, SimulatedPool, replay
from gpu_advisor.backtest.trace import Trace, TraceError, read_csv, resample
from gpu_advisor.commands.backtest import command
from gpu_advisor.settings import GpuLimits, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

DAY = SimulatedPool(start=2, min=1, max=114, start_delay_seconds=120)
demands = st.lists(st.floats(0, 150), min_size=1, max_size=80)


@dataclass
class ScriptedPolicy:
    """Requests given sizes, one per interval, and records its observations."""

    wanted: list[int]
    seen: list[Observation]

    def __call__(self, seen: Observation, /) -> int:
        self.seen.append(seen)
        return self.wanted[len(self.seen) - 1]


def replay_scripted(
    demand: list[float], wanted: list[int], fleet: SimulatedPool
) -> tuple[ReplayResult, list[Observation]]:
    policy = ScriptedPolicy(wanted, [])
    return replay(Trace(60, tuple(demand)), policy, fleet), policy.seen


def test_the_account_of_a_growth_and_a_shrinking() -> None:
    fleet = SimulatedPool(start=2, min=1, max=10, start_delay_seconds=120)
    found, seen = replay_scripted([3, 3, 3, 3, 3], [4, 4, 4, 3, 3], fleet)
    # Asked for after the first interval, billed from the second, served from the fourth on.
    assert [each.ready for each in seen] == [2, 2, 2, 4, 3]
    assert [each.pending for each in seen] == [0, 2, 2, 0, 0]
    assert [each.utilization_ratio for each in seen] == [1, 1, 1, 0.75, 1]
    assert found.gpu_hours * 60 == pytest.approx(2 + 4 + 4 + 4 + 3)
    assert found.unserved_ratio == pytest.approx(3 / 15)
    assert found.time_under_ratio == pytest.approx(3 / 5)
    assert (found.actions, found.reversals) == (2, 1)


def test_what_starts_is_cancelled_before_what_serves_is_stopped() -> None:
    _, seen = replay_scripted([0] * 4, [5, 4, 1, 1], SimulatedPool(2, 1, 10, 600))
    assert [(each.ready, each.pending) for each in seen] == [(2, 0), (2, 3), (2, 2), (1, 0)]


def test_limits_are_kept_whatever_is_wanted() -> None:
    _, seen = replay_scripted([0] * 3, [99, -5, 0], SimulatedPool(2, 1, 4, 0))
    assert [each.ready for each in seen] == [2, 4, 1]


def test_what_was_not_recorded_is_neither_demand_nor_reported() -> None:
    policy = ScriptedPolicy([2, 2, 2], [])
    found = replay(Trace(60, (1.0, None, 3.0)), policy, SimulatedPool(2, 1, 4, 0))
    assert [each.utilization_ratio for each in policy.seen] == [0.5, None, 1]
    assert (found.time_under_ratio, found.unserved_ratio) == (0.5, 0.25)


@given(demands)
@settings(max_examples=30, deadline=None)
def test_every_policy_keeps_the_limits_and_the_oracle_serves_what_fits(demand: list[float]) -> None:
    fleet = SimulatedPool(start=2, min=1, max=20, start_delay_seconds=120)
    found = compare_policies(Trace(60, tuple(demand)), fleet, GpuLimits(), Settings().evaluation)
    names = ["advisor", "static", "hpa_90", "hpa_70", "hpa_50", "threshold_85_60", "oracle"]
    assert list(found) == names
    static = found["static"]
    assert static.gpu_hours == pytest.approx(20 * len(demand) / 60)
    assert (static.actions, static.reversals) == (0, 0)
    for outcome in found.values():
        assert static.gpu_hours / 20 - 1e-9 <= outcome.gpu_hours <= static.gpu_hours + 1e-9
        assert static.unserved_ratio - 1e-9 <= outcome.unserved_ratio <= 1  # nobody serves more than the maximum
        assert outcome.reversals <= max(0, outcome.actions - 1)
    assert found["oracle"].unserved_ratio == pytest.approx(static.unserved_ratio)


@pytest.mark.parametrize(
    ("utilization", "ready", "wanted"),
    [
        (0.76, 10, 10),  # within the tolerance
        (0.78, 10, 12),  # ceil(10 * 0.78 / 0.7)
        (1.0, 10, 15),
        (0.5, 10, 10),  # shrinking waits for 300 s
    ],
)
def test_hpa(utilization: float, ready: int, wanted: int) -> None:
    policy = HpaPolicy(0.7)
    policy(Observation(0, ready, 0, 0.7))
    assert policy(Observation(60, ready, 0, utilization)) == wanted


def test_hpa_shrinks_to_the_highest_of_its_window() -> None:
    policy = HpaPolicy(0.7)
    wanted = [policy(Observation(60 * i, 10, 0, value)) for i, value in enumerate([0.7, 0.5, 0.4, 0.3, 0.3, 0.3])]
    assert wanted == [10, 10, 10, 10, 10, 8]


def test_thresholds_move_one_at_a_time() -> None:
    policy = ThresholdPolicy(0.85, 0.6)
    assert [policy(Observation(0, 4, 1, value)) for value in (0.86, 0.85, 0.6, 0.59, None)] == [6, 5, 5, 4, 5]


def test_the_advisor_sees_what_the_live_engine_sees_and_never_the_demand() -> None:
    """Demand above the capacity, however far, is the same to it."""
    low, high = [2.0] * 5, [90.0] * 5
    seen: list[list[int]] = []
    for demand in (low, high):
        policy = advisor_policy(Trace(60, tuple(demand)), DAY, GpuLimits(), Settings().evaluation)
        seen.append([policy(Observation(60, 2, 0, min(1.0, demand[0] / 2)))])
    assert seen[0] == seen[1]


def write_trace(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "no demand"),
        ("timestamp_seconds,demand_gpus\n", "no demand"),
        ("time,demand\n0,1\n", "header"),
        ("timestamp_seconds,demand_gpus\n0,1\n60\n", ":3: not two numbers"),
        ("timestamp_seconds,demand_gpus\n0,many\n", ":2: not two numbers"),
        ("timestamp_seconds,demand_gpus\n0,-1\n", ":2: values must be finite and demand at least 0"),
        ("timestamp_seconds,demand_gpus\n0,nan\n", "omit unknown rows"),
        ("timestamp_seconds,demand_gpus\n0,1\n1700000000,1\n", "give timestamps in seconds, on one clock"),
        ("timestamp_seconds,demand_gpus\n0,1\n1e300,1\n", "give timestamps in seconds, on one clock"),
        ("timestamp_seconds,demand_gpus\n60,1\n0,1\n", ":3: timestamp 0 does not come after 60"),
    ],
)
def test_a_trace_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, reported: str) -> None:
    with pytest.raises(TraceError, match=r"trace\.csv") as refused:
        read_csv(write_trace(tmp_path, text), 60)
    assert reported in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "demand"),
    [
        ([(0, 1), (60, 2)], [1, 2]),
        ([(0, 1), (15, 3), (30, 5), (45, 7), (60, 2), (75, 2), (90, 2), (105, 2)], [4, 2]),  # finer: the mean
        ([(0, 1), (300, 2)], [1] * 5 + [2] * 5),  # coarser: it holds
        ([(0, 1), (60, 2), (120, 3), (600, 4)], [1, 2, 3, *[None] * 7, 4]),  # a silence is not zero
        ([(7.5, 1), (67.5, 2)], [1, 2]),
    ],
)
def test_rows_become_one_demand_an_interval(rows: list[tuple[float, float]], demand: list[float | None]) -> None:
    assert list(resample(rows, 60).demand) == demand


@given(st.lists(st.floats(0, 100), min_size=4, max_size=40).filter(lambda rows: len(rows) % 4 == 0))
def test_resampling_keeps_the_work(values: list[float]) -> None:
    trace = resample([(15.0 * i, value) for i, value in enumerate(values)], 60)
    assert sum(v for v in trace.demand if v is not None) == pytest.approx(sum(values) / 4)


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    rows = "\n".join(f"{60 * i},{(i * 7) % 11}" for i in range(60))
    path = write_trace(tmp_path, f"timestamp_seconds,demand_gpus\n{rows}\n")
    found = CliRunner().invoke(command, ["--trace", str(path), "--max", "20", *arguments])
    return found.exit_code, found.output


def test_the_command_prints_one_object_a_policy(tmp_path: Path) -> None:
    fleet = ("--interval", "60", "--start-delay", "120", "--start", "2", "--min", "1")
    code, out = run(tmp_path, *fleet, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"advisor", "static", "hpa_90", "hpa_70", "hpa_50", "threshold_85_60", "oracle"}
    fields = {"gpu_hours", "unserved_ratio", "time_under_ratio", "actions", "reversals"}
    assert all(set(outcome) == fields for outcome in found.values())
    assert found["static"] == {
        "gpu_hours": 20.0, "unserved_ratio": 0.0, "time_under_ratio": 0.0, "actions": 0, "reversals": 0,
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(run(tmp_path, "--format", "csv")[1])))
    assert {row["policy"]: float(row["gpu_hours"]) for row in rows} == {k: v["gpu_hours"] for k, v in found.items()}
    assert "advisor" in run(tmp_path)[1]


def test_the_command_states_what_an_slo_reached_and_what_others_would_cost(tmp_path: Path) -> None:
    rows = "\n".join(f"{60 * i},{(i * 7) % 11}" for i in range(130))
    path = write_trace(tmp_path, f"timestamp_seconds,demand_gpus\n{rows}\n")
    arguments = ["--trace", str(path), "--max", "20", "--unserved", "0.5%"]
    found = CliRunner().invoke(command, arguments)
    assert "tuned to slo.unserved 0.5 %" in found.output
    assert "Other objectives: 0.05 %" in found.output
    slo = json.loads(CliRunner().invoke(command, [*arguments, "--format", "json"]).output)["advisor"]["slo"]
    assert slo["unserved_ratio"] == 0.005
    assert len(slo["frontier"]) > 1
    short = CliRunner().invoke(
        command,
        ["--trace", str(write_trace(tmp_path, "timestamp_seconds,demand_gpus\n0,1\n60,1\n")), "--unserved", "1%"],
    )
    assert "needs 58 more minutes of history" in short.output
    refused = CliRunner().invoke(command, [*arguments[:-1], "0.5"])
    assert (refused.exit_code, "write it as in 0.2%" in refused.output) == (2, True)


def test_the_command_says_how_to_fix_it(tmp_path: Path) -> None:
    code, out = run(tmp_path, "--start", "30")
    assert (code, "--start (30) must lie between" in out) == (2, True)
    found = CliRunner().invoke(command, ["--trace", str(tmp_path / "none.csv")])
    assert (found.exit_code, "give the path" in found.output) == (2, True)
