"""Framework integrations: settings for GPUs that are leased, and a small model that uses them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from gpu_advisor.allocation.client.session import Session
from gpu_advisor.allocation.errors import AllocationError, InvalidRequestError
from gpu_advisor.compatibility.resources import GPUResourceManager, TrainingGPUConfig, get_gpu_resource_manager

log = logging.getLogger("gpu_resource_manager")

ModelConfig = Mapping[str, Any]
"""type: mlp; input_dim, output_dim; hidden_units: the widths of the layers between."""

DEFAULT_HIDDEN_UNITS = (128, 64)


class _Integration:
    """Holds the GPUs that it set up, until the next setup or `cleanup`."""

    def __init__(self, manager: GPUResourceManager | None = None) -> None:
        self._given_manager = manager
        self._session: Session | None = None

    def cleanup(self) -> None:
        """Release the GPUs."""
        if self._session is not None:
            self._session.release()
            self._session = None

    def _set_up(self, config: TrainingGPUConfig) -> Session | None:
        """Lease GPUs; None, and a warning, if that is not possible: the CPU is used."""
        self.cleanup()
        try:
            manager = self._given_manager or get_gpu_resource_manager()
            self._session = manager.allocate_session(config)
        except InvalidRequestError:
            raise
        except AllocationError as error:
            log.warning("no GPUs allocated, using the CPU: %s", error)
        return self._session

    def _describe(self, session: Session | None, settings: Mapping[str, Any]) -> dict[str, Any]:
        nodes = session.allocation.node_names if session is not None else ()
        return {"gpu_available": session is not None, "node_name": nodes[0] if nodes else None, **settings}


class PyTorchGPUIntegration(_Integration):
    """Leases GPUs for PyTorch; without any, the CPU is used."""

    def setup_pytorch_gpu(self, config: TrainingGPUConfig) -> dict[str, Any]:
        """Lease GPUs, and return the settings for them, as POST /api/v1/gpu/setup-pytorch does.

        They are data: the lease may be on another node. `Session.apply_pytorch` applies them, before torch is imported.
        """
        session = self._set_up(config)
        return self._describe(session, session.pytorch().document() if session else {"device_type": "cpu"})

    def create_pytorch_model_with_gpu(self, model_config: ModelConfig, config: TrainingGPUConfig) -> Any:
        """A torch.nn.Module on this process' GPU if there is one and it is set up, else on the CPU."""
        import torch
        from torch import nn

        widths = _layer_widths(model_config)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        if self._session is None:
            self._set_up(config)
        on_gpu = self._session is not None and torch.cuda.is_available()
        return nn.Sequential(*layers[:-1]).to("cuda" if on_gpu else "cpu")


class TensorFlowGPUIntegration(_Integration):
    """Leases GPUs for TensorFlow; without any, the CPU is used."""

    def setup_tensorflow_gpu(self, config: TrainingGPUConfig) -> dict[str, Any]:
        """Lease GPUs, and return the settings for them, as POST /api/v1/gpu/setup-tensorflow does."""
        session = self._set_up(config)
        return self._describe(session, session.tensorflow().document() if session else {"device_type": "CPU"})

    def create_tensorflow_model_with_gpu(self, model_config: ModelConfig, config: TrainingGPUConfig) -> Any:
        """A Keras model. TensorFlow places it on a GPU if it sees one."""
        try:
            keras = import_module("tensorflow").keras
        except ImportError as error:
            raise ImportError("TensorFlow is not installed: pip install tensorflow") from error
        first, *inner, last = _layer_widths(model_config)
        layers = [keras.layers.Dense(width, activation="relu") for width in inner]
        return keras.Sequential([keras.Input((first,)), *layers, keras.layers.Dense(last)])


def get_pytorch_gpu_integration(manager: GPUResourceManager | None = None) -> PyTorchGPUIntegration:
    """manager: by default the one of `get_gpu_resource_manager()`, at the first setup."""
    return PyTorchGPUIntegration(manager)


def get_tensorflow_gpu_integration(manager: GPUResourceManager | None = None) -> TensorFlowGPUIntegration:
    """manager: by default the one of `get_gpu_resource_manager()`, at the first setup."""
    return TensorFlowGPUIntegration(manager)


def _layer_widths(model_config: ModelConfig) -> list[int]:
    kind = model_config.get("type", "mlp")
    if kind != "mlp":
        raise ValueError(f"type={kind!r} is not a known model; known is mlp. Build other models yourself")
    try:
        ends = model_config["input_dim"], model_config["output_dim"]
    except KeyError as error:
        raise ValueError(
            f"the model's configuration has no {error.args[0]!r}; an mlp has input_dim and output_dim"
        ) from error
    return [int(ends[0]), *map(int, model_config.get("hidden_units", DEFAULT_HIDDEN_UNITS)), int(ends[1])]
