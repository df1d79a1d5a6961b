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
    from gpu_advisor.compatibility.engine import AlgorithmTrainingEngine as AlgorithmTrainingEngine
    from gpu_advisor.compatibility.engine import AlgorithmType as AlgorithmType
    from gpu_advisor.compatibility.engine import TrainingConfig as TrainingConfig
    from gpu_advisor.compatibility.engine import TrainingResult as TrainingResult
    from gpu_advisor.compatibility.frameworks import PyTorchGPUIntegration as PyTorchGPUIntegration
    from gpu_advisor.compatibility.frameworks import TensorFlowGPUIntegration as TensorFlowGPUIntegration
    from gpu_advisor.compatibility.frameworks import get_pytorch_gpu_integration as get_pytorch_gpu_integration
    from gpu_advisor.compatibility.frameworks import get_tensorflow_gpu_integration as get_tensorflow_gpu_integration
    from gpu_advisor.compatibility.loaders import OptimizedDataLoader as OptimizedDataLoader
    from gpu_advisor.compatibility.memory import MemoryManager as MemoryManager
    from gpu_advisor.compatibility.monitoring import GPUMonitor as GPUMonitor
    from gpu_advisor.compatibility.monitoring import PerformanceMonitor as PerformanceMonitor
    from gpu_advisor.compatibility.resources import AllocatedNode as AllocatedNode
    from gpu_advisor.compatibility.resources import GPUNode as GPUNode
    from gpu_advisor.compatibility.resources import GPUResourceManager as GPUResourceManager
    from gpu_advisor.compatibility.resources import TrainingGPUConfig as TrainingGPUConfig
    from gpu_advisor.compatibility.resources import allocate_gpu_resources as allocate_gpu_resources
    from gpu_advisor.compatibility.resources import cleanup_gpu_resources as cleanup_gpu_resources
    from gpu_advisor.compatibility.resources import get_available_gpu_nodes as get_available_gpu_nodes
    from gpu_advisor.compatibility.resources import get_gpu_monitoring_data as get_gpu_monitoring_data
    from gpu_advisor.compatibility.resources import get_gpu_resource_manager as get_gpu_resource_manager
    from gpu_advisor.compatibility.resources import gpu_resources as gpu_resources
    from gpu_advisor.compatibility.resources import train_with_gpu_resources as train_with_gpu_resources
    from gpu_advisor.compatibility.resources import validate_gpu_requirements as validate_gpu_requirements
    from gpu_advisor.training.loaders.prefetch import PrefetchLoader as PrefetchLoader

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

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
