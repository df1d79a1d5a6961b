"""PyTorch and TensorFlow settings for an allocation: as data, and as functions that apply them.

Settings are pure functions of an allocation and cover all its nodes. `apply_pytorch` and `apply_tensorflow` apply them
in the calling process, before it imports the framework.
"""

from __future__ import annotations

from gpu_advisor.allocation.frameworks.errors import (
    AlreadyInitializedError,
    MissingDevicesError,
    SettingsConflictError,
    SetupError,
    UnknownNodeError,
)
from gpu_advisor.allocation.frameworks.options import SetupOptions
from gpu_advisor.allocation.frameworks.pytorch import PyTorchSettings, pytorch_settings
from gpu_advisor.allocation.frameworks.pytorch_apply import AppliedPyTorch, apply_pytorch, child_environment
from gpu_advisor.allocation.frameworks.tensorflow import TensorFlowSettings, tensorflow_settings
from gpu_advisor.allocation.frameworks.tensorflow_apply import AppliedTensorFlow, apply_tensorflow

__all__ = [
    "AlreadyInitializedError",
    "AppliedPyTorch",
    "AppliedTensorFlow",
    "MissingDevicesError",
    "PyTorchSettings",
    "SettingsConflictError",
    "SetupError",
    "SetupOptions",
    "TensorFlowSettings",
    "UnknownNodeError",
    "apply_pytorch",
    "apply_tensorflow",
    "child_environment",
    "pytorch_settings",
    "tensorflow_settings",
]
