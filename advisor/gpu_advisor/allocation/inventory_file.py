"""The inventory file: nodes without an exporter, or the subset of GPUs to allocate.

nodes:
  - name: node-a
    address: 10.0.0.1          # for connections between the processes of a job; optional
    gpus:
      - {type: A100-80GB, count: 8}
  - name: node-b
    gpus:
      - {type: T4, index: 0, uuid: GPU-5f7c2e1d-...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from gpu_advisor.allocation.model import Inventory, InventoryGpu, InventoryNode
from gpu_advisor.hardware.gpu_types import parse_gpu_type
from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.settings.loader import ConfigError
from gpu_advisor.yaml_text import YamlError, explain_problems, read_yaml

MAX_GPUS_PER_NODE = 256


class GpuEntry(StrictModel):
    """GPUs of one node. Without uuid, the key is NODE/INDEX."""

    type: str = Field(min_length=1, max_length=100)
    count: int = Field(1, ge=1, le=MAX_GPUS_PER_NODE)
    index: int | None = Field(None, ge=0, le=MAX_GPUS_PER_NODE)
    uuid: str = Field("", max_length=200)
    memory_gb: float | None = Field(None, gt=0, le=10_000)
    vendor: str = ""

    @model_validator(mode="after")
    def _check_single_gpu(self) -> GpuEntry:
        if self.count > 1 and (self.uuid or self.index is not None):
            raise ValueError("uuid and index belong to one GPU: list such GPUs one by one, without count")
        return self


class NodeEntry(StrictModel):
    name: str = Field(min_length=1, max_length=253)
    address: str = ""
    gpus: list[GpuEntry] = Field(min_length=1)


class InventoryFile(StrictModel):
    nodes: list[NodeEntry] = Field(min_length=1)


def read_inventory(path: Path, at: float, specs: Mapping[str, float]) -> Inventory:
    """Read an inventory file; `at`: Unix time. Raises ConfigError."""
    try:
        document = read_yaml(path)
        listed = InventoryFile.model_validate(document.values)
    except YamlError as error:
        raise ConfigError(str(error)) from error
    except ValidationError as error:
        raise ConfigError(explain_problems(document, str(path), error.errors(), _suggest_key)) from error
    nodes = tuple(InventoryNode(node.name, tuple(_expand_gpus(node, specs)), node.address) for node in listed.nodes)
    _check_duplicates(path, nodes)
    return Inventory(tuple(sorted(nodes, key=lambda node: node.name)), at)


def _suggest_key(unknown: str) -> str:
    name = unknown.rpartition(".")[2]
    return hint(name, [key for model in (InventoryFile, NodeEntry, GpuEntry) for key in model.model_fields])


def overlay_signals(listed: Inventory, observed: Inventory | None) -> Inventory:
    """The listed nodes, with utilization and availability of the same GPUs from the signals: of the same uuid, or of
    those listed without one, of the same node and index.

    A GPU that no exporter reports counts as free. One that an exporter reports is not free while the signals are stale.
    """
    if observed is None:
        return listed
    known: dict[str, InventoryGpu] = {}
    for node in observed.nodes:
        for reported in node.gpus:
            known[reported.uuid] = reported
            known.setdefault(_key(node.name, reported.index), reported)  # a board comes before its MIG instances

    def overlay(gpu: InventoryGpu) -> InventoryGpu:
        now = known.get(gpu.uuid)
        if now is None:
            return gpu
        if observed.stale:
            return replace(gpu, free=False, unavailable_reason="not known to be free: the data source does not respond")
        return replace(
            gpu, utilization_ratio=now.utilization_ratio, memory_used_ratio=now.memory_used_ratio,
            free=now.free, unavailable_reason=now.unavailable_reason,
        )  # fmt: skip

    nodes = tuple(replace(node, gpus=tuple(map(overlay, node.gpus))) for node in listed.nodes)
    return replace(listed, nodes=nodes, at=observed.at)


def _expand_gpus(node: NodeEntry, specs: Mapping[str, float]) -> Iterator[InventoryGpu]:
    next_index = 0
    for listed in node.gpus:
        kind = parse_gpu_type(listed.type)
        memory = listed.memory_gb or kind.memory_gb or specs.get(kind.name)
        for _ in range(listed.count):
            index = next_index if listed.index is None else listed.index
            next_index = index + 1
            yield InventoryGpu(
                index, listed.uuid or _key(node.name, index), kind.name, memory, listed.vendor or kind.vendor
            )


def _key(node: str, index: int) -> str:
    """Of a GPU that is listed without a uuid."""
    return f"{node}/{index}"


def _check_duplicates(path: Path, nodes: tuple[InventoryNode, ...]) -> None:
    """A GPU that is listed twice could be allocated twice."""
    keys = [f"node {node.name}" for node in nodes]
    keys += [f"{node.name} GPU {gpu.index}" for node in nodes for gpu in node.gpus]
    keys += [f"uuid {gpu.uuid}" for node in nodes for gpu in node.gpus]
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ConfigError(f"{path}: duplicate {key}: list it once")
        seen.add(key)
