"""AlgorithmTrainingEngine: trains an algorithm on leased GPUs, or on the CPU if none is available."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from gpu_advisor.allocation.client.session import Session
from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.manager import ServiceUnavailableError, train_with_gpu_resources
from gpu_advisor.compatibility.resources import GPUResourceManager, TrainingGPUConfig, get_gpu_resource_manager

log = logging.getLogger("gpu_resource_manager")


class AlgorithmType(Enum):
    """The engine has no algorithms of its own, but for a small network: register yours."""

    VIBRATION_ANALYSIS = "vibration_analysis"
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass
class TrainingConfig:
    """algorithm_params: `gpu_config`, with `enabled` and fields of TrainingGPUConfig; the rest is the algorithm's."""

    name: str
    algorithm_params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """`value`: what the algorithm returned. `node_name`: None on the CPU."""

    name: str
    value: Any
    on_cpu: bool
    node_name: str | None


Algorithm = Callable[[Any, Mapping[str, Any], "Session | None"], Any]
"""(data, its parameters, the GPUs' session or None for the CPU) -> result. Runs in a thread."""


class AlgorithmTrainingEngine:
    """Runs algorithms with GPUs: leases them, renews the lease, releases them. Out of memory, it tries smaller batches
    (`session.batch_scale`), and at last the CPU."""

    def __init__(self, manager: GPUResourceManager | None = None) -> None:
        self._manager = manager
        self._algorithms: dict[Any, Algorithm] = {}

    def register(self, algorithm_type: Any, algorithm: Algorithm) -> None:
        """Run this algorithm for the type, in place of the small network."""
        self._algorithms[algorithm_type] = algorithm

    async def train_algorithm(self, algorithm_type: Any, config: TrainingConfig, data: Any) -> TrainingResult:
        """Raises ValueError for an unknown field of gpu_config, and what the algorithm raises."""
        parameters = {name: value for name, value in config.algorithm_params.items() if name != "gpu_config"}
        algorithm: Algorithm = self._algorithms.get(algorithm_type, train_small_network)
        request = _gpu_request(config.algorithm_params.get("gpu_config") or {})

        def run(session: Session | None) -> TrainingResult:
            on_cpu = session is None or session.on_cpu
            value = algorithm(data, parameters, None if on_cpu else session)
            nodes = session.allocation.node_names if session is not None and not on_cpu else ()
            return TrainingResult(config.name, value, on_cpu, nodes[0] if nodes else None)

        if request is None:
            return await asyncio.to_thread(run, None)
        return await asyncio.to_thread(self._run_with_gpus, request, run)

    def _run_with_gpus(
        self, request: TrainingGPUConfig, run: Callable[[Session | None], TrainingResult]
    ) -> TrainingResult:
        try:
            manager = self._manager or get_gpu_resource_manager()
            manager.manager.nodes()  # whether a service responds, before anything is trained
        except ServiceUnavailableError as error:
            log.warning("no GPUs allocated, training on the CPU: %s", error)
            return run(None)
        return train_with_gpu_resources(request.request(), run, manager.manager)


def _gpu_request(given: Mapping[str, Any]) -> TrainingGPUConfig | None:
    """None if GPUs are not enabled."""
    if not given.get("enabled", bool(given)):
        return None
    values = {name: value for name, value in given.items() if name != "enabled"}
    known = {each.name for each in fields(TrainingGPUConfig)}
    if unknown := sorted(values.keys() - known):
        raise InvalidRequestError(unknown[0], f"unknown field of gpu_config; known are {', '.join(sorted(known))}")
    return TrainingGPUConfig(**{"cpu_fallback": True, **values})


def train_small_network(data: Any, parameters: Mapping[str, Any], session: Session | None) -> dict[str, Any]:
    """The algorithm of types without one: fits a network of one hidden layer to `(inputs, targets)`.

    data: arrays [samples, features] and [samples] or [samples, outputs]. parameters: epochs, learning_rate,
    hidden_units.
    Returns `model` and `losses`, the mean squared error after each epoch.
    """
    import torch
    from torch import nn

    inputs, targets = (torch.as_tensor(each, dtype=torch.float32) for each in data)
    targets = targets.reshape(len(inputs), -1)
    device = torch.device("cuda" if session is not None and torch.cuda.is_available() else "cpu")
    width = int(parameters.get("hidden_units", 64))
    model = nn.Sequential(nn.Linear(inputs.shape[1], width), nn.ReLU(), nn.Linear(width, targets.shape[1])).to(device)
    optimizer = torch.optim.Adam(model.parameters(), float(parameters.get("learning_rate", 1e-2)))
    inputs, targets = inputs.to(device), targets.to(device)
    losses = []
    for _ in range(int(parameters.get("epochs", 20))):
        if session is not None:
            session.check()
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return {"model": model, "losses": losses}
