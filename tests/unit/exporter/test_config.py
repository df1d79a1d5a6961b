"""Exporter settings: flags, the YAML file with the same keys, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_exporter.config import ExporterSettings, SettingsError, load_settings, parse_duration

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
        ("web.listen-address: 9816", ":1: web.listen-address: 9816 must be a string (put it in quotes)"),
        ("- a", ": unknown key"),
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
        (["--web.telemetry-path=metrics"], "must start with /"),
        (["--collector.filesystem.mount-points-exclude=("], "not a regular expression"),
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
