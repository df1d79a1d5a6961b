"""The class and function names of the users' guides, as thin layers over `training` and `allocation`.

    from gpu_advisor.compatibility import MemoryManager, OptimizedDataLoader, PerformanceMonitor
    from gpu_advisor.compatibility import TrainingGPUConfig, get_gpu_resource_manager

For code that was written for these names; nothing in gpu_advisor imports them. New code uses the packages below them,
which can do more: docs/compatibility.md has both names. Each name is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_advisor.compatibility.engine import (
        AlgorithmTrainingEngine,
        AlgorithmType,
        TrainingConfig,
        TrainingResult,
    )
    from gpu_advisor.compatibility.frameworks import (
        PyTorchGPUIntegration,
        TensorFlowGPUIntegration,
        get_pytorch_gpu_integration,
        get_tensorflow_gpu_integration,
    )
    from gpu_advisor.compatibility.loaders import OptimizedDataLoader
    from gpu_advisor.compatibility.memory import MemoryManager
    from gpu_advisor.compatibility.monitoring import GPUMonitor, PerformanceMonitor
    from gpu_advisor.compatibility.resources import (
        AllocatedNode,
        GPUNode,
        GPUResourceManager,
        TrainingGPUConfig,
        allocate_gpu_resources,
        cleanup_gpu_resources,
        get_available_gpu_nodes,
        get_gpu_monitoring_data,
        get_gpu_resource_manager,
        gpu_resources,
        train_with_gpu_resources,
        validate_gpu_requirements,
    )
    from gpu_advisor.training.loaders.prefetch import PrefetchLoader

_PACKAGE = __name__
_MODULES = {
    "PrefetchLoader": "gpu_advisor.training.loaders.prefetch",
    "MemoryManager": f"{_PACKAGE}.memory",
    "OptimizedDataLoader": f"{_PACKAGE}.loaders",
    **dict.fromkeys(("GPUMonitor", "PerformanceMonitor"), f"{_PACKAGE}.monitoring"),
    **dict.fromkeys(
        ("AlgorithmTrainingEngine", "AlgorithmType", "TrainingConfig", "TrainingResult"), f"{_PACKAGE}.engine"
    ),
    **dict.fromkeys(
        ("PyTorchGPUIntegration", "TensorFlowGPUIntegration", "get_pytorch_gpu_integration",
         "get_tensorflow_gpu_integration"), f"{_PACKAGE}.frameworks"
    ),
    **dict.fromkeys(
        ("AllocatedNode", "GPUNode", "GPUResourceManager", "TrainingGPUConfig", "allocate_gpu_resources",
         "cleanup_gpu_resources", "get_available_gpu_nodes", "get_gpu_monitoring_data", "get_gpu_resource_manager",
         "gpu_resources", "train_with_gpu_resources", "validate_gpu_requirements"), f"{_PACKAGE}.resources"
    ),
}  # fmt: skip

__all__ = [
    "AlgorithmTrainingEngine",
    "AlgorithmType",
    "AllocatedNode",
    "GPUMonitor",
    "GPUNode",
    "GPUResourceManager",
    "MemoryManager",
    "OptimizedDataLoader",
    "PerformanceMonitor",
    "PrefetchLoader",
    "PyTorchGPUIntegration",
    "TensorFlowGPUIntegration",
    "TrainingConfig",
    "TrainingGPUConfig",
    "TrainingResult",
    "allocate_gpu_resources",
    "cleanup_gpu_resources",
    "get_available_gpu_nodes",
    "get_gpu_monitoring_data",
    "get_gpu_resource_manager",
    "get_pytorch_gpu_integration",
    "get_tensorflow_gpu_integration",
    "gpu_resources",
    "train_with_gpu_resources",
    "validate_gpu_requirements",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
