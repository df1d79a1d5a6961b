"""Applies TensorFlow settings in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gpu_advisor.allocation.frameworks import environment
from gpu_advisor.allocation.frameworks.errors import AlreadyInitializedError, MissingDevicesError, SetupError
from gpu_advisor.allocation.frameworks.tensorflow import TensorFlowSettings, keras_policy


@dataclass(frozen=True, slots=True)
class AppliedTensorFlow:
    """The settings in effect. `devices`: TensorFlow's physical devices."""

    devices: tuple[Any, ...]
    policy: str
    strategy_name: str

    def strategy(self, devices: Sequence[str] | None = None) -> Any:
        """The tf.distribute strategy to build the model in. With several nodes it blocks until all have started.

        `devices`: logical devices of a MirroredStrategy, by default all GPUs.
        """
        distribute = import_module("tensorflow").distribute
        if self.strategy_name == "MirroredStrategy":
            return distribute.MirroredStrategy(devices)
        return (
            distribute.get_strategy() if self.strategy_name == "default" else distribute.MultiWorkerMirroredStrategy()
        )


def apply_tensorflow(settings: TensorFlowSettings, node: str | None = None) -> AppliedTensorFlow:
    """Apply the settings, before the program imports tensorflow. `node`: this node's name, if there are several.

    Raises SetupError if it is too late, if the environment has another value, or if the number of devices differs from
    the allocation.
    """
    part = environment.settings_for_node(settings.nodes, node)
    environment.set_environment(part.environment, "tensorflow")
    try:
        tf: Any = import_module("tensorflow")
    except ImportError as error:
        raise SetupError("TensorFlow is not installed: pip install tensorflow") from error
    found = tuple(tf.config.list_physical_devices(settings.device_type))
    if settings.device_type != "CPU":
        if len(found) != part.gpu_count:
            raise MissingDevicesError(
                f"TensorFlow {tf.__version__} finds {len(found)} devices of type {settings.device_type}, but "
                f"{part.gpu_count} are allocated on this node "
                f"({' '.join(f'{name}={value}' for name, value in part.environment.items())}): check that this is node "
                f"{part.node_name!r}, that its driver works and that TensorFlow is built for these devices"
            )
        _limit_memory(tf, settings, found)
    policy = settings.policy if settings.policy != "auto" else keras_policy(_mixed_dtype(tf, found))
    tf.keras.mixed_precision.set_global_policy(policy)
    return AppliedTensorFlow(found, policy, settings.strategy)


def _limit_memory(tf: Any, settings: TensorFlowSettings, devices: Sequence[Any]) -> None:
    memory = settings.memory
    try:
        for device in devices:
            if memory.growth:
                tf.config.experimental.set_memory_growth(device, True)
            elif memory.limit_mib is not None:
                limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory.limit_mib)
                tf.config.set_logical_device_configuration(device, [limit])
    except RuntimeError as error:
        raise AlreadyInitializedError(
            f"TensorFlow's runtime has already started ({error}): apply these settings before creating any tensor"
        ) from error
    except ValueError as error:
        raise SetupError(
            f"the program has already configured these devices ({error}): a memory limit and growth exclude each "
            "other, so let these settings configure both"
        ) from error


def _mixed_dtype(tf: Any, devices: Sequence[Any]) -> str:
    """bfloat16 from compute capability 8.0 on; no mixed precision if the device does not report it."""
    capabilities = [tf.config.experimental.get_device_details(each).get("compute_capability") for each in devices]
    if not capabilities or None in capabilities:
        return "float32"
    return "bfloat16" if min(capabilities) >= (8, 0) else "float16"
