"""Every key of the settings is read somewhere, and the file of a GPU resource manager loads as it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import gpu_advisor
import pytest
from gpu_advisor.allocation.allocator import LeaseLimits
from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.settings import ConfigError, Settings, load_settings
from pydantic import BaseModel

PACKAGE = Path(gpu_advisor.__file__).parent


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(annotation):
        yield from models(part)


KEYS = sorted({(model, name) for model in models(Settings) for name in model.model_fields}, key=str)


def names_read() -> set[str]:
    """Attributes that are read outside of the settings' own checks, or by their properties and functions."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        checks = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and any("validator" in ast.dump(each) for each in node.decorator_list)
            for inner in ast.walk(node)
        }
        found |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in checks
        }
    return found


#: Keys that only a check reads, because they set another one.
BY_EFFECT = {"tensor_parallel": "gpus_per_replica", "pipeline_parallel": "gpus_per_replica"}


def test_every_key_is_read() -> None:
    read = names_read() | BY_EFFECT.keys()
    assert [f"{model.__name__}.{name}" for model, name in KEYS if name not in read] == []
    assert "min_gbs" not in read  # it would find one that is not


@pytest.mark.parametrize(("key", "set_by_it"), BY_EFFECT.items())
def test_a_key_sets_another(key: str, set_by_it: str) -> None:
    pool = {"name": "p", "kind": "training", "match": {"node": ".*"}}
    plain, changed = (Settings.model_validate({"pools": [{**pool, **more}]}).pools[0] for more in ({}, {key: 2}))
    assert getattr(plain, set_by_it) != getattr(changed, set_by_it)


@pytest.mark.parametrize(
    ("asked", "low", "high", "words"),
    [
        (4.0, 8.0, 128.0, "resources.memory.min_gb"),
        (200.0, 8.0, 128.0, "resources.memory.max_gb"),
        (8.0, 8.0, 8.0, ""),
        (None, 8.0, 128.0, ""),
        (4.0, None, None, ""),
    ],
)
def test_limits_of_a_requests_memory(asked: float | None, low: float | None, high: float | None, words: str) -> None:
    limits = LeaseLimits(min_memory_gb=low, max_memory_gb=high)
    if words:
        with pytest.raises(InvalidRequestError, match=words):
            limits.check_memory(GpuRequest(memory_gb=asked))
    else:
        limits.check_memory(GpuRequest(memory_gb=asked))


MANAGER_FILE = """\
gpu_resource:
  gpu: nvidia.com/gpu
  amd: amd.com/gpu
  intel: intel.com/gpu
  npu: huawei.com/npu
default_gpu_resource_name: "amd.com/gpu"
gpu_memory_specs: {A100: 40}
monitor_update_interval: 45
resource_change_threshold: 0.05
log_level: WARNING
"""


def load(text: str, folder: Path) -> Settings:
    file = folder / "gpu_config.yaml"
    file.write_text(text)
    return load_settings(file)


def test_the_file_of_a_resource_manager_loads_as_it_is(tmp_path: Path) -> None:
    found = load(MANAGER_FILE + "cluster: lab\n", tmp_path)
    allocation = found.allocation
    assert found.cluster == "lab"
    assert allocation.resource_names_by_vendor["huawei"] == ("huawei.com/npu", "huawei.com/Ascend910")
    assert allocation.resource_names_by_vendor["intel"][0] == "intel.com/gpu"
    assert (allocation.default_resource_name, allocation.gpu_memory_specs) == ("amd.com/gpu", {"A100": 40.0})
    assert (allocation.monitor_update_interval, allocation.resource_change_threshold) == (45, 0.05)
    assert allocation.log_level == "WARNING"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cluster: x\nmonitor_update_interval: soon\n", ":2: monitor_update_interval: "),
        ("log_level: INFO\nallocation: {log_level: INFO}\n", ":1: log_level: also set as allocation.log_level"),
        ("gpu_resource:\n  tpu: google.com/tpu\n", ":2: gpu_resource.tpu: unknown vendor; known are amd,"),
        ("gpu_memory_spec: {A100: 80}\n", "did you mean gpu_memory_specs?"),
    ],
)
def test_its_errors_name_the_key_in_the_file(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gpu_config\.yaml") as error:
        load(text, tmp_path)
    assert words in str(error.value)
