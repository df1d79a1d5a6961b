"""Which GPUs are free: what the signals show, what a file lists, and what is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.allocation.inventory_file import overlay_signals, read_inventory
from gpu_advisor.allocation.inventory_provider import InventoryProvider
from gpu_advisor.allocation.model import Inventory
from gpu_advisor.allocation.observed_inventory import inventory_from_facts
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import ConfigError, Settings
from gpu_advisor.state.view import SourceStatus, View

from tests.unit.advisor.builders import AT, ExporterTarget, FakeSource, GpuSpec, facts

GIB = 2**30
CARD = GpuSpec("GPU-1", 0.0, memory=0.0, name="NVIDIA A100-SXM4-80GB")


def gpu_facts(card: GpuSpec = CARD, processes: float | None = 0, total: float | None = 80 * GIB, **more: Any) -> Facts:
    """The facts of one GPU. None is a value that is missing."""
    found = facts([card], **more)
    reported = {signals.PROCESSES.name: processes, signals.MEMORY_TOTAL.name: total}
    values = {name: {card.uuid: value} for name, value in reported.items() if value is not None}
    return replace(found, values={**found.values, **values})


def only_gpu(of: Inventory | None) -> Any:
    assert of is not None
    ((gpu,),) = (node.gpus for node in of.nodes)
    return gpu


FREE: dict[str, tuple[Facts, str]] = {
    "no process": (gpu_facts(), ""),
    "no process, memory unknown": (gpu_facts(replace(CARD, memory=None, utilization=None)), ""),
    "a process": (gpu_facts(processes=1), "used by a process"),
    "somebody's, and idle": (gpu_facts(jobs={"GPU-1": "team/pod"}), "used by team/pod"),
    "a job that reports itself": (gpu_facts(reported_jobs={"GPU-1": "run-7"}), "used by run-7"),
    "on a node of Slurm": (gpu_facts(slurm_nodes=frozenset({CARD.node})), "on a node that Slurm schedules"),
    "beside a node of Slurm": (gpu_facts(slurm_nodes=frozenset({"other"})), ""),
    "down": (gpu_facts(replace(CARD, up=False)), "down"),
    "silent": (gpu_facts(replace(CARD, up=None)), "not reporting"),
    "processes unknown, no memory used": (gpu_facts(processes=None), ""),
    "processes unknown, memory used": (gpu_facts(replace(CARD, memory=0.5), processes=None), "memory allocated"),
    "processes unknown, busy": (gpu_facts(replace(CARD, utilization=0.5), processes=None), "busy"),
    "only utilization known": (gpu_facts(replace(CARD, memory=None), processes=None), "not known to be free"),
    "only memory known": (gpu_facts(replace(CARD, utilization=None), processes=None), "not known to be free"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("sources", "is_slurm"),
    [
        ({"slurm_cgroups": "ok"}, True),
        ({"scontrol": "stale"}, True),
        ({"scontrol": "failed"}, False),  # the program is there, no controller answers, and no slurmd has cgroups
        ({"processes": "ok", "pod_resources": "ok"}, False),
    ],
)
def test_no_gpu_is_leased_where_slurm_schedules(sources: dict[str, str], is_slurm: bool) -> None:
    """Also while none of its jobs runs: there is no second book of leases beside a scheduler."""
    slurm = ExporterTarget("slurm-node:9816", [GpuSpec("GPU-1", 0.0, memory=0.0, node="s")], owner_sources=sources)
    other = ExporterTarget(
        "other:9816", [GpuSpec("GPU-2", 0.0, memory=0.0, node="o")], owner_sources={"processes": "ok"}
    )
    found = evaluate(FakeSource([slurm, other]), Settings(), AT).facts
    assert found.slurm_nodes == ({"s"} if is_slurm else set())
    inventory = inventory_from_facts(found)
    assert inventory is not None
    assert {node.name: node.gpus[0].free for node in inventory.nodes} == {"s": not is_slurm, "o": True}


@pytest.mark.parametrize("name", FREE)
def test_free_only_if_known_to_be(name: str) -> None:
    found, why = FREE[name]
    gpu = only_gpu(inventory_from_facts(found))
    assert gpu.free == (not why)
    assert gpu.unavailable_reason.startswith(why)


@pytest.mark.parametrize("signal", [signals.FATAL_ERRORS, signals.ROW_REMAP_FAILED])
def test_a_gpu_that_failed_is_not_given_out(signal: signals.Signal) -> None:
    found = gpu_facts()
    failed = replace(found, values={**found.values, signal.name: {"GPU-1": 1.0}})
    assert only_gpu(inventory_from_facts(failed)).unavailable_reason == "failed recently"


@pytest.mark.parametrize(
    ("name", "total", "gb"),
    [
        ("NVIDIA A100-SXM4-40GB", 40 * GIB, 40),
        ("NVIDIA A100-SXM4-80GB", 40 * GIB, 40),  # what the card says of itself wins over its name
        ("NVIDIA A100-SXM4-40GB", None, 40),
        ("NVIDIA RTX A6000", None, 48),
        ("NVIDIA TITAN V", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.75 * GIB, 4.75),
    ],
)
def test_memory(name: str, total: float | None, gb: float | None) -> None:
    assert only_gpu(inventory_from_facts(gpu_facts(replace(CARD, name=name), total=total))).memory_gb == gb


def test_a_card_in_slices_is_not_given_out_beside_them() -> None:
    name = "NVIDIA A100-SXM4-40GB"
    cards = [
        replace(CARD, uuid="GPU-0", name=name, index="0"),
        replace(CARD, uuid="MIG-0", name=name, index="0:0"),
        replace(CARD, uuid="MIG-1", name=name, index="0:1"),
        replace(CARD, uuid="GPU-1", name=name, index="1"),
    ]
    sizes = {"GPU-0": 40.0 * GIB, "MIG-0": 4.75 * GIB, "MIG-1": 4.75 * GIB, "GPU-1": 40.0 * GIB}
    found = facts(cards)
    reported = {signals.PROCESSES.name: dict.fromkeys(sizes, 0.0), signals.MEMORY_TOTAL.name: sizes}
    inventory = inventory_from_facts(replace(found, values={**found.values, **reported}))
    assert inventory is not None
    gpus = {gpu.uuid: (gpu.gpu_type, gpu.memory_gb, gpu.free) for gpu in inventory.nodes[0].gpus}
    assert gpus == {
        "GPU-0": ("A100", 40, False), "MIG-0": ("A100MIG", 4.75, True), "MIG-1": ("A100MIG", 4.75, True),
        "GPU-1": ("A100", 40, True),
    }  # fmt: skip


def test_nobody_there_is_no_inventory() -> None:
    assert inventory_from_facts(facts([])) is None


FILE = """
nodes:
  - name: a
    gpus: [{type: A100-80GB, count: 2}, {type: T4, uuid: GPU-1}, {type: TITAN V}]
