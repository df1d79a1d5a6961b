"""Golden files: the device section of each simulated machine, byte for byte as in tests/golden/.

After an intended change, update them and review the diff:

    python -m pytest tests/unit/exporter/test_golden.py --update-golden
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from gpu_exporter.devices.simulated import MODELS, SCENARIOS, parse_fleet
from gpu_exporter.exposition import render
from gpu_exporter.snapshot import device_samples
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import require_binary

GOLDEN = Path(__file__).parents[2] / "golden"
NODENAME = "node-1"
SEED = 0
AT = 1_777_777_777.25  # Unix time; not a multiple of any period of the simulation

MACHINES: dict[str, str] = {
    "h200": "1xH200-141GB:training",
    "h100": "8xH100-80GB:training",
    "a100": "2xA100-80GB:data-bound,1xA100-40GB:idle",
    "l40s": "2xL40S-48GB:saturated-serving",
    "a10_l4": "1xA10-24GB:small-batch,1xL4-24GB:saturated-serving",
    "v100": "2xV100-32GB:throttled",
    "t4": "1xT4-16GB:idle-hoarder",
    "rtx4090": "1xRTX4090-24GB:small-batch",
    "mixed": ",".join(f"1xH100-80GB:{scenario}" for scenario in SCENARIOS),
    "one_lost": "3xH100-80GB:training,1xH100-80GB:lost",
    "all_lost": "2xA100-80GB:lost",
}


def page(fleet: str) -> bytes:
    return render(device_samples((gpu.read(AT) for gpu in parse_fleet(fleet, SEED)), NODENAME))


@pytest.mark.parametrize("machine", MACHINES)
def test_page_equals_golden_file(machine: str, request: pytest.FixtureRequest) -> None:
    path, now = GOLDEN / f"{machine}.txt", page(MACHINES[machine])
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_bytes(now)
    assert path.exists(), f"{path} is missing: run with --update-golden"
    # First as lines, for a readable failure; then as bytes.
    assert now.decode().splitlines() == path.read_text(encoding="utf-8").splitlines(), "if meant: --update-golden"
    assert now == path.read_bytes()


def test_every_model_has_a_golden_file_and_every_file_a_machine() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == {f"{machine}.txt" for machine in MACHINES}
    named = {part.partition("x")[2] for fleet in MACHINES.values() for part in fleet.split(",")}
    assert {name.partition(":")[0] for name in named} == set(MODELS)
    assert {name.partition(":")[2] for name in named} == set(SCENARIOS)


@pytest.mark.parametrize("machine", MACHINES)
def test_golden_page_has_each_gpu_once(machine: str) -> None:
    text = (GOLDEN / f"{machine}.txt").read_text(encoding="utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == len(re.findall("^# TYPE ", text, re.MULTILINE)), "a family comes twice"
    fleet = parse_fleet(MACHINES[machine], SEED)
    for name in ("gpu_info", "gpu_up"):
        assert [sample.labels["uuid"] for sample in families[name].samples] == [gpu.identity.uuid for gpu in fleet]
    lost = {gpu.identity.uuid for gpu in fleet if gpu.scenario.down}
    for name, family in families.items():
        for sample in family.samples:
            assert sample.value == sample.value, f"{name} is not a number"
            if name not in ("gpu_info", "gpu_up", "gpu_down_info"):
                assert sample.labels["uuid"] not in lost, f"{name} of a lost GPU"
    assert {sample.labels["uuid"] for sample in families["gpu_up"].samples if sample.value == 0} == lost


@pytest.mark.servers
@pytest.mark.parametrize("machine", MACHINES)
def test_promtool_accepts_golden_pages(machine: str) -> None:
    done = subprocess.run(
        [require_binary("promtool"), "check", "metrics"],
        input=(GOLDEN / f"{machine}.txt").read_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout + done.stderr == b""
