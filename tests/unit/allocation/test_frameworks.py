"""Settings for PyTorch and TensorFlow as data: what an allocation becomes, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.frameworks import (
    AlreadyInitializedError,
    SettingsConflictError,
    SetupOptions,
    UnknownNodeError,
    environment,
    pytorch,
    pytorch_settings,
    tensorflow,
    tensorflow_settings,
)
from gpu_advisor.allocation.frameworks.mixed_precision import choose_mixed_precision
from gpu_advisor.allocation.memory_strategy import (
    MAX_DYNAMIC_RATIO,
    MIN_DYNAMIC_RATIO,
    MemoryStrategy,
    ModelMemory,
    memory_share,
)
from gpu_advisor.allocation.model import NodeAllocation
from gpu_advisor.hardware.gpu_types import GIB, GPU_MEMORY_GIB
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.allocation.allocations import make_allocation

TWO_NODES = (NodeAllocation("a", (1, 3), ("GPU-1", "GPU-3"), "10.0.0.1"), NodeAllocation("b", (0,), ("GPU-b",)))


def one(settings: Any) -> Any:
    (node,) = settings.nodes
    return node


@pytest.mark.parametrize(
    ("vendor", "uuids", "expected"),
    [
        ("nvidia", ("GPU-c", "GPU-a"), {"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-a"}),
        ("nvidia", ("MIG-1", "MIG-2"), {"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-2"}),
        ("nvidia", ("pci-0000:01", "x"), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2"}),
        ("nvidia", ("GPU-c", "x"), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2"}),
        ("nvidia", (), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0,2"}),
        ("amd", ("GPU-c", "GPU-a"), {"HIP_VISIBLE_DEVICES": "0,2"}),
        ("intel", (), {"ZE_AFFINITY_MASK": "0,2"}),
        ("huawei", (), {"ASCEND_RT_VISIBLE_DEVICES": "0,2"}),
    ],
)
def test_a_process_is_narrowed_to_its_gpus(vendor, uuids, expected):
    allocation = replace(make_allocation(), shares=(NodeAllocation("a", (2, 0), uuids),), vendor=vendor)
    assert one(tensorflow_settings(allocation)).environment == expected
    found = one(pytorch_settings(allocation)).environment
    assert {**found, **expected} == found
    assert set(found) - set(expected) <= {"PYTORCH_CUDA_ALLOC_CONF"}


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.2.0", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.9.1+cu128", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.10.0", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.11.0", "PYTORCH_ALLOC_CONF"),
        ("3.0.0a1", "PYTORCH_ALLOC_CONF"),
    ],
)
def test_the_allocator_setting_uses_the_name_the_version_reads(version, name):
    found = one(pytorch_settings(make_allocation(), SetupOptions(version=version))).environment
    assert {key: value for key, value in found.items() if "ALLOC" in key} == {name: "expandable_segments:True"}


def test_lines_that_start_the_job():
    assert one(pytorch_settings(make_allocation(gpus=1))).command == "python train.py"
    options = SetupOptions(script="t.py --epochs 3", port=4321)
    assert one(pytorch_settings(make_allocation(gpus=4), options)).command == (
        "torchrun --standalone --nproc-per-node=4 t.py --epochs 3"
    )
    both = pytorch_settings(replace(make_allocation(), shares=TWO_NODES, id="job-7"), options)
    common = "--rdzv-id=job-7 --rdzv-backend=c10d --rdzv-endpoint=10.0.0.1:4321 t.py --epochs 3"
    assert [node.command for node in both.nodes] == [
        f"torchrun --nnodes=2 --nproc-per-node=2 {common}",
        f"torchrun --nnodes=2 --nproc-per-node=1 {common}",
    ]
    assert (both.world_size, both.backend) == (3, "nccl")


def test_workers_of_tensorflow_know_each_other_and_themselves():
    found = tensorflow_settings(replace(make_allocation(), shares=TWO_NODES), SetupOptions(port=4321))
    reported = [json.loads(node.environment["TF_CONFIG"]) for node in found.nodes]
    assert [each["cluster"] for each in reported] == [{"worker": ["10.0.0.1:4321", "b:4321"]}] * 2
    assert [each["task"] for each in reported] == [{"type": "worker", "index": 0}, {"type": "worker", "index": 1}]
    assert found.strategy == "MultiWorkerMirroredStrategy"
    assert tensorflow_settings(make_allocation(gpus=2)).strategy == "MirroredStrategy"
    assert tensorflow_settings(make_allocation(gpus=1)).strategy == "default"


def test_a_limit_and_growth_exclude_each_other():
    limited = tensorflow_settings(
        make_allocation(memory_gb=16.0), SetupOptions(strategy=MemoryStrategy.AGGRESSIVE)
    ).memory
    assert not limited.growth
    assert limited.limit_mib is not None
    assert limited.limit_mib * (1 << 20) < 15 * GIB  # what a T4 of 16 GB has
    grown = tensorflow_settings(make_allocation(), SetupOptions(growth=True)).memory
    unknown = tensorflow_settings(make_allocation(memory_gb=None)).memory
    assert (grown.growth, grown.limit_mib) == (unknown.growth, unknown.limit_mib) == (True, None)


def test_on_the_cpu_the_gpus_of_others_stay_hidden():
    allocation = replace(make_allocation(mixed_precision=True), shares=(), memory_per_gpu=None)
    for settings in (pytorch_settings(allocation), tensorflow_settings(allocation)):
        assert one(settings).environment["CUDA_VISIBLE_DEVICES"] == "-1"
        assert one(settings).command == "python train.py"
        assert settings.mixed_precision.dtype == "bfloat16"
        assert environment.settings_for_node(settings.nodes, "any") is one(settings)
    assert pytorch_settings(allocation).backend == "gloo"


@pytest.mark.parametrize(
    ("gpu_type", "dtype", "scales"),
    [("V100", "float16", True), ("T4", "float16", True), ("A100", "bfloat16", False), ("RTX4090", "bfloat16", False),
     ("MI300X", "bfloat16", False), ("P100", "float32", False), ("", "auto", None), ("NEWCARD", "auto", None)],
)  # fmt: skip
def test_the_number_type_follows_the_gpu(gpu_type, dtype, scales):
    found = choose_mixed_precision(True, gpu_type)
    assert (found.dtype, found.grad_scaler) == (dtype, scales)
    assert choose_mixed_precision(False, gpu_type).dtype == "float32"


def test_every_type_that_the_planner_knows_has_a_number_type():
    assert [name for name in GPU_MEMORY_GIB if choose_mixed_precision(True, name).dtype == "auto"] == []


@pytest.mark.parametrize("shares", [None, TWO_NODES, ()])
def test_settings_survive_json(shares):
    allocation = make_allocation(mixed_precision=True) if shares is None else replace(make_allocation(), shares=shares)
    torch = pytorch_settings(allocation)
    assert pytorch.pytorch_from_document(json.loads(json.dumps(torch.document()))) == torch
    assert torch.document()["set_environment_before"] == "import torch"
    keras = tensorflow_settings(allocation)
    assert tensorflow.tensorflow_from_document(json.loads(json.dumps(keras.document()))) == keras


# Memory strategies


def test_fixed_shares():
    assert memory_share(MemoryStrategy.CONSERVATIVE, None).ratio == 0.8
    assert memory_share(MemoryStrategy.AGGRESSIVE, None).ratio == 0.95
    assert pytorch_settings(make_allocation(gpu_memory_fraction=0.7)).memory.ratio == 0.7
    chosen = pytorch_settings(
        make_allocation(gpu_memory_fraction=0.7), SetupOptions(strategy=MemoryStrategy.CONSERVATIVE)
    )
    assert chosen.memory.ratio == 0.8


@given(st.floats(1e6, 1e12), st.floats(4, 200), st.booleans())
def test_the_dynamic_share_holds_the_model_where_it_fits(parameters, memory_gib, mixed):
    need = ModelMemory(parameters)
    found = memory_share(MemoryStrategy.DYNAMIC, memory_gib * GIB, need, mixed)
    assert MIN_DYNAMIC_RATIO <= found.ratio <= MAX_DYNAMIC_RATIO
    fits = need.total_bytes(mixed) * 1.1 <= MAX_DYNAMIC_RATIO * memory_gib * GIB
    assert not fits or found.ratio * memory_gib * GIB >= need.total_bytes(mixed) * 1.1 * (1 - 1e-9)
    assert fits == ("unlikely to fit" not in found.why)
    larger = memory_share(MemoryStrategy.DYNAMIC, memory_gib * GIB, ModelMemory(2 * parameters), mixed)
    assert larger.ratio >= found.ratio


def test_the_dynamic_share_by_hand():
    # 1e9 parameters: 18 GB of states, as much again of activations, and a tenth: 39.6 GB of 80 GiB (85.9 GB).
    assert memory_share(MemoryStrategy.DYNAMIC, 80 * GIB, ModelMemory(1e9), True).ratio == 0.47
    assert memory_share(MemoryStrategy.DYNAMIC, 80 * GIB, ModelMemory(peak_bytes=40 * GIB), True).ratio == 0.55
    assert memory_share(MemoryStrategy.DYNAMIC, 80 * GIB, ModelMemory(1e9, 4e9), False).ratio == 0.3


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: memory_share(MemoryStrategy.DYNAMIC, GIB), "model_parameters"),
        (lambda: memory_share(MemoryStrategy.DYNAMIC, None, ModelMemory(1e9)), "memory_gb"),
        (lambda: memory_share(MemoryStrategy.DYNAMIC, GIB, ModelMemory(-1)), "model_parameters"),
        (lambda: memory_share(MemoryStrategy.DYNAMIC, GIB, ModelMemory(float("inf"))), "model_parameters"),
        (lambda: SetupOptions(port=0), "port"),
        (lambda: SetupOptions(script=" "), "script"),
    ],
)
def test_what_makes_no_sense_is_named(wrong, field):
    with pytest.raises(InvalidRequestError) as caught:
        wrong()
    assert caught.value.field == field


# The environment of a process


@pytest.fixture
def _clean(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "framework_here", sys)


@pytest.mark.usefixtures("_clean")
def test_too_late_is_an_error_with_the_line_that_fixes_it(monkeypatch):
    with pytest.raises(AlreadyInitializedError, match=r"CUDA_VISIBLE_DEVICES=GPU-1"):
        environment.set_environment({"CUDA_VISIBLE_DEVICES": "GPU-1"}, "framework_here")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    environment.set_environment({"CUDA_VISIBLE_DEVICES": "GPU-1"}, "framework_here")  # it was started that way


@pytest.mark.usefixtures("_clean")
def test_what_others_have_set_is_not_overwritten(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(SettingsConflictError, match="unset CUDA_VISIBLE_DEVICES"):
        environment.set_environment({"CUDA_VISIBLE_DEVICES": "1"}, "framework_not_here")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    with pytest.raises(SettingsConflictError, match="unset PYTORCH_CUDA_ALLOC_CONF"):
        environment.set_environment({"NEW": "x"}, "framework_not_here", {"PYTORCH_CUDA_ALLOC_CONF": "NEW"})


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(("found", "right"), [("", True), ("-1", True), ("0", False)])
def test_gpus_that_are_hidden_already_stay_so(monkeypatch, found, right):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", found)
    if right:
        environment.set_environment({"CUDA_VISIBLE_DEVICES": "-1"}, "framework_here")
    else:
        with pytest.raises(SettingsConflictError):
            environment.set_environment({"CUDA_VISIBLE_DEVICES": "-1"}, "framework_here")


def test_which_node_this_is(monkeypatch):
    nodes = pytorch_settings(replace(make_allocation(), shares=TWO_NODES)).nodes
    monkeypatch.setattr("socket.gethostname", lambda: "b.cluster.example")
    assert environment.settings_for_node(nodes, None).node_name == "b"
    assert environment.settings_for_node(nodes, "a").node_name == "a"
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    with pytest.raises(UnknownNodeError, match="node='a' or 'b'"):
        environment.settings_for_node(nodes, None)
