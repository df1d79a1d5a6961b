"""The users' classes and functions, and that they do what their names say."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_advisor import compatibility
from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.compatibility import (
    AlgorithmTrainingEngine,
    AlgorithmType,
    GPUResourceManager,
    MemoryManager,
    OptimizedDataLoader,
    PerformanceMonitor,
    PrefetchLoader,
    TrainingConfig,
    TrainingGPUConfig,
    cleanup_gpu_resources,
    get_gpu_resource_manager,
    get_pytorch_gpu_integration,
    get_tensorflow_gpu_integration,
    validate_gpu_requirements,
)
from gpu_advisor.training.memory.simulated_memory import SimulatedMemory
from torch import nn
from torch.utils.data import TensorDataset

MIB = 1 << 20
V100S = TrainingGPUConfig(gpu_count=2, gpu_type="V100", memory_gb=32.0, distributed_training=True)
MLP = {"type": "mlp", "input_dim": 10, "hidden_units": [128, 64], "output_dim": 1}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[GPUResourceManager]:
    (tmp_path / "nodes.yml").write_text(
        "nodes:\n  - {name: gpu-node-1, gpus: [{type: V100-32GB, count: 2}]}\n  - {name: t4, gpus: [{type: T4}]}\n"
    )
    made = get_gpu_resource_manager(inventory_file=tmp_path / "nodes.yml", database=tmp_path / "leases.db")
    yield made
    made.close()


def test_every_name_is_there():
    for name in compatibility.__all__:
        assert getattr(compatibility, name).__name__ == name
    with pytest.raises(AttributeError, match="NoSuchThing"):
        compatibility.NoSuchThing  # noqa: B018


def test_memory_above_the_threshold_is_reduced():
    class Model(nn.Linear):
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
            self.checkpointing = True

    model = Model(512, 512)
    with SimulatedMemory(64 * MIB) as memory:
        manager = MemoryManager(threshold_mb=1, memory=memory)
        kept = model(torch.zeros(512, 512))
        allocated, reserved = manager.check_memory()
        assert allocated == reserved == pytest.approx(kept.nbytes * 2 / MIB + model.weight.nbytes / MIB, abs=0.1)
        assert manager.optimize_memory(model, (64, 512)) == int(64 / allocated)
    assert model.checkpointing
    with SimulatedMemory(64 * MIB) as memory:
        assert MemoryManager(threshold_mb=1000, memory=memory).optimize_memory(model, 64) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_memory_is_unknown():
    manager = MemoryManager(threshold_mb=0)
    assert all(map(math.isnan, manager.check_memory()))
    assert manager.optimize_memory(nn.Linear(1, 1), 8) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_yield_every_sample(workers):
    made = OptimizedDataLoader(TensorDataset(torch.arange(10)), 4, num_workers=workers)
    loader = made.create_loader()
    assert loader.num_workers == workers
    assert loader.persistent_workers == bool(workers)
    prefetch = made.get_prefetch_loader()
    assert isinstance(prefetch, PrefetchLoader)
    for each in (loader, prefetch):
        assert [int(value) for [batch] in each for value in batch] == list(range(10))


def test_a_performance_report_has_the_three_groups():
    monitor = PerformanceMonitor()
    monitor.start_monitoring()
    for value in (1.0, 2.0, torch.tensor(3.0)):
        monitor.log_metric("loss", value)
    report = monitor.get_performance_report()
    monitor.stop_monitoring()
    assert report.keys() == {"gpu_metrics", "training_metrics", "system_metrics"}
    assert report["training_metrics"]["loss"] == pytest.approx({"mean": 2, "max": 3, "min": 1, "std": math.sqrt(2 / 3)})
    assert all(0 <= report["system_metrics"][name] <= 100 for name in ("cpu_usage", "memory_usage", "disk_usage"))
    if not torch.cuda.is_available():
        assert report["gpu_metrics"] == {}


def test_requirements_are_valid_or_not(manager):
    assert validate_gpu_requirements(V100S, manager) is True
    assert manager.validate_gpu_requirements(TrainingGPUConfig(gpu_type="H100")) is False
    config = TrainingGPUConfig(gpu_count=1, gpu_type="V100", memory_gb=64.0)
    assert manager.validate_gpu_requirements(config) is False
    config.memory_gb, config.gpu_memory_fraction = 32.0, 0.7
    assert manager.validate_gpu_requirements(config) is True
    assert manager.validate_gpu_requirements(TrainingGPUConfig(gpu_memory_fraction=1.5)) is False


def test_gpus_are_allocated_and_released_by_node(manager):
    node = manager.allocate_gpu_resources(V100S)
    assert node == "gpu-node-1"
    assert [each.node_name for each in manager.get_available_gpu_nodes()] == ["t4"]
    assert manager.allocate_gpu_resources(V100S) is None, "none is free"
    manager.cleanup_gpu_resources(node, 1)  # there is no such allocation
    manager.cleanup_gpu_resources(None, 2)
    assert len(manager.get_available_gpu_nodes()) == 1
    cleanup_gpu_resources(node, 2, manager)
    [found] = manager.get_available_gpu_nodes("V100", 16)
    assert (found.available_gpus, found.memory_per_gpu, found["gpu_type"]) == (2, 32, "V100")
    assert math.isnan(found.utilization), "unknown is not zero"
    assert f"{found.utilization:.2%}" == "nan%"
    with pytest.raises(InvalidRequestError):
        manager.allocate_gpu_resources(TrainingGPUConfig(gpu_count=0))


def test_an_allocated_node_is_a_name_and_a_session(manager):
    node = manager.allocate_gpu_resources(V100S)
    assert f"{node}" == "gpu-node-1"
    assert node.pytorch().world_size == 2
    assert not node.on_cpu
    manager.cleanup_gpu_resources(node)
    assert len(manager.get_available_gpu_nodes("V100")) == 1
    with pytest.raises(AttributeError, match="nothing_like_it"):
        node.nothing_like_it  # noqa: B018


def test_blocks_and_training_take_a_config_that_can_be_changed(manager):
    with compatibility.gpu_resources(V100S, manager) as session:
        assert session.allocation.node_names == ("gpu-node-1",)
    found = compatibility.train_with_gpu_resources(V100S, lambda session: session.batch_scale, manager)
    assert found == 1.0
    assert len(manager.get_available_gpu_nodes("V100")) == 1


def test_monitoring_can_be_formatted(manager):
    found = manager.get_gpu_monitoring_data()
    assert f"{found.get('utilization', {}).get('gpu_utilization', 0.0):.2%}" == "nan%"
    assert found["total_gpus"] == 3


def test_pytorch_is_set_up_and_builds_a_model(manager):
    integration = get_pytorch_gpu_integration(manager)
    settings = integration.setup_pytorch_gpu(V100S)
    assert (settings["gpu_available"], settings["node_name"], settings["world_size"]) == (True, "gpu-node-1", 2)
    model = integration.create_pytorch_model_with_gpu(MLP, V100S)
    assert [tuple(each.shape) for each in model.parameters() if each.dim() == 2] == [(128, 10), (64, 128), (1, 64)]
    assert model(torch.zeros(3, 10, device=next(model.parameters()).device)).shape == (3, 1)
    integration.cleanup()
    assert manager.allocate_gpu_resources(V100S) == "gpu-node-1"
    assert integration.setup_pytorch_gpu(V100S)["gpu_available"] is False, "no GPU is free: the CPU"
    with pytest.raises(ValueError, match="known is mlp"):
        integration.create_pytorch_model_with_gpu({"type": "transformer"}, V100S)
    with pytest.raises(ValueError, match="output_dim"):
        integration.create_pytorch_model_with_gpu({"type": "mlp", "input_dim": 3}, V100S)


def test_tensorflow_is_set_up_without_tensorflow(manager):
    integration = get_tensorflow_gpu_integration(manager)
    settings = integration.setup_tensorflow_gpu(V100S)
    assert (settings["framework"], settings["strategy"]) == ("tensorflow", "MirroredStrategy")
    integration.cleanup()


def params(**gpu: Any) -> dict[str, Any]:
    return {"gpu_config": {"enabled": True, "gpu_count": 2, "gpu_type": "V100", "memory_gb": 32.0, **gpu}, "epochs": 30}


def test_the_engine_trains_with_gpus_and_releases_them(manager):
    engine = AlgorithmTrainingEngine(manager)
    seen: list[Any] = []

    def algorithm(data: Any, parameters: Any, session: Any) -> str:
        seen.append((data, dict(parameters), session.allocation.node_names, session.batch_scale))
        if session.batch_scale > 0.5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "trained"

    engine.register(AlgorithmType.VIBRATION_ANALYSIS, algorithm)
    result = asyncio.run(
        engine.train_algorithm(AlgorithmType.VIBRATION_ANALYSIS, TrainingConfig("example", params()), "data")
    )
    assert (result.value, result.on_cpu, result.node_name) == ("trained", False, "gpu-node-1")
    assert seen == [("data", {"epochs": 30}, ("gpu-node-1",), scale) for scale in (1.0, 0.5)]
    assert len(manager.get_available_gpu_nodes("V100")) == 1


@pytest.mark.parametrize("gpu_config", [params(gpu_type="H100")["gpu_config"], {"enabled": False}, None])
def test_the_engine_falls_back_to_the_cpu(manager, gpu_config):
    x = torch.rand(64, 3)
    config = TrainingConfig("fallback", {"gpu_config": gpu_config, "epochs": 40})
    result = asyncio.run(
        AlgorithmTrainingEngine(manager).train_algorithm(AlgorithmType.REGRESSION, config, (x, x.sum(1)))
    )
    assert (result.on_cpu, result.node_name) == (True, None)
    assert result.value["losses"][-1] < 0.5 * result.value["losses"][0]


def test_the_engine_works_without_a_service(monkeypatch):
    monkeypatch.setenv("GPU_ADVISOR_URL", "http://127.0.0.1:9")
    x = torch.rand(8, 2)
    result = asyncio.run(
        AlgorithmTrainingEngine().train_algorithm(AlgorithmType.REGRESSION, TrainingConfig("x", params()), (x, x[:, 0]))
    )
    assert result.on_cpu


def test_a_wrong_field_of_the_engines_configuration_is_named(manager):
    with pytest.raises(InvalidRequestError, match="gpus: unknown field"):
        asyncio.run(
            AlgorithmTrainingEngine(manager).train_algorithm(
                AlgorithmType.REGRESSION, TrainingConfig("x", params(gpus=2)), None
            )
        )
