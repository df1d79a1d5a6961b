"""`gpu-advisor up`: one machine, nothing else installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.own_processes import Program, up
from tests.polling import wait_until
from tests.servers import free_port


def address() -> str:
    return f"127.0.0.1:{free_port()}"


def identities(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["id"], each["since"]) for each in answer["recommendations"]]


def advised(program: Program) -> dict[str, Any] | None:
    answer: dict[str, Any] = program.get("/recommendations")
    return answer if answer["recommendations"] else None


def test_a_simulated_fleet_shows_advice_at_once_and_again_after_kill_9(tmp_path: Path) -> None:
    there = (address(), address(), "8xH100-80GB:idle-hoarder")
    with up(tmp_path, *there) as program:
        first = wait_until(lambda: advised(program), "advice", program)
        [advice] = first["recommendations"]
        assert (advice["kind"], advice["current"], advice["recommended"]) == ("idle_reclaim", 8, 1)
        assert first["simulated"] is True
        assert [each["promql"] for each in advice["evidence"] if "@" not in each["promql"]] == []
        program.kill()
        wait_until(lambda: _assert_refused(there[0]), "the exporter ends with its parent")

    with up(tmp_path, *there) as program:
        again = wait_until(lambda: advised(program), "advice", program)
        assert identities(again) == identities(first)
        program.kill()
        wait_until(lambda: _assert_refused(there[0]), "the exporter ends with its parent")

    for ledger in (tmp_path / "up").rglob("ledger.db*"):
        ledger.unlink()
    with up(tmp_path, *there) as program:
        without = wait_until(lambda: advised(program), "advice", program)
        assert [id_ for id_, _ in identities(without)] == [id_ for id_, _ in identities(first)]
        assert identities(without) != identities(first)  # since when is what a ledger is for


def _assert_refused(where: str) -> bool:
    try:
        requests.get(f"http://{where}/-/healthy", timeout=60)
    except requests.ConnectionError:
        return True
    return False


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_what_is_true_of_this_machine(tmp_path: Path) -> None:
    with up(tmp_path, address(), address()) as program:
        answer = wait_until(lambda: _with_cpu(program), "the CPU's check", program)
        items = {each["item"]: each for each in answer["checks"]["items"]}
        memory = psutil.virtual_memory()
        assert items["memory"]["value"] == pytest.approx(1 - memory.available / memory.total, abs=0.1)
        assert 0 <= items["cpu"]["value"] <= 1
        assert items["storage"]["status"] in ("met", "missed")
        assert items["gpu_utilization"]["status"] == "unknown"
        assert items["gpu_utilization"]["reason"] == "unsupported"
        assert answer["recommendations"] == []
        assert [each["reason"] for each in answer["abstentions"]] == ["unsupported"]
        assert "No GPUs found" in program.text("/")


def _with_cpu(program: Program) -> dict[str, Any] | None:
    answer: dict[str, Any] = program.get("/recommendations")
    cpu = [each for each in answer["checks"]["items"] if each["item"] == "cpu" and each["value"] is not None]
    return answer if cpu else None


@pytest.mark.parametrize("taken", ["exporter", "advisor"])
def test_an_address_in_use_is_one_clear_line(tmp_path: Path, taken: str) -> None:
    with up(tmp_path, address(), address()) as program:
        mine = {"exporter": address(), "advisor": address(), taken: program.address}
        command = [
            sys.executable, "-m", "gpu_advisor", "up", "--exporter-address", mine["exporter"],
            "--advisor-address", mine["advisor"], "--state-dir", str(tmp_path / "other"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        [line] = done.stderr.strip().splitlines()
        assert line.startswith(f"gpu-advisor: cannot listen on {program.address}: Address already in use; stop")
        assert f"--{taken}-address" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--simulate", "8xH999"], "H999"),
        (["--simulate", "many"], "use COUNTxMODEL:SCENARIO"),
        (["--exporter-address", "nowhere"], "HOST:PORT"),
    ],
)
def test_usage_errors_say_how_to_fix_them(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [
        sys.executable, "-m", "gpu_advisor", "up", "--exporter-address", address(), "--advisor-address", address(),
        "--state-dir", str(tmp_path), *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
