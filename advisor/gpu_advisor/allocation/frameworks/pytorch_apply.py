"""Applies PyTorch settings in this process."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from gpu_advisor.allocation.frameworks import environment
from gpu_advisor.allocation.frameworks.errors import AlreadyInitializedError, MissingDevicesError, SetupError
from gpu_advisor.allocation.frameworks.pytorch import (
    NEW_ALLOCATOR_VARIABLE,
    OLD_ALLOCATOR_VARIABLE,
    PyTorchSettings,
    allocator_variable,
    pytorch_from_document,
)
from gpu_advisor.allocation.frameworks.visible_devices import NodeSettings
from gpu_advisor.extras import install_hint

if TYPE_CHECKING:
    import torch

#: Environment variable that passes the settings to child processes, as JSON.
SETTINGS_VARIABLE = "GPU_ADVISOR_PYTORCH"


@dataclass(frozen=True, slots=True)
class AppliedPyTorch:
    """The settings in effect. `device`: of this process; each process on a node has its own."""

    device: torch.device
    dtype: torch.dtype
    memory_ratio: float | None
    scales_gradients: bool

    def autocast(self) -> AbstractContextManager[Any]:
        """Use it around the forward pass and the loss."""
        import torch

        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, disabled if none is needed."""
        import torch

        if not hasattr(torch.amp, "GradScaler"):  # before 2.3
            return torch.cuda.amp.GradScaler(enabled=self.scales_gradients)
        return torch.amp.GradScaler(self.device.type, enabled=self.scales_gradients)


def child_environment(settings: PyTorchSettings, node: str | None = None) -> dict[str, str]:
    """Environment for a node's processes, such as torchrun's, in which `apply_pytorch()` finds the settings."""
    part = environment.settings_for_node(settings.nodes, node)
    return {**part.environment, SETTINGS_VARIABLE: json.dumps(replace(settings, nodes=(part,)).document())}


def apply_pytorch(settings: PyTorchSettings | None = None, node: str | None = None) -> AppliedPyTorch:
    """Apply the settings, before the program imports torch, or for the CPU before it looks for GPUs.

    `node`: this node's name, if there are several. Without `settings`: those from `child_environment` in this
    process's environment.

    A process started by torchrun gets the device of its LOCAL_RANK. Raises SetupError if it is too late, if the
    environment has another value, or if the number of devices differs from the allocation.
    """
    settings = settings or _settings_from_environment()
    part = _with_installed_variable(environment.settings_for_node(settings.nodes, node))
    on_cpu = settings.device_type == "cpu"
    environment.set_environment(part.environment, None if on_cpu else "torch", _aliases(part))
    try:
        import torch
    except ImportError as error:
        raise SetupError(f"PyTorch is not installed: {install_hint('train')}") from error
    if on_cpu:
        _check_hidden(part)
        return _make_applied(settings, torch.device("cpu"), None, bfloat16=True)
    devices = getattr(torch, settings.device_type, None)
    if devices is None:
        raise SetupError(f"this PyTorch has no torch.{settings.device_type}: install the build for these devices")
    found = devices.device_count()
    if found != part.gpu_count:
        raise MissingDevicesError(
            f"PyTorch {torch.__version__} finds {found} devices, but {part.gpu_count} are allocated on this node "
            f"({' '.join(f'{name}={value}' for name, value in part.environment.items())}): check that this is node "
            f"{part.node_name!r}, that its driver works and that PyTorch is built for {settings.device_type}"
        )
    local_rank = os.environ.get("LOCAL_RANK")
    own = [int(local_rank)] if local_rank is not None else list(range(found))
    if own[0] >= found:
        raise SetupError(
            f"LOCAL_RANK is {local_rank}, but there are {found} devices: start one process per device: {part.command}"
        )
    devices.set_device(own[0])
    for index in own:
        devices.set_per_process_memory_fraction(float(settings.memory.ratio), index)
    bfloat16 = settings.device_type != "cuda" or torch.cuda.get_device_capability(own[0]) >= (8, 0)
    return _make_applied(settings, torch.device(settings.device_type, own[0]), settings.memory.ratio, bfloat16)


def _check_hidden(part: NodeSettings) -> None:
    """Raises AlreadyInitializedError if PyTorch sees GPUs: the driver reads which are visible once, not on import but
    when it starts, and torch.cuda.is_available() starts it."""
    import torch

    if torch.cuda.is_available():
        line = " ".join(f"{name}={value}" for name, value in sorted(part.environment.items()))
        raise AlreadyInitializedError(
            "PyTorch has looked for GPUs before they were hidden: apply these settings before torch.cuda is used, "
            f"torch.cuda.is_available() too, or start the program with {line}"
        )


def _settings_from_environment() -> PyTorchSettings:
    text = os.environ.get(SETTINGS_VARIABLE)
    if text is None:
        raise SetupError(
            f"{SETTINGS_VARIABLE} is not set: pass settings to apply_pytorch, or start this program as "
            "examples/allocation/launch.py does"
        )
    try:
        return pytorch_from_document(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise SetupError(f"{SETTINGS_VARIABLE} is invalid ({error}): pass it on unchanged") from error


def _with_installed_variable(part: NodeSettings) -> NodeSettings:
    """With the allocator's variable under the name that the installed PyTorch reads."""
    named = next((name for name in (NEW_ALLOCATOR_VARIABLE, OLD_ALLOCATOR_VARIABLE) if name in part.environment), None)
    if named is None:
        return part
    if os.environ.get(OLD_ALLOCATOR_VARIABLE) == part.environment[named]:  # already set; all versions read the old name
        variables = {name: value for name, value in part.environment.items() if name != named}
        return replace(part, environment=variables | {OLD_ALLOCATOR_VARIABLE: part.environment[named]})
    try:
        supported = allocator_variable(metadata.version("torch"))
    except metadata.PackageNotFoundError:
        return part
    variables = dict(part.environment)
    variables[supported] = variables.pop(named)
    return replace(part, environment=variables)


def _aliases(part: NodeSettings) -> dict[str, str]:
    """If both are set, the old name takes precedence."""
    return {OLD_ALLOCATOR_VARIABLE: NEW_ALLOCATOR_VARIABLE} if NEW_ALLOCATOR_VARIABLE in part.environment else {}


def _make_applied(
    settings: PyTorchSettings, device: torch.device, memory_ratio: float | None, bfloat16: bool
) -> AppliedPyTorch:
    import torch

    precision = settings.mixed_precision
    name = precision.dtype if precision.dtype != "auto" else "bfloat16" if bfloat16 else "float16"
    scales = precision.grad_scaler if precision.grad_scaler is not None else name == "float16"
    return AppliedPyTorch(device, getattr(torch, name), memory_ratio, scales)
