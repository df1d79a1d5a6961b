"""Mapping files of the user: what is wrong is named with file, line and a remedy; what is right replaces or adds."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from gpu_advisor.commands.mappings import command
from gpu_advisor.evaluation import signals
from gpu_advisor.sources.exporters.mapping_files import MappingError, mappings, parse_mapping, read_mappings

GOOD = """\
name: mlu-exporter
scope: gpu
by: [uuid]
identity: {metrics: [mlu_utilization]}
labels: {uuid: [sn, [node, mlu]], index: mlu, name: model}
quantities:
  gpu_utilization: {gauge: {metric: mlu_utilization, scale: 0.01}}
  gpu_memory_used:
    level:
      part: {metric: mlu_memory_used}
      whole: {metric: mlu_memory_total}
"""
PAGE = """\
mlu_utilization{sn="N/A",mlu="0",node="n1",model="M"} 40
mlu_utilization{sn="N/A",mlu="1",node="n1",model="M"} 60
mlu_memory_used{sn="N/A",mlu="0",node="n1",model="M"} 1
mlu_memory_total{sn="N/A",mlu="0",node="n1",model="M"} 4
mlu_power{sn="N/A",mlu="0",node="n1"} 100
"""
#: What is replaced in GOOD, by what, the line that is named, and parts of the message.
MISTAKES: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "quantity": ("gpu_utilization:", "gpu_utilisation:", 7, ("gpu_utilisation", "did you mean gpu_utilization?")),
    "form": ("gauge:", "guage:", 7, ("quantities.gpu_utilization.guage", "did you mean gauge?")),
    "form of a level": ("whole:", "hole:", 11, ("gpu_memory_used.level.hole", "did you mean whole?")),
    "label": ("index: mlu", "indx: mlu", 5, ("labels.indx", "did you mean index?")),
    "key": ("identity:", "identitys:", 4, ("identitys", "did you mean identity?")),
    "missing key": ("scope: gpu\n", "", 1, ("scope: is missing: add it",)),
    "value": ("scope: gpu", "scope: disk", 2, ("scope", "'gpu'", "not 'disk'")),
    "number": ("scale: 0.01", "scale: percent", 7, ("scale", "number", "'percent'")),
    "regular expression": (
        "metric: mlu_memory_used", 'metric: m, match: {a: "~("}', 10, ("match", "not a regular expression"),
    ),
    "empty definition": (
        "{gauge: {metric: mlu_utilization, scale: 0.01}}", "{each: [uuid]}", 7, ("give one of share",)
    ),
    "labels of no form": ("uuid: [sn, [node, mlu]]", "uuid: {a: b}", 5, ("labels.uuid", "give a label")),
    "not YAML": ("by: [uuid]", "by: [uuid", 4, ("not YAML",)),
    "duplicate key": ("scope: gpu", "scope: gpu\nscope: node", 3, ("scope: duplicate key",)),
    "internal key": ("scope: gpu", "scope: gpu\nidentified_by: [a]", 3, ("identified_by", "unknown key")),
}  # fmt: skip


def write(folder: Path, text: str, name: str = "mlu.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def names(directory: Path) -> list[str]:
    return [mapping.name for mapping in read_mappings(str(directory))]


def test_a_mapping_of_the_user_is_added(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    (tmp_path / "readme.txt").write_text("not a mapping")
    assert set(names(tmp_path)) == {mapping.name for mapping in mappings()} | {"mlu-exporter"}


def test_a_mapping_of_the_user_replaces_one_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("mlu-exporter", "dcgm-exporter"))
    assert sorted(names(tmp_path)) == sorted(mapping.name for mapping in mappings())
    [found] = [mapping for mapping in read_mappings(str(tmp_path)) if mapping.name == "dcgm-exporter"]
    assert found.identity.metrics == ("mlu_utilization",)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_a_remedy(tmp_path: Path, mistake: str) -> None:
    old, new, line, parts = MISTAKES[mistake]
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(MappingError) as raised:
        read_mappings(str(tmp_path))
    messages = str(raised.value).splitlines()
    assert any(f"{file}:{line}:" in each and all(part in each for part in parts) for each in messages), messages


def test_every_problem_is_named(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("scope: gpu", "scope: disk").replace("gauge:", "guage:"))
    with pytest.raises(MappingError) as raised:
        read_mappings(str(tmp_path))
    assert len(str(raised.value).splitlines()) >= 2


@pytest.mark.parametrize(
    ("text", "part"), [("", "must be a mapping"), ("- a", "must be a mapping"), ("\x00", "not YAML")]
)
def test_what_is_no_mapping_at_all(text: str, part: str) -> None:
    with pytest.raises(MappingError, match=part):
        parse_mapping(text, "x.yaml")


def test_directories_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="give the path of a directory"):
        read_mappings(str(tmp_path / "missing"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(MappingError, match=r"binary\.yaml:1: not UTF-8"):
        read_mappings(str(tmp_path))


def test_one_name_in_two_files(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "other.yml")
    with pytest.raises(MappingError, match=r"other\.yml:1: name: mlu-exporter .*mlu\.yaml.*rename one"):
        read_mappings(str(tmp_path))


def test_quantities_of_signals_are_all_in_shipped_mappings() -> None:
    """They are the catalogue against which a user's file is checked."""
    known = {quantity for mapping in mappings() for quantity in mapping.quantities}
    assert {signal.quantity for signal in signals.SIGNALS} <= known


def test_prefixed_metrics_are_the_same_mapping() -> None:
    plain, prefixed = (each for each in mappings() if each.name.startswith("amd-device"))
    assert prefixed.name == "amd-device-metrics-exporter (amd_*)"
    assert prefixed.identity.metrics == tuple(f"amd_{metric}" for metric in plain.identity.metrics)
    assert prefixed.quantities.keys() == plain.quantities.keys()
    level = prefixed.definitions("gpu_memory_used")[0].level
    assert level is not None
    assert level.part.metric == "amd_gpu_used_vram"


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "mappings"
    folder.mkdir()
    write(folder, GOOD)
    page = write(tmp_path, PAGE, "page.prom")
    done = CliRunner().invoke(command, ["test", str(page), "--mappings-dir", str(folder)])
    assert done.exit_code == 0, done.output
    for part in ("n1~0", "n1~1", "0.4 ratio", "0.25 ratio", "identified_by=node/mlu", "no mapping reads: mlu_power"):
        assert part in done.output
    bare = CliRunner().invoke(command, ["test", str(page)])
    assert bare.exit_code == 1
    assert "mlu_utilization" in bare.output
    assert "--mappings-dir" in bare.output
    shared = write(tmp_path, PAGE.replace('sn="N/A"', 'sn="7"'), "shared.prom")
    twice = CliRunner().invoke(command, ["test", str(shared), "--mappings-dir", str(folder)])
    assert "several GPUs are identified by 7" in twice.output
    assert "several GPUs" not in done.output
    listed = CliRunner().invoke(command, ["list", "--mappings-dir", str(folder)])
    assert "mlu-exporter" in listed.output
    assert "dcgm-exporter" in listed.output
    write(folder, GOOD.replace("gauge", "guage"))
    wrong = CliRunner().invoke(command, ["list", "--mappings-dir", str(folder)])
    assert wrong.exit_code == 1
    assert "did you mean gauge?" in wrong.output
    nothing = CliRunner().invoke(command, ["test", str(write(tmp_path, "{} {", "bad.prom"))])
    assert nothing.exit_code == 1
    assert "not in Prometheus' text format" in nothing.output
