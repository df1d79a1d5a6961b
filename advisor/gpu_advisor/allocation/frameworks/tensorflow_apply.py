"""TensorFlow's settings put in force in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gpu_advisor.allocation.frameworks import environment
from gpu_advisor.allocation.frameworks.errors import AlreadyInitializedError, MissingDevicesError, SetupError
from gpu_advisor.allocation.frameworks.tensorflow import TensorFlowSettings, policy


@dataclass(frozen=True, slots=True)
class AppliedTensorFlow:
    """What holds in this process. `devices` are TensorFlow's physical devices."""

    devices: tuple[Any, ...]
    policy: str
    strategy_name: str

    def strategy(self, devices: Sequence[str] | None = None) -> Any:
        """The tf.distribute strategy to build the model in. One over several nodes waits for the others to come.

        `devices`: for a MirroredStrategy of these logical devices instead of all GPUs.
        """
        distribute = import_module("tensorflow").distribute
        if self.strategy_name == "MirroredStrategy":
            return distribute.MirroredStrategy(devices)
        return (
            distribute.get_strategy() if self.strategy_name == "default" else distribute.MultiWorkerMirroredStrategy()
        )


def apply_tensorflow(settings: TensorFlowSettings, node: str | None = None) -> AppliedTensorFlow:
    """Before `import tensorflow` in the program. `node` is this machine's name, where there are several.

    Raises SetupError: too late, another setting in the environment, another number of devices than was allocated.
    """
    part = environment.settings_for_node(settings.nodes, node)
    environment.set_environment(part.environment, "tensorflow")
    try:
        tf: Any = import_module("tensorflow")
    except ImportError as error:
        raise SetupError("TensorFlow is not installed here: pip install tensorflow") from error
    found = tuple(tf.config.list_physical_devices(settings.device_type))
    if settings.device_type != "CPU":
        if len(found) != part.gpu_count:
            raise MissingDevicesError(
                f"TensorFlow {tf.__version__} sees {len(found)} devices of type {settings.device_type}, "
                f"{part.gpu_count} are allocated here "
                f"({' '.join(f'{name}={value}' for name, value in part.environment.items())}): see that this is node "
                f"{part.node_name!r}, that its driver works and that TensorFlow is built for these devices"
            )
        _limit_memory(tf, settings, found)
    keras_policy = settings.policy if settings.policy != "auto" else policy(_mixed_dtype(tf, found))
    tf.keras.mixed_precision.set_global_policy(keras_policy)
    return AppliedTensorFlow(found, keras_policy, settings.strategy)


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
            f"TensorFlow's runtime has started already ({error}): apply these settings before any tensor is made"
        ) from error
    except ValueError as error:
        raise SetupError(
            f"the program has set up these devices itself ({error}): a memory limit and growth exclude each other, "
            "leave both to these settings"
        ) from error


def _mixed_dtype(tf: Any, devices: Sequence[Any]) -> str:
    """bfloat16 from compute capability 8.0 on; where the device does not tell, no mixed precision."""
    capabilities = [tf.config.experimental.get_device_details(each).get("compute_capability") for each in devices]
    if not capabilities or None in capabilities:
        return "float32"
    return "bfloat16" if min(capabilities) >= (8, 0) else "float16"
