"""The machines as a file lists them, for those who run no exporter, or want to give out less than there is.

nodes:
  - name: node-a
    address: 10.0.0.1          # where the processes of one job reach each other; may be left out
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

import yaml
from pydantic import Field, ValidationError, model_validator

from gpu_advisor.allocation.model import Gpu, Inventory, InventoryNode
from gpu_advisor.hardware.gpu_types import parse_gpu_type
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.settings.loader import ConfigError

MAX_GPUS_PER_NODE = 256


class GpuEntry(StrictModel):
    """GPUs of one node. Without uuid they go by the node's name and their index."""

    type: str = Field(min_length=1, max_length=100)
    count: int = Field(1, ge=1, le=MAX_GPUS_PER_NODE)
    index: int | None = Field(None, ge=0, le=MAX_GPUS_PER_NODE)
    uuid: str = Field("", max_length=200)
    memory_gb: float | None = Field(None, gt=0, le=10_000)
    vendor: str = ""

    @model_validator(mode="after")
    def _check_single_gpu(self) -> GpuEntry:
        if self.count > 1 and (self.uuid or self.index is not None):
            raise ValueError("uuid and index are of one GPU: list GPUs that have them one by one, without count")
        return self


class NodeEntry(StrictModel):
    name: str = Field(min_length=1, max_length=253)
    address: str = ""
    gpus: list[GpuEntry] = Field(min_length=1)


class InventoryFile(StrictModel):
    nodes: list[NodeEntry] = Field(min_length=1)


def read_inventory(path: Path, at: float, specs: Mapping[str, float]) -> Inventory:
    """The inventory in a file; `at` in seconds since 1970. Raises ConfigError with the mend."""
    try:
        listed = InventoryFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; give the path of a readable YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    nodes = tuple(InventoryNode(node.name, tuple(_expand_gpus(node, specs)), node.address) for node in listed.nodes)
    _check_duplicates(path, nodes)
    return Inventory(tuple(sorted(nodes, key=lambda node: node.name)), at)


def overlay_signals(listed: Inventory, seen: Inventory | None) -> Inventory:
    """The listed machines with what the signals tell of the same GPUs, by uuid: who uses them, and how much.

    Of GPUs that no exporter tells of, the file's word is taken. Of others that word alone is not enough: while the
    signals are old, they are not free.
    """
    if seen is None:
        return listed
    known = {gpu.uuid: gpu for node in seen.nodes for gpu in node.gpus}

    def overlay(gpu: Gpu) -> Gpu:
        now = known.get(gpu.uuid)
        if now is None:
            return gpu
        if seen.stale:
            return replace(gpu, free=False, why_not="not known to be free: the data source does not answer")
        return replace(
            gpu, utilization_ratio=now.utilization_ratio, memory_used_ratio=now.memory_used_ratio,
            free=now.free, why_not=now.why_not,
        )  # fmt: skip

    nodes = tuple(replace(node, gpus=tuple(map(overlay, node.gpus))) for node in listed.nodes)
    return replace(listed, nodes=nodes, at=seen.at)


def _expand_gpus(node: NodeEntry, specs: Mapping[str, float]) -> Iterator[Gpu]:
    next_index = 0
    for listed in node.gpus:
        kind = parse_gpu_type(listed.type)
        memory = listed.memory_gb or kind.memory_gb or specs.get(kind.name)
        for _ in range(listed.count):
            index = next_index if listed.index is None else listed.index
            next_index = index + 1
            uuid = listed.uuid or f"{node.name}/{index}"
            yield Gpu(index, uuid, kind.name, memory, listed.vendor or kind.vendor)


def _check_duplicates(path: Path, nodes: tuple[InventoryNode, ...]) -> None:
    """Of a GPU that is listed twice, both could be given out."""
    keys = [f"node {node.name}" for node in nodes]
    keys += [f"{node.name} GPU {gpu.index}" for node in nodes for gpu in node.gpus]
    keys += [f"uuid {gpu.uuid}" for node in nodes for gpu in node.gpus]
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ConfigError(f"{path}: {key} is there twice: list each once")
        seen.add(key)
