"""The API of training jobs: monitor, memory manager, data loaders. Needs PyTorch (the extra `train`).

Each name is imported on first use: a job that uses only the monitor needs neither Lightning nor Transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_advisor.training.callbacks.huggingface import HuggingFaceMonitor as HuggingFaceMonitor
    from gpu_advisor.training.callbacks.lightning import LightningMonitor as LightningMonitor
    from gpu_advisor.training.collector import TrainingCollector as TrainingCollector
    from gpu_advisor.training.loaders.optimized import OptimizedDataLoader as OptimizedDataLoader
    from gpu_advisor.training.loaders.prefetch import PrefetchLoader as PrefetchLoader
    from gpu_advisor.training.memory.manager import MemoryManager as MemoryManager
    from gpu_advisor.training.memory.weights import class_weight as class_weight
    from gpu_advisor.training.memory.weights import count_tokens as count_tokens
    from gpu_advisor.training.memory.weights import token_weight as token_weight
    from gpu_advisor.training.monitor import TrainingMonitor as TrainingMonitor
    from gpu_advisor.training.publishers import MonitorError as MonitorError

_MODULES = {
    "HuggingFaceMonitor": "callbacks.huggingface",
    "LightningMonitor": "callbacks.lightning",
    "MemoryManager": "memory.manager",
    "MonitorError": "publishers",
    "OptimizedDataLoader": "loaders.optimized",
    "PrefetchLoader": "loaders.prefetch",
    "TrainingCollector": "collector",
    "TrainingMonitor": "monitor",
    "class_weight": "memory.weights",
    "count_tokens": "memory.weights",
    "token_weight": "memory.weights",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
