"""AscendDriver with a fake npu-smi: tables of several versions, invalid output, a hung, failing or removed tool."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter import metrics
from gpu_exporter.devices import ascend
from gpu_exporter.devices.ascend import QUERY_INTERVAL_SECONDS, AscendDriver, parse_npu_smi
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.card_readings import CARD_FAMILIES
from gpu_exporter.snapshot import AbsenceReason, DownReason, DriverState
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.devices.fake_sysfs import FakeSysfs, absent, values

MIB = 2**20
RULE = "+---------------------------+---------------+------------------------------------------+\n"
HEAD = """
+--------------------------------------------------------------------------------------+
| npu-smi 24.1.0               Version: 24.1.0                                         |
+---------------------------+---------------+------------------------------------------+
| NPU   Name                | Health        | Power(W)  Temp(C)   Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%) Memory-Usage(MB) HBM-Usage(MB) |
+===========================+===============+==========================================+
"""
FIRST = """| 0     910B3               | OK            | 101.8     43        0    / 0             |
| 0                         | 0000:C1:00.0  | 37        0    / 0         3318 / 65536  |
"""
SECOND = """| 1     910B3               | Warning       | 92.0      39        0    / 0             |
| 0                         | 0000:C2:00.0  | 0         0    / 0         59356/ 65536  |
"""
PROCESSES = """
| NPU     Chip              | Process id    | Process name  | Process memory(MB)       |
+===========================+===============+==========================================+
| 0       0                 | 1712733       | python        | 48954                    |
| 0     910B3               | OK            | 1         1         0    / 0             |
| 0                         | 0000:C9:00.0  | 1         0    / 0         1 / 65536     |
"""
HEALTHY = HEAD + FIRST + RULE + SECOND + RULE + PROCESSES

TWO_CHIPS = """
| npu-smi 25.2.0                               Version: 25.2.0                                       |
| NPU     Name        | Health | Power(W)     Temp(C)              Hugepages-Usage(page)             |
| Chip    Phy-ID      | Bus-Id          | AICore(%)    Memory-Usage(MB)  HBM-Usage(MB)               |
+=====================+=================+============================================================+
| 0       Ascend910   | OK              | 174.9        38                0    / 0                      |
| 0       0           | 0000:9D:00.0    | 5            0    / 0          3116 / 65536                  |
| 0       Ascend910   | OK              | -            37                0    / 0                      |
| 1       1           | 0000:9F:00.0    | 6            0    / 0          2880 / 65536                  |
"""
INFERENCE = """
| npu-smi 23.0.rc2             Version: 23.0.rc2                                       |
| NPU     Name              | Health          | Power(W)     Temp(C)     Hugepages-Usage(page)   |
| Chip    Device            | Bus-Id          | AICore(%)    Memory-Usage(MB)                    |
| 2       310P3             | OK              | NA           45          0     / 0               |
| 0       0                 | 0000:3B:00.0    | 11           1764 / 21527                        |
"""


class FakeNpuSmi:
    """A shell script that replaces npu-smi."""

    def __init__(self, tree: FakeSysfs, folder: Path) -> None:
        self.tree = tree
        self.path = folder / "npu-smi"
        self.calls = folder / "calls"

    def set_output(self, output: str, before: str = "", code: int = 0) -> None:
        text = self.path.with_name("output")
        text.write_text(output)
        self.path.write_text(f'#!/bin/sh\necho "$@" >> {self.calls}\n{before}\ncat {text}\nexit {code}\n')
        self.path.chmod(0o755)

    def driver(self, timeout_seconds: float = 4.0) -> AscendDriver:
        return AscendDriver(self.tree.sysfs, self.tree.procfs, self.tree.clock, str(self.path), timeout_seconds)


@pytest.fixture
def tool(tmp_path: Path) -> FakeNpuSmi:
    return FakeNpuSmi(FakeSysfs(tmp_path), tmp_path)


def test_910b_in_base_units(tool: FakeNpuSmi) -> None:
    tool.set_output(HEALTHY)
    first, second = tool.driver().read()
    who = first.identity
    assert (who.name, who.vendor, who.index, who.driver_version) == ("Ascend 910B3", "ascend", "0", "24.1.0")
    assert who.pci_bus_id == "00000000:C1:00.0"
    assert values(first) == {
        "gpu_utilization_ratio": 0.37,
        "gpu_busy_seconds_total": 0,
        "gpu_observed_seconds_total": 0,
        "gpu_busy_source_info gauge": 1,
        "gpu_temperature_celsius": 43,
        "gpu_power_watts": 101.8,
        "gpu_memory_used_bytes": 3318 * MIB,
        "gpu_memory_total_bytes": 65536 * MIB,
        "gpu_health_info ok": 1,
    }
    assert values(second)["gpu_health_info warning"] == 1
    assert values(second)["gpu_utilization_ratio"] == 0
    there = {reading.family for reading in first.readings} | {absence.family for absence in first.absences}
    assert there >= set(CARD_FAMILIES)
    assert set(absent(first).values()) == {"unsupported"}


def test_two_chips_of_one_npu(tool: FakeNpuSmi) -> None:
    tool.set_output(TWO_CHIPS)
    first, second = tool.driver().read()
    assert (first.identity.index, second.identity.index) == ("0", "1")
    assert first.identity.uuid != second.identity.uuid
    assert (values(first)["gpu_utilization_ratio"], values(second)["gpu_utilization_ratio"]) == (0.05, 0.06)
    assert absent(second)["gpu_power_watts"] == "unsupported"


def test_inference_card_without_hbm(tool: FakeNpuSmi) -> None:
    tool.set_output(INFERENCE)
    (device,) = tool.driver().read()
    assert device.identity.name == "Ascend 310P3"
    assert values(device)["gpu_memory_total_bytes"] == 21527 * MIB
    assert absent(device)["gpu_power_watts"] == "unsupported"


def test_tool_runs_rarely_and_busy_time_continues(tool: FakeNpuSmi) -> None:
    tool.set_output(HEALTHY)
    driver = tool.driver()
    before = driver.read()
    tool.tree.time += QUERY_INTERVAL_SECONDS - 1
    assert driver.read() is before
    tool.tree.time += 1
    observed = values(driver.read()[0])
    assert observed["gpu_busy_seconds_total"] == pytest.approx(0.37 * QUERY_INTERVAL_SECONDS)
    assert observed["gpu_observed_seconds_total"] == QUERY_INTERVAL_SECONDS
    assert tool.calls.read_text() == "info\ninfo\n"


@pytest.mark.parametrize(
    ("before", "after", "family"),
    [
        ("| 37 ", "| 137", "gpu_utilization_ratio"),
        ("101.8", "1e3.8", "gpu_power_watts"),
        ("43 ", "-43", "gpu_temperature_celsius"),
        ("3318 / 65536", "70000/ 65536", "gpu_memory_used_bytes"),
        ("3318 / 65536", "lots / 65536", "gpu_memory_total_bytes"),
    ],
)
def test_invalid_value_is_an_error_of_its_family_only(tool: FakeNpuSmi, before: str, after: str, family: str) -> None:
    assert before in HEALTHY
    tool.set_output(HEALTHY.replace(before, after, 1))
    first, second = tool.driver().read()
    assert absent(first)[family] == "error"
    assert family not in values(first)
    assert len(first.readings) >= 4
    assert "error" not in absent(second).values()


def test_truncated_row_only_affects_its_chip(tool: FakeNpuSmi) -> None:
    rows = FIRST.splitlines(keepends=True)
    assert [chip.key for chip in parse_npu_smi(HEAD + rows[0] + SECOND)] == ["0000:c2:00.0"]
    assert [chip.key for chip in parse_npu_smi(HEAD + rows[1] + SECOND)] == ["0000:c2:00.0"]
    assert [chip.key for chip in parse_npu_smi(HEAD + FIRST + SECOND[:40])] == ["0000:c1:00.0"]
    assert parse_npu_smi("") == parse_npu_smi(FIRST) == parse_npu_smi(HEAD) == parse_npu_smi("|||\n| | |\n|") == []


def test_npu_that_is_no_longer_listed_is_lost(tool: FakeNpuSmi) -> None:
    tool.set_output(HEALTHY)
    driver = tool.driver()
    before = driver.read()
    tool.set_output(HEAD + FIRST)
    tool.tree.time += QUERY_INTERVAL_SECONDS
    first, lost = driver.read()
    assert first.down is None
    assert (lost.down, lost.identity) == (DownReason.LOST, before[1].identity)


@pytest.mark.parametrize(
    ("before", "code", "down", "state"),
    [
        ("exec sleep 20", 0, DownReason.HUNG, DriverState.HUNG),
        ("echo dcmi model initialized failed >&2", 1, DownReason.ERROR, DriverState.FAILED),
    ],
)
def test_hung_or_failing_tool(tool: FakeNpuSmi, before: str, code: int, down: DownReason, state: DriverState) -> None:
    tool.set_output(HEALTHY)
    driver = tool.driver(timeout_seconds=1.0)
    driver.read()
    tool.set_output("" if code else HEALTHY, before, code)
    tool.tree.time += QUERY_INTERVAL_SECONDS
    assert [device.down for device in driver.read()] == [down, down]
    with pytest.raises(DriverUnavailable) as caught:
        tool.driver(timeout_seconds=1.0).read()
    assert caught.value.state is state
    tool.set_output(HEALTHY)
    tool.tree.time += QUERY_INTERVAL_SECONDS
    assert [device.down for device in driver.read()] == [None, None]


def test_tool_that_failed_at_first_is_retried_at_once(tool: FakeNpuSmi) -> None:
    tool.set_output("", code=1)
    driver = tool.driver()
    with pytest.raises(DriverUnavailable):
        driver.read()
    tool.set_output(HEALTHY)
    assert len(driver.read()) == 2


def test_removed_tool(tool: FakeNpuSmi) -> None:
    tool.set_output(HEALTHY)
    driver = tool.driver()
    driver.read()
    tool.path.unlink()
    driver.close()
    assert [device.down for device in driver.read()] == [DownReason.DRIVER_GONE] * 2


def test_without_the_tool_it_is_absent(tool: FakeNpuSmi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setattr(ascend, "SEARCH_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(DriverUnavailable, match="not installed") as caught:
        AscendDriver().read()
    assert caught.value.state is DriverState.ABSENT


def test_tool_that_cannot_run_or_lists_nothing(tool: FakeNpuSmi) -> None:
    tool.set_output("no NPU here\n")
    with pytest.raises(DriverUnavailable, match="lists no NPU") as caught:
        tool.driver().read()
    assert caught.value.state is DriverState.FAILED
    tool.path.write_bytes(b"\x00\x01")
    with pytest.raises(DriverUnavailable, match="cannot run"):
        tool.driver().read()


#: A chip without an address, and one whose chip row has lost cells.
ODD = (
    HEAD
    + """| 0     310B4               | Alarm         | 0.0       52        15   / 15            |
