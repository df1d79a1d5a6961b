"""GPU leases of a real service: the pages' curl lines, two services on one database, kill -9 under load."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
import yaml

from benchmarks.allocation import LeaseLoad, run_with_kills
from benchmarks.allocation_clients import ClientWorkload
from tests.own_processes import Program, advisor, up
from tests.polling import wait_until
from tests.servers import free_port, require_binary

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "allocation.md"
FLEET = "8xA100-80GB:idle,4xT4-16GB:idle"
API = "/api/v1/gpu"
MACHINES = {"nodes": [{"name": "a", "gpus": [{"type": "T4", "count": 4}]}]}


#: curl as it is, but it fails for an error of HTTP, and writes down what was asked and answered.
CURL = r"""
curl() {{
    local out
    out=$(command curl --fail-with-body -w '\n#%{{method}} %{{url_effective}} %{{http_code}}' "$@")
    printf '%s\n' "$out" >>"{log}"
    printf '%s\n' "${{out%$'\n#'*}}"
}}
"""


def address() -> str:
    return f"127.0.0.1:{free_port()}"


def gpus_discovered(program: Program) -> bool:
    return bool(requests.get(f"{program.url}{API}/status", timeout=60).status_code == 200)


def script(page: str) -> str:
    """All lines of the page that a shell runs, in their order, with those that go on."""
    lines = [line[4:] for line in page.splitlines() if line.startswith("    ")]
    text = "\n".join(lines)
    return "\n".join(re.findall(r"^(?:curl|ID=)(?:.*\\\n(?:.*(?:\n(?=  ))?)*|.*)$", text, re.MULTILINE))


def test_the_lines_of_the_page_work(tmp_path: Path) -> None:
    """Every operation, from curl, against a service over a simulated fleet."""
    require_binary("curl")
    there = address()
    with up(tmp_path, address(), there, FLEET) as program:
        wait_until(lambda: gpus_discovered(program), "GPUs", program)
        log = tmp_path / "curl.log"
        lines = CURL.format(log=log) + script(PAGE.read_text()).replace("http://127.0.0.1:9817", program.url)
        ran = subprocess.run(["bash", "-euo", "pipefail", "-c", lines], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        answers = re.findall(rf"^(.*)\n*#(\w+) {program.url}{API}/(\S+) \d+$", log.read_text(), re.MULTILINE)
        reached = {(method, re.sub(r"[0-9a-f]{32}", "ID", path.partition("?")[0])) for _, method, path in answers}
        assert reached == {
            ("GET", "status"), ("GET", "nodes"), ("POST", "validate"), ("POST", "allocate"), ("POST", "setup-pytorch"),
            ("POST", "setup-tensorflow"), ("POST", "allocations/ID/renew"), ("GET", "allocations/ID"),
            ("DELETE", "allocations/ID"), ("GET", "allocations"), ("GET", "health"), ("GET", "monitoring"),
        }  # fmt: skip
        reported: dict[str, Any] = {path.partition("?")[0]: json.loads(text) for text, _, path in answers if text}
        assert reported["status"].keys() >= {"utilization", "available_nodes", "total_nodes", "timestamp"}
        assert {row["gpu_type"]: row["available_gpus"] for row in reported["status"]["available_nodes"]} == {
            "A100": 8,
            "T4": 4,
        }
        assert reported["allocate"]["memory_per_gpu"] == 80
        assert reported["setup-pytorch"]["world_size"] == 2
        assert all(uuid.startswith("GPU-") for uuid in reported["allocate"]["nodes"][0]["gpu_uuids"])
        assert reported["allocations"]["total"] == 1
        assert program.get(f"{API}/allocations")["total"] == 0


def test_no_gpu_twice_no_lease_lost_none_leaked_under_kill_9() -> None:
    """The benchmark in small; it waits for nothing but its own answers."""
    small = LeaseLoad(ClientWorkload(8, 63, 1.0, 60.0, ("A100", "T4"), 4), kills=2, nodes=1, processes=1)
    found = run_with_kills(small)
    assert found["violations"] == []
    assert found["kills"] == 2
    assert found["free_in_the_end"] == found["gpus"]
    assert min(found["answers"][name] for name in ("allocate ok", "allocate refused", "release ok")) > 0


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    file = tmp_path / "machines.yml"
    file.write_text(yaml.safe_dump(MACHINES))
    return {
        "source": {"embedded": {"targets": []}},
        "allocation": {"inventory_file": str(file), "database": str(tmp_path / "leases.db"), **more},
    }


def test_two_services_on_one_database(tmp_path: Path) -> None:
    """The first has it; the second says who, and what to do."""
    with advisor(tmp_path, address(), settings(tmp_path)) as first:
        other = tmp_path / "other.yml"
        listen = {"state_dir": str(tmp_path / "other"), "web": {"listen_address": address()}}
        other.write_text(yaml.safe_dump({**settings(tmp_path), **listen}))
        command = [sys.executable, "-m", "gpu_advisor", "serve", "--config", str(other)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert f"in use by another gpu-advisor (process {first.process.pid})" in second.stderr
        assert "Traceback" not in second.stderr
        wait_until(lambda: gpus_discovered(first), "the first goes on", first)


def test_leases_outlive_their_service(tmp_path: Path) -> None:
    asked = {"gpu_count": 3, "client_token": "mine"}
    with advisor(tmp_path, address(), settings(tmp_path)) as before:
        wait_until(lambda: gpus_discovered(before), "GPUs", before)
        made = requests.post(f"{before.url}{API}/allocate", json=asked, timeout=60).json()
        before.kill()
    with advisor(tmp_path, address(), settings(tmp_path)) as after:
        wait_until(lambda: gpus_discovered(after), "GPUs", after)
        again = requests.post(f"{after.url}{API}/allocate", json=asked, timeout=60).json()
        assert (again["id"], again["nodes"], again["expires"]) == (made["id"], made["nodes"], made["expires"])
        refused = requests.post(f"{after.url}{API}/allocate", json={"gpu_count": 2}, timeout=60)
        assert refused.status_code == 409


def command(program: Program, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "gpu_advisor", "allocate", "--advisor", program.url, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def test_the_command(tmp_path: Path) -> None:
    with advisor(tmp_path, address(), settings(tmp_path)) as program:
        wait_until(lambda: gpus_discovered(program), "GPUs", program)
        made = json.loads(command(program, "3xT4", "--lease", "100", "--format", "json").stdout)[0]
        assert made["nodes"][0]["gpu_indices"] == [0, 1, 2]
        full = command(program, "nvidia.com/gpu: 2")
        assert (full.returncode, full.stdout) == (3, "")
        assert "a: 1 of 4 are free and match, 3 leased" in full.stderr
        assert made["id"] in command(program, "--list").stdout
        assert command(program, "--release", made["id"]).returncode == 0
        assert command(program, "--dry-run", "4xT4").stdout.split() == ["node", "gpus", "a", "0,1,2,3"]
        assert command(program, "--renew", made["id"]).returncode == 1
