"""Requests in the spellings people use, and what is refused, by field."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import MAX_GPUS, GpuRequest, parse_request
from gpu_advisor.hardware.gpu_types import nominal_gb, parse_gpu_type
from hypothesis import given
from hypothesis import strategies as st

SPELLINGS = {
    "V100": GpuRequest(gpu_type="V100", vendor="nvidia"),
    "tesla-v100-sxm2-16gb": GpuRequest(gpu_type="V100", memory_gb=16, vendor="nvidia"),
    "A100-SXM4-80GB": GpuRequest(gpu_type="A100", memory_gb=80, vendor="nvidia"),
    "NVIDIA H100 80GB HBM3": GpuRequest(gpu_type="H100", memory_gb=80, vendor="nvidia"),
    "NVIDIA GeForce RTX 3090": GpuRequest(gpu_type="RTX3090", vendor="nvidia"),
    "rtx-4090": GpuRequest(gpu_type="RTX4090", vendor="nvidia"),
    "NVIDIA RTX A6000": GpuRequest(gpu_type="A6000", vendor="nvidia"),
    "2xA100-80GB": GpuRequest(2, "A100", 80, vendor="nvidia"),
    "AMD Instinct MI300X": GpuRequest(gpu_type="MI300X", vendor="amd"),
    "Ascend 910": GpuRequest(gpu_type="ASCEND910", vendor="huawei"),
    "nvidia.com/gpu: 2": GpuRequest(2, vendor="nvidia"),
    "nvidia.com/gpu=2": GpuRequest(2, vendor="nvidia"),
    "amd.com/gpu": GpuRequest(vendor="amd"),
    "huawei.com/npu": GpuRequest(vendor="huawei"),
    "huawei.com/Ascend910: 8": GpuRequest(8, vendor="huawei"),
    "gpu.intel.com/i915": GpuRequest(vendor="intel"),
    "gpu.intel.com/xe": GpuRequest(vendor="intel"),
    "intel.com/gpu: 1": GpuRequest(vendor="intel"),
    "nvidia": GpuRequest(vendor="nvidia"),
    "4x40GB": GpuRequest(4, memory_gb=40),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings(text: str) -> None:
    assert parse_request(text) == SPELLINGS[text]
    assert parse_request(text.upper()) == SPELLINGS[text]


def test_resource_limits_as_a_pod_has_them() -> None:
    assert (
        parse_request({"nvidia.com/gpu": 2}) == parse_request({"nvidia.com/gpu": "2"}) == GpuRequest(2, vendor="nvidia")
    )


REFUSED: list[tuple[Any, str]] = [
    ({"gpu_count": 0}, "gpu_count"),
    ({"gpu_count": -1}, "gpu_count"),
    ({"gpu_count": 10**9}, "gpu_count"),
    ({"gpu_count": 1.5}, "gpu_count"),
    ({"gpu_count": True}, "gpu_count"),
    ("0xV100", "gpu_count"),
    ("nvidia.com/gpu: many", "gpu_count"),
    ({"gpu_type": "V1000"}, "gpu_type"),
    ({"gpu_type": "example.com/gpu"}, "gpu_type"),
    ({"gpu_type": 7}, "gpu_type"),
    ("", "gpu_type"),
    ("GeForce", "gpu_type"),
    ({"memory_gb": 0}, "memory_gb"),
    ({"memory_gb": 1e9}, "memory_gb"),
    ({"memory_gb": float("nan")}, "memory_gb"),
    ({"gpu_memory_fraction": 1.5}, "gpu_memory_fraction"),
    ({"gpu_memory_fraction": 0}, "gpu_memory_fraction"),
    ({"mixed_precision": "yes"}, "mixed_precision"),
    ({"gpus": 2}, "gpus"),
    ({"nvidia.com/gpu": 2, "gpu_count": 2}, "nvidia.com/gpu"),
    ({"nvidia.com/gpu": 2, "amd.com/gpu": 2}, "gpu_type"),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_what_makes_no_sense_is_refused_by_field(asked: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parse_request(asked)
    assert refused.value.field == field
    assert len(refused.value.message) > 10


@given(st.one_of(st.text(max_size=30), st.dictionaries(st.text(max_size=12), st.one_of(st.integers(), st.text()))))
def test_anything_is_a_request_or_refused(asked: Any) -> None:
    try:
        found = parse_request(asked)
    except InvalidRequestError:
        return
    assert 1 <= found.gpu_count <= MAX_GPUS


def test_types_of_the_inventory_are_known_too() -> None:
    assert parse_request("TITAN V", types=frozenset({"TITANV"})).gpu_type == "TITANV"


# As nvidia-smi reports them, in MiB, ECC on where it is the default; the last is no card that is known.
REPORTED = [("T4", 15360, 16), ("V100", 16160, 16), ("V100", 32510, 32), ("A100", 40960, 40), ("A100", 81251, 80),
            ("H100", 81559, 80), ("L4", 23034, 24), ("RTX4090", 24564, 24), ("A100MIG1G.5GB", 4864, 4.75)]  # fmt: skip


@pytest.mark.parametrize(("name", "mib", "gb"), REPORTED)
def test_memory_as_sold(name: str, mib: int, gb: float) -> None:
    assert nominal_gb(name, mib * 2**20) == gb


def test_a_partition_is_not_its_card() -> None:
    assert parse_gpu_type("NVIDIA A100-SXM4-40GB MIG 1g.5gb").name == "A100MIG1G.5GB"