| 0                         | NA            | 3         3003 / 7545                    |
| 1     910B3               | UNKNOWN       | NA        NA        NA   / NA            |
|                           |               | NA        NA   / NA         NA   / NA    |
| 2     910B3               |               |           41        0    / 0             |
| 0                         | 0000:C4:00.0  | 7         0    / 0                       |
| 3     910B3               | OK            | 99.9      40        0    / 0             |
| 0                         | 0000:C5:00.0  |           0    / 0         100  / 65536  |
"""
)


def test_a_lost_cell_costs_its_own_value_only(tool: FakeNpuSmi) -> None:
    tool.set_output(ODD)
    first, second, third, fourth = tool.driver().read()
    # The header has a column of HBM that this chip does not have.
    assert values(first)["gpu_memory_used_bytes"] == 3003 * MIB
    assert values(first)["gpu_utilization_ratio"] == 0.03
    assert values(first)["gpu_health_info alarm"] == 1
    # Not available is not an error.
    families = ("gpu_utilization_ratio", "gpu_temperature_celsius", "gpu_power_watts", "gpu_memory_used_bytes")
    assert {absent(second)[name] for name in families} == {"unsupported"}
    assert values(third)["gpu_temperature_celsius"] == 41
    assert absent(third)["gpu_power_watts"] == "unsupported"
    assert values(third)["gpu_health_info unknown"] == 1
    assert values(fourth)["gpu_memory_used_bytes"] == 100 * MIB
    assert "gpu_utilization_ratio" in absent(fourth)
    assert len({device.identity.uuid for device in (first, second, third, fourth)}) == 4


@given(st.lists(st.sampled_from(range(4)), unique=True), st.integers(0, 1))
def test_an_emptied_cell_never_drops_its_row(cells: list[int], row: int) -> None:
    """Whatever cells of one NPU become empty, both of the table's NPUs are there, and the other is as before."""
    lines = FIRST.splitlines()
    parts = lines[row].split("|")
    for cell in cells:
        if 1 <= cell < len(parts) - 1:
            parts[cell] = " " * len(parts[cell])
    if not any(part.strip() for part in parts):
        return  # an empty line is none
    lines[row] = "|".join(parts)
    chips = parse_npu_smi(HEAD + "\n".join(lines) + "\n" + RULE + SECOND)
    assert len(chips) == 2
    assert chips[1] == parse_npu_smi(HEALTHY)[1]


@pytest.mark.parametrize("word", ["0.0", "0", "NA", "-"])
def test_a_chip_without_a_power_sensor(word: str) -> None:
    """The 310B4 reads 0.0: a chip that computes on no power at all is a missing value."""
    (chip,) = parse_npu_smi(HEAD + FIRST.replace("101.8", f"{word:5}"))
    assert dict(ascend._parse_values(chip))[metrics.POWER] is AbsenceReason.UNSUPPORTED
