"""The file of a GPU resource manager, whose keys stand at the top level, as settings of allocation. Pure.

gpu_resource: {gpu: nvidia.com/gpu, nvidia: nvidia.com/gpu, amd: amd.com/gpu, npu: huawei.com/npu}
default_gpu_resource_name: nvidia.com/gpu
gpu_memory_specs: {A100: 80}
monitor_update_interval: 30
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_advisor.hardware.gpu_types import RESOURCE_NAMES, vendor_of_resource

SECTION = "allocation"

#: Key at the top level -> key of `allocation`.
MOVED_KEYS: Mapping[str, str] = {
    "gpu_resource": "resource_names",
    "default_gpu_resource_name": "default_resource_name",
    "gpu_memory_specs": "gpu_memory_specs",
    "monitor_update_interval": "monitor_update_interval",
    "resource_change_threshold": "resource_change_threshold",
    "log_level": "log_level",
}

#: Names of `gpu_resource` -> vendor. `gpu` is of the vendor whose resource it names.
_VENDORS = {**{vendor: vendor for vendor in RESOURCE_NAMES}, "npu": "huawei", "gpu": ""}

Path = tuple[str | int, ...]


class MovedKeyError(ValueError):
    """A key cannot be moved: at `path`, with words on how to fix it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def move_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with such keys in their section. Raises MovedKeyError."""
    moved = {key: values[key] for key in MOVED_KEYS if key in values}
    rest = {key: value for key, value in values.items() if key not in moved}
    section = rest.get(SECTION, {})
    if not moved or not isinstance(section, Mapping):
        return dict(values)
    for key in moved:
        if MOVED_KEYS[key] in section:
            raise MovedKeyError((key,), f"also set as {SECTION}.{MOVED_KEYS[key]}: remove one of them")
    added = {
        MOVED_KEYS[key]: _resource_names(value) if key == "gpu_resource" else value for key, value in moved.items()
    }
    return {**rest, SECTION: {**section, **added}}


def original_path(path: Path, values: Mapping[str, Any]) -> Path:
    """Where a path of the moved settings stands in the file."""
    for key, moved in MOVED_KEYS.items():
        if path[:2] == (SECTION, moved) and key in values:
            return (key, *path[2:])
    return path


def _resource_names(given: Any) -> Any:
    """Names by vendor, the given one first and the vendor's usual ones after it."""
    if not isinstance(given, Mapping):
        return given
    names = {vendor: list(usual) for vendor, usual in RESOURCE_NAMES.items()}
    for key, name in given.items():
        vendor = _VENDORS.get(key)
        if vendor is None:
            raise MovedKeyError(("gpu_resource", key), f"unknown vendor; known are {', '.join(sorted(_VENDORS))}")
        vendor = vendor or vendor_of_resource(str(name)) or "nvidia"
        names[vendor] = [name, *(other for other in names[vendor] if other != name)]
    return names
