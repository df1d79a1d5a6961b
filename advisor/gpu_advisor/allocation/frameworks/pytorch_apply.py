"""PyTorch's settings put in force in this process."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from gpu_advisor.allocation.frameworks import environment
from gpu_advisor.allocation.frameworks.errors import MissingDevicesError, SetupError
from gpu_advisor.allocation.frameworks.pytorch import (
    NEW_ALLOCATOR_VARIABLE,
    OLD_ALLOCATOR_VARIABLE,
    NodePyTorchSettings,
    PyTorchSettings,
    allocator_variable,
    from_document,
)
from gpu_advisor.extras import install_hint

if TYPE_CHECKING:
    import torch

#: The variable that takes all settings to a child process, as JSON.
SETTINGS_VARIABLE = "GPU_ADVISOR_PYTORCH"


@dataclass(frozen=True, slots=True)
class AppliedPyTorch:
    """What holds in this process. `device` is its own: of several processes on a node each has one."""

    device: torch.device
    dtype: torch.dtype
    memory_ratio: float | None
    scales_gradients: bool

    def autocast(self) -> AbstractContextManager[Any]:
        """Around the forward pass and the loss."""
        import torch

        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Which does nothing where none is needed."""
        import torch

        if not hasattr(torch.amp, "GradScaler"):  # before 2.3
            return torch.cuda.amp.GradScaler(enabled=self.scales_gradients)
        return torch.amp.GradScaler(self.device.type, enabled=self.scales_gradients)


def child_environment(settings: PyTorchSettings, node: str | None = None) -> dict[str, str]:
    """The environment of a node's processes, as torchrun starts them, in which `apply_pytorch()` finds the settings."""
    part = environment.settings_for_node(settings.nodes, node)
    return {**part.environment, SETTINGS_VARIABLE: json.dumps(replace(settings, nodes=(part,)).document())}


def apply_pytorch(settings: PyTorchSettings | None = None, node: str | None = None) -> AppliedPyTorch:
    """Before `import torch` in the program. `node` is this machine's name, where there are several. Without settings:
    those that `child_environment` gave to the process that started this one.

    Started by torchrun, a process takes the device of its LOCAL_RANK. Raises SetupError: too late, another setting in
    the environment, another number of devices than was allocated.
    """
    settings = settings or _settings_from_environment()
    part = _with_installed_variable(environment.settings_for_node(settings.nodes, node))
    environment.set_environment(part.environment, "torch", _aliases(part))
    try:
        import torch
    except ImportError as error:
        raise SetupError(f"PyTorch is not installed: {install_hint('train')}") from error
    if settings.device_type == "cpu":
        return _make_applied(settings, torch.device("cpu"), None, bfloat16=True)
    devices = getattr(torch, settings.device_type, None)
    if devices is None:
        raise SetupError(f"this PyTorch has no torch.{settings.device_type}: install the build for these devices")
    found = devices.device_count()
    if found != part.gpu_count:
        raise MissingDevicesError(
            f"PyTorch {torch.__version__} sees {found} devices, {part.gpu_count} are allocated here "
            f"({' '.join(f'{name}={value}' for name, value in part.environment.items())}): see that this is node "
            f"{part.node_name!r}, that its driver works and that PyTorch is built for {settings.device_type}"
        )
    local_rank = os.environ.get("LOCAL_RANK")
    own = [int(local_rank)] if local_rank is not None else list(range(found))
    if own[0] >= found:
        raise SetupError(
            f"LOCAL_RANK is {local_rank}, but there are {found} devices: start one process a device, as {part.command}"
        )
    devices.set_device(own[0])
    for index in own:
        devices.set_per_process_memory_fraction(float(settings.memory.ratio), index)
    bfloat16 = settings.device_type != "cuda" or torch.cuda.get_device_capability(own[0]) >= (8, 0)
    return _make_applied(settings, torch.device(settings.device_type, own[0]), settings.memory.ratio, bfloat16)


def _settings_from_environment() -> PyTorchSettings:
    text = os.environ.get(SETTINGS_VARIABLE)
    if text is None:
        raise SetupError(
            f"{SETTINGS_VARIABLE} is not set: give the settings to apply_pytorch, or start this program as "
            "examples/allocation/launch.py does"
        )
    try:
        return from_document(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise SetupError(f"{SETTINGS_VARIABLE} holds no settings ({error}): leave it as it was handed on") from error


def _with_installed_variable(part: NodePyTorchSettings) -> NodePyTorchSettings:
    """The allocator's variable under the name that the PyTorch that is installed here takes."""
    named = next((name for name in (NEW_ALLOCATOR_VARIABLE, OLD_ALLOCATOR_VARIABLE) if name in part.environment), None)
    if named is None:
        return part
    if (
        os.environ.get(OLD_ALLOCATOR_VARIABLE) == part.environment[named]
    ):  # started with it: every version heeds the old name
        variables = {name: value for name, value in part.environment.items() if name != named}
        return replace(part, environment=variables | {OLD_ALLOCATOR_VARIABLE: part.environment[named]})
    try:
        right = allocator_variable(metadata.version("torch"))
    except metadata.PackageNotFoundError:
        return part
    variables = dict(part.environment)
    variables[right] = variables.pop(named)
    return replace(part, environment=variables)


def _aliases(part: NodePyTorchSettings) -> dict[str, str]:
    """The old name goes before the new one where both are set."""
    return {OLD_ALLOCATOR_VARIABLE: NEW_ALLOCATOR_VARIABLE} if NEW_ALLOCATOR_VARIABLE in part.environment else {}


def _make_applied(
    settings: PyTorchSettings, device: torch.device, memory_ratio: float | None, bfloat16: bool
) -> AppliedPyTorch:
    import torch

    wanted = settings.mixed_precision
    name = wanted.dtype if wanted.dtype != "auto" else "bfloat16" if bfloat16 else "float16"
    scales = wanted.grad_scaler if wanted.grad_scaler is not None else name == "float16"
    return AppliedPyTorch(device, getattr(torch, name), memory_ratio, scales)
