"""Exporter settings: flags, the YAML file with the same keys, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter.cli import main
from gpu_exporter.config import ExporterSettings, SettingsError, load_settings, parse_duration
from gpu_exporter.wiring import build_sampler

COLLECTORS = ("host", "cpu", "nvidia")


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "e.yml"
    file.write_text(
        "web.listen-address: 127.0.0.1:1\ncollector: {cpu: false}\nsimulate: {seed: 3}\nsampling.interval: 2s\n"
    )
    settings = load_settings(
        ["--config.file", str(file), "--web.listen-address=[::1]:2", "--no-collector.nvidia"], COLLECTORS
    )
    assert settings.address == ("::1", 2)
    assert settings.disabled == {"cpu", "nvidia"}
    assert (settings.simulate_seed, settings.sampling_interval) == (3, "2s")
    assert load_settings([], COLLECTORS) == ExporterSettings()
    assert load_settings(["--config.file", str(file), "--collector.cpu"], COLLECTORS).disabled == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web:\n  listen-adress: x", ":2: web.listen-adress: unknown key; did you mean web.listen-address?"),
        ("\n\nsimulate.seed: many", ":3: simulate.seed: 'many' must be an integer"),
        ("collector.cpu: 1", ":1: collector.cpu: 1 must be true or false"),
        ("web.listen-address: 9816", ":1: web.listen-address: '9816' must be HOST:PORT, for example"),
        ("web.listen-address: true", ":1: web.listen-address: True must be a string (put it in quotes)"),
        (
            "log.level: info\nsampling:\n  interval: 15",
            ":3: sampling.interval: '15' is not a duration: use a number and",
        ),
        ("\nlog: {level: DEBUG}", ":2: log.level: 'DEBUG' must be debug, info, warning or error"),
        ("node.name: a\nnode: {name: b}", "e.yml:1: node.name; remove one"),
        ("simulate:", ":1: simulate: has no value; give one, or remove the key"),
        ("collector: cpu", ":1: collector: needs a key below it, such as collector.cpu"),
        ("node.name: 2026-13-45", "e.yml:1: node.name: '2026-13-45' must be a string"),
        ("collector: {netdev: {device-exclude: '('}}", ":1: collector.netdev.device-exclude: '(' is not a regular"),
        ("\n- a", ":2: no keys; write one KEY: VALUE per line"),
        ("a: [", "not YAML"),
    ],
)
def test_invalid_file_is_rejected_with_place_and_fix(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "e.yml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(["--config.file", str(file)], COLLECTORS)
    assert message in str(refused.value)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampling.interval=0s"], "greater than 0s"),
        (["--sampling.interval=1"], "use a number and a unit"),
        (["--web.listen-address=9816"], "HOST:PORT"),
        (["--web.listen-address=a:70000"], "HOST:PORT"),
        (["--web.telemetry-path=metrics"], "must be a path that starts with /"),
        (["--web.telemetry-path=/a b"], "without spaces"),
        (["--web.telemetry-path=/-/healthy"], "not below /-/"),
        (["--collector.filesystem.mount-points-exclude=("], "not a regular expression"),
        (["--simulate.seed=x"], "--simulate.seed: 'x' must be an integer"),
        (["--compat.dcgm=yes"], "--compat.dcgm: takes no value: write --compat.dcgm or --no-compat.dcgm"),
        (["--collector.cpu=false"], "takes no value: write --collector.cpu or --no-collector.cpu"),
        (["--sampling.interval", "-1s"], "--sampling.interval: needs a value: write --sampling.interval=VALUE"),
        (["--samplng.interval=1s"], "--samplng.interval: unknown flag; did you mean --sampling.interval?"),
        (["--no-collector.nvidea"], "did you mean --no-collector.nvidia?"),
        (["--zzz"], "--zzz: unknown flag; see gpu-exporter --help"),
        (["start"], "unexpected argument 'start': all settings are flags"),
        (["--simulate.history=1h"], "requires --simulate"),
        (["--log.level=loud"], "must be debug"),
        (["--config.file=/nowhere/e.yml"], "readable file"),
    ],
)
def test_invalid_flags_are_rejected_with_the_fix(flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(flags, COLLECTORS)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("15s", 15), ("1.5m", 90), ("6h", 21600), ("7d", 604800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_a_number_in_the_file_is_the_text_as_written(tmp_path: Path) -> None:
    file = tmp_path / "e.yml"
    file.write_text("node.name: 007\n")
    assert load_settings(["--config.file", str(file)], COLLECTORS).node_name == "007"


def test_a_wrong_flag_is_reported_as_one_even_if_the_file_has_the_key(tmp_path: Path) -> None:
    file = tmp_path / "e.yml"
    file.write_text("log.level: info\n")
    with pytest.raises(SettingsError, match=r"^--log\.level: 'loud' must be"):
        load_settings(["--config.file", str(file), "--log.level=loud"], COLLECTORS)


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        load_settings(["--help"], COLLECTORS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "NAME is one of host, cpu, nvidia." in " ".join(" ".join(lines).split())
    assert not any(line.endswith("-") for line in lines)


@pytest.mark.parametrize("key", ["path.procfs", "path.sysfs", "path.rootfs"])
def test_a_file_system_of_the_host_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    assert main([f"--{key}={tmp_path}/none", "--web.listen-address=127.0.0.1:0"]) == 2
    assert f"--{key}: '{tmp_path}/none' is not a directory; mount the host's there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "fix"),
    [("192.0.2.1:0", "no interface has this address"), ("name.invalid:9816", "the name has no address")],
)
def test_an_address_that_cannot_be_listened_on_is_reported_with_the_fix(
    capsys: pytest.CaptureFixture[str], address: str, fix: str
) -> None:
    assert main(["--simulate=1xT4-16GB", f"--web.listen-address={address}"]) == 1
    assert fix in capsys.readouterr().err


@pytest.mark.parametrize(
    "key",
    [
        "collector.owners.pod-resources-socket", "collector.owners.slurm-config", "collector.owners.scontrol",
        "path.udev.data",
    ],
)  # fmt: skip
def test_a_path_that_may_come_later_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str) -> None:
    build_sampler(load_settings([f"--{key}={tmp_path}/none"], COLLECTORS), {})
    [warning] = [record.message for record in caplog.records if "does not exist" in record.message]
    assert warning.startswith(f"--{key}: {tmp_path}/none does not exist")
    caplog.clear()
    build_sampler(load_settings([f"--{key}={tmp_path}"], COLLECTORS), {})
    assert not [record for record in caplog.records if "does not exist" in record.message]
