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

from gpu_advisor.allocation.model import Gpu, Inventory, Node
from gpu_advisor.hardware.gpu_types import type_name
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.settings.loader import ConfigError

MOST_ON_NODE = 256


class GpusListed(StrictModel):
    """GPUs of one node. Without uuid they go by the node's name and their index."""

    type: str = Field(min_length=1, max_length=100)
    count: int = Field(1, ge=1, le=MOST_ON_NODE)
    index: int | None = Field(None, ge=0, le=MOST_ON_NODE)
    uuid: str = Field("", max_length=200)
    memory_gb: float | None = Field(None, gt=0, le=10_000)
    vendor: str = ""

    @model_validator(mode="after")
    def _one(self) -> GpusListed:
        if self.count > 1 and (self.uuid or self.index is not None):
            raise ValueError("uuid and index are of one GPU: list GPUs that have them one by one, without count")
        return self


class NodeListed(StrictModel):
    name: str = Field(min_length=1, max_length=253)
    address: str = ""
    gpus: list[GpusListed] = Field(min_length=1)


class FileListed(StrictModel):
    nodes: list[NodeListed] = Field(min_length=1)


def read(path: Path, at: float, specs: Mapping[str, float]) -> Inventory:
    """The inventory in a file; `at` in seconds since 1970. Raises ConfigError with the mend."""
    try:
        listed = FileListed.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; give the path of a readable YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    nodes = tuple(Node(node.name, tuple(_gpus(node, specs)), node.address) for node in listed.nodes)
    _refuse_doubles(path, nodes)
    return Inventory(tuple(sorted(nodes, key=lambda node: node.name)), at)


def overlaid(listed: Inventory, seen: Inventory | None) -> Inventory:
    """The listed machines with what the signals tell of the same GPUs, by uuid: who uses them, and how much.

    Of GPUs that no exporter tells of, the file's word is taken. Of others that word alone is not enough: while the
    signals are old, they are not free.
    """
    if seen is None:
        return listed
    known = {gpu.uuid: gpu for node in seen.nodes for gpu in node.gpus}

    def told(gpu: Gpu) -> Gpu:
        now = known.get(gpu.uuid)
        if now is None:
            return gpu
        if seen.stale:
            return replace(gpu, free=False, why_not="not known to be free: the data source does not answer")
        return replace(
            gpu, utilization_ratio=now.utilization_ratio, memory_used_ratio=now.memory_used_ratio,
            free=now.free, why_not=now.why_not,
        )  # fmt: skip

    nodes = tuple(replace(node, gpus=tuple(map(told, node.gpus))) for node in listed.nodes)
    return replace(listed, nodes=nodes, at=seen.at)


def _gpus(node: NodeListed, specs: Mapping[str, float]) -> Iterator[Gpu]:
    following = 0
    for listed in node.gpus:
        kind = type_name(listed.type)
        memory = listed.memory_gb or kind.memory_gb or specs.get(kind.name)
        for _ in range(listed.count):
            index = following if listed.index is None else listed.index
            following = index + 1
            uuid = listed.uuid or f"{node.name}/{index}"
            yield Gpu(index, uuid, kind.name, memory, listed.vendor or kind.vendor)


def _refuse_doubles(path: Path, nodes: tuple[Node, ...]) -> None:
    """Of a GPU that is listed twice, both could be given out."""
    keys = [f"node {node.name}" for node in nodes]
    keys += [f"{node.name} GPU {gpu.index}" for node in nodes for gpu in node.gpus]
    keys += [f"uuid {gpu.uuid}" for node in nodes for gpu in node.gpus]
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ConfigError(f"{path}: {key} is there twice: list each once")
        seen.add(key)
