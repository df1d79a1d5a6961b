"""What a training job imports: a monitor, a memory manager, data loaders. Needs the extra `train`, that is PyTorch.

Each name is loaded when it is first used: the import itself costs nothing, and a job that uses the monitor alone does
not need Lightning or Transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_advisor.training.callbacks.huggingface import HuggingFaceMonitor
    from gpu_advisor.training.callbacks.lightning import LightningMonitor
    from gpu_advisor.training.loaders.optimized import OptimizedDataLoader
    from gpu_advisor.training.loaders.prefetch import PrefetchLoader
    from gpu_advisor.training.memory.manager import MemoryManager
    from gpu_advisor.training.monitor import TrainingMonitor
    from gpu_advisor.training.publishers import MonitorError

_MODULES = {
    "HuggingFaceMonitor": "callbacks.huggingface",
    "LightningMonitor": "callbacks.lightning",
    "MemoryManager": "memory.manager",
    "MonitorError": "publishers",
    "OptimizedDataLoader": "loaders.optimized",
    "PrefetchLoader": "loaders.prefetch",
    "TrainingMonitor": "monitor",
}

__all__ = [
    "HuggingFaceMonitor",
    "LightningMonitor",
    "MemoryManager",
    "MonitorError",
    "OptimizedDataLoader",
    "PrefetchLoader",
    "TrainingMonitor",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
