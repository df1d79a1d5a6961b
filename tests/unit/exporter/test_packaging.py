"""The systemd units and the example settings, checked by systemd and by the exporter."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from gpu_exporter import config
from gpu_exporter.devices import DRIVERS
from gpu_exporter.host import COLLECTORS

from tests.servers import require_binary

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "exporter" / "gpu-exporter.service"
ADVISOR_UNIT = ROOT / "advisor" / "gpu-advisor.service"
EXAMPLE = ROOT / "exporter" / "exporter.example.yml"

Sections = dict[str, dict[str, list[str]]]


def unit(path: Path = UNIT) -> Sections:
    """Settings by section and name, in order; a name may occur more than once."""
    sections: Sections = {}
    settings: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            settings = sections.setdefault(header[1], defaultdict(list))
            continue
        # No continuation lines, and no comments after a value, which would be part of it.
        setting = re.fullmatch(r"([A-Z]\w*)=([^#]*)", line)
        assert setting, f"line {number}: {line}"
        settings[setting[1]].append(setting[2].strip())
    return sections


@pytest.mark.parametrize("path", [UNIT, ADVISOR_UNIT], ids=lambda path: path.stem)
def test_unit_has_three_sections_and_starts_the_installed_command(path: Path) -> None:
    sections = unit(path)
    assert list(sections) == ["Unit", "Service", "Install"]
    [start] = sections["Service"]["ExecStart"]
    program, *arguments = start.split()
    assert program.startswith("/")
    scripts = re.search(r"\[project\.scripts\](.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert scripts
    assert f"{Path(program).name} = " in scripts[1]
    [settings] = re.findall(r"--config(?:\.file=| )(\S+)", " ".join(arguments))
    install = path.read_text().split("[Unit]")[0]
    assert {settings, program.removesuffix(f"/bin/{Path(program).name}"), str(path.relative_to(ROOT))} <= {
        *re.findall(r"[\w./-]+", install)
    }, "the comment on how to install puts it elsewhere"


@pytest.mark.parametrize("path", [UNIT, ADVISOR_UNIT], ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("SystemCallFilter", "@system-service"),
        ("Restart", "on-failure"),
    ],
)
def test_unit_is_hardened(path: Path, name: str, value: str) -> None:
    assert unit(path)["Service"][name] == [value]


def test_units_open_no_more_devices_than_needed() -> None:
    assert unit()["Service"]["DevicePolicy"] == ["closed"]
    assert unit(ADVISOR_UNIT)["Service"]["PrivateDevices"] == ["yes"]


def test_unit_allows_everything_that_is_read() -> None:
    service = unit()["Service"]
    assert any(re.fullmatch(r"char-nvidia\* rw", device) for device in service["DeviceAllow"])
    for hiding in ("PrivateDevices", "PrivateNetwork", "PrivateUsers", "ProtectProc", "ProcSubset"):
        assert hiding not in service, f"{hiding} hides what the exporter reads"


def test_unit_limits_memory_generously() -> None:
    [limit] = unit()["Service"]["MemoryMax"]
    assert limit.endswith("M")
    assert 64 <= int(limit[:-1]) <= 512
    from gpu_exporter.server import MAX_CONNECTIONS

    assert int(unit()["Service"]["TasksMax"][0]) >= MAX_CONNECTIONS + 64


def test_unit_and_image_set_the_same_arena_limit() -> None:
    [environment] = unit()["Service"]["Environment"]
    assert "MALLOC_ARENA_MAX=2" in environment.split()
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    [exporter] = [stage for stage in stages if stage.startswith("runtime AS exporter\n")]
    assert "\nENV MALLOC_ARENA_MAX=2\n" in exporter


def test_unit_does_not_restart_after_a_usage_error() -> None:
    from gpu_exporter.cli import USAGE_ERROR

    assert unit()["Service"]["RestartPreventExitStatus"] == [str(USAGE_ERROR)]


@pytest.mark.parametrize("path", [UNIT, ADVISOR_UNIT], ids=lambda path: path.stem)
def test_systemd_accepts_the_unit(path: Path, tmp_path: Path) -> None:
    program = require_binary("systemd-analyze")
    [start] = unit(path)["Service"]["ExecStart"]
    copy = tmp_path / path.name
    # The only accepted error: the command is not installed here.
    copy.write_text(path.read_text().replace(start.split()[0], "/bin/true"))
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert not complaints


def _names() -> tuple[str, ...]:
    return ("host", *DRIVERS, *COLLECTORS)


def test_example_settings_are_valid() -> None:
    settings = config.load_settings([f"--config.file={EXAMPLE}"], _names())
    assert settings.listen_address == config.ExporterSettings().listen_address
    assert settings.sampling_interval == config.ExporterSettings().sampling_interval


def test_commented_example_settings_are_valid(tmp_path: Path) -> None:
    lines = [re.sub(r"^# (?=[a-z][\w.-]*: \S+$)", "", line) for line in EXAMPLE.read_text().splitlines()]
    before, after = yaml.safe_load(EXAMPLE.read_text()), yaml.safe_load("\n".join(lines))
    assert len(after) >= len(before) + 4
    path = tmp_path / "exporter.yml"
    path.write_text("\n".join(lines))
    assert "host" in config.load_settings([f"--config.file={path}"], _names()).disabled


def test_example_uses_the_state_directory_of_the_unit() -> None:
    [state] = unit()["Service"]["StateDirectory"]
    assert yaml.safe_load(EXAMPLE.read_text())["state.directory"] == f"/var/lib/{state}"