"""


def read_machines(tmp_path: Path, text: str = FILE) -> Inventory:
    (tmp_path / "machines.yml").write_text(text)
    return read_inventory(tmp_path / "machines.yml", AT, DEFAULT_MEMORY_GB)


def test_a_file(tmp_path: Path) -> None:
    (node,) = read_machines(tmp_path).nodes
    assert [(gpu.index, gpu.uuid, gpu.gpu_type, gpu.memory_gb) for gpu in node.gpus] == [
        (0, "a/0", "A100", 80), (1, "a/1", "A100", 80), (2, "GPU-1", "T4", 16), (3, "a/3", "TITANV", None),
    ]  # fmt: skip


BAD = {
    "nodes: []": "nodes",
    "nodes: [{name: a, gpus: []}]": "gpus",
    "nodes: [{name: a, gpus: [{type: T4, cuont: 2}]}]": "1: nodes.0.gpus.0.cuont: unknown key; did you mean count",
    "nodes: [{name: a, gpus: [{index: 2}]}]": "1: nodes.0.gpus.0.type: is missing: add it",
    "nodes: [{name: a, gpus: [{type: T4, index: one}]}]": "nodes.0.gpus.0.index: .*, not 'one'",
    "nodes: [{name: a, gpus: [T4]}]": "1: nodes.0.gpus.0: must be a mapping",
    "nodes: [{name: a, gpus: [{type: T4, count: 0}]}]": "count",
    "nodes: [{name: a, gpus: [{type: T4, count: 2, uuid: x}]}]": "one by one",
    "nodes: [{name: a, gpus: [{type: T4}]}, {name: a, gpus: [{type: T4}]}]": "duplicate",
    "nodes: [{name: a, gpus: [{type: T4, uuid: x}]}, {name: b, gpus: [{type: T4, uuid: x}]}]": "duplicate uuid x",
    "nodes: [{name: a, gpus: [{type: T4, index: 1}, {type: T4, index: 1}]}]": "duplicate",
    "nodes: [": "not YAML",
    "nodes:\n  - name: 2026-99-99\n": ":2: not YAML",
    "nodes: []\nnodes: []": ":2: nodes: duplicate key",
    "": "the file",
}


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_cannot_be_right_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=BAD[text]):
        read_machines(tmp_path, text)


def test_the_signals_say_more_of_listed_gpus(tmp_path: Path) -> None:
    file = read_machines(tmp_path)
    busy = overlay_signals(file, inventory_from_facts(gpu_facts(processes=2)))
    assert [gpu.free for gpu in busy.nodes[0].gpus] == [True, True, False, True]
    stale = overlay_signals(file, inventory_from_facts(gpu_facts(), stale=True))
    assert [gpu.free for gpu in stale.nodes[0].gpus] == [True, True, False, True]


def test_the_signals_say_more_of_gpus_that_are_listed_by_number(tmp_path: Path) -> None:
    """The usual file has no uuids: what an exporter reports as busy is not given away."""
    file = read_machines(
        tmp_path, "nodes: [{name: node-a, gpus: [{type: A100, count: 2}]}, {name: b, gpus: [{type: A100}]}]"
    )
    for found, free in ((gpu_facts(processes=2), False), (gpu_facts(), True)):
        known = overlay_signals(file, inventory_from_facts(found))
        assert [gpu.free for node in known.nodes for gpu in node.gpus] == [True, free, True]
        assert [gpu.uuid for node in known.nodes for gpu in node.gpus] == ["b/0", "node-a/0", "node-a/1"]


def view(found: Facts | None, up: bool = True) -> View:
    evaluation = None if found is None else decide(found, Settings())
    return View("c", SourceStatus("fake", "memory", up), evaluation)


def test_nothing_is_known_before_the_first_evaluation(tmp_path: Path) -> None:
    """Also with a file: who uses its GPUs is not known."""
    read_machines(tmp_path)
    now = [view(None)]
    machines = InventoryProvider(lambda: now[0], DEFAULT_MEMORY_GB, tmp_path / "machines.yml")
    assert machines() is None
    now[0] = view(facts([]))
    assert machines() is not None


def source_away(view: View) -> View:
    return replace(view, source=replace(view.source, up=False))


def evaluation_hangs(view: View) -> View:
    return replace(view, overdue=True)


@pytest.mark.parametrize("how", [source_away, evaluation_hangs])
def test_a_stale_view_makes_the_inventory_stale(how: Callable[[View], View]) -> None:
    now = [view(gpu_facts())]
    machines = InventoryProvider(lambda: now[0], DEFAULT_MEMORY_GB)
    first = machines()
    assert first is not None
    assert not first.stale
    assert machines() is first, "made once for each evaluation"
    fresh, now[0] = now[0], how(now[0])
    after = machines()
    assert after is not None
    assert after.stale
    now[0] = fresh
    again = machines()
    assert again is not None
    assert not again.stale


def test_a_file_is_read_again_and_a_spoilt_one_is_reported(tmp_path: Path) -> None:
    read_machines(tmp_path)
    file = tmp_path / "machines.yml"
    machines = InventoryProvider(lambda: view(facts([])), DEFAULT_MEMORY_GB, file)
    file.write_text("nodes: [{name: b, gpus: [{type: T4, count: 7}]}]")
    machines.refresh()
    now = machines()
    assert now is not None
    assert [node.name for node in now.nodes] == ["b"]
    file.write_text("nodes: [")
    machines.refresh()
    assert "not YAML" in machines.last_error
    assert machines() is not None
    file.unlink()
    machines.refresh()
    assert "readable" in machines.last_error
