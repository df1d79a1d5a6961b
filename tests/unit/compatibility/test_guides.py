"""Every Python snippet of the users' guides (copies in guides/) runs, with only its import line changed.

A guide is run like a notebook: in one namespace, against a real service with the GPUs that it names, after what the
guide leaves to its reader. Not run here: see SKIPPED.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.own_processes import Program, advisor
from tests.polling import wait_until
from tests.servers import free_port

GUIDES = Path(__file__).with_name("guides")
OLD_PACKAGE = re.compile(r"^from backend\.[\w.]+ import", re.MULTILINE)
NODES = """
nodes:
  - {name: gpu-node-1, gpus: [{type: V100-32GB, count: 2}]}
  - {name: gpu-node-2, gpus: [{type: A100-80GB, count: 4}]}
"""
#: Snippets that need what this machine may not have: the first words in them, and where they are tested.
SKIPPED = {"tensorflow_gpu.create_tensorflow_model_with_gpu": "needs TensorFlow: make test-tensorflow"}

#: What the guides leave to their reader.
READER = """
import logging, time
from collections import defaultdict
import numpy as np, psutil, torch
from torch.utils.data import DataLoader
from gpu_advisor.compatibility import *
logger = logging.getLogger("reader")
data = (torch.rand(12, 10), torch.rand(12, 1))
"""
READER_OF_ACCUMULATION = """
model = lambda part: network(part).square().mean()
network = torch.nn.Linear(10, 1)
optimizer = torch.optim.SGD(network.parameters(), 0.1)
data, batch_size = torch.rand(16, 10), 2
"""
READER_OF_CPU_TRAINING = """
async def train_model(): return "trained on a GPU"
async def train_model_cpu(): return "trained on the CPU"
"""


def snippets(guide: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (GUIDES / f"{guide}.md").read_text(encoding="utf-8"), re.M | re.S)


def run(code: str, namespace: dict[str, Any]) -> None:
    """As in a notebook: `await` is allowed at the top level."""
    compiled: CodeType = compile(textwrap.dedent(code), "<guide>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    found = eval(compiled, namespace)  # a coroutine if the code awaits
    if inspect.iscoroutine(found):
        asyncio.run(found)


def run_guide(guide: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    run(READER, namespace)
    for snippet in snippets(guide):
        code = OLD_PACKAGE.sub("from gpu_advisor.compatibility import", snippet)
        assert "backend" not in code
        for needs, reader in (("accumulation_steps", READER_OF_ACCUMULATION), ("train_model", READER_OF_CPU_TRAINING)):
            if needs in code:
                run(reader, namespace)
        lines = [line for line in code.splitlines() if not any(words in line for words in SKIPPED)]
        run("\n".join(lines), namespace)
    return namespace


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "nodes.yml").write_text(NODES)
    settings = {
        "source": {"embedded": {"targets": []}},
        "allocation": {"inventory_file": str(folder / "nodes.yml"), "database": str(folder / "leases.db")},
    }
    with advisor(folder, f"127.0.0.1:{free_port()}", settings) as program:
        yield program


@pytest.fixture
def environment(service: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    from gpu_advisor.allocation.manager import get_gpu_resource_manager

    monkeypatch.setenv("GPU_ADVISOR_URL", service.url)

    def has_nodes() -> bool:
        from gpu_advisor.allocation.errors import AllocationError

        try:
            return len(get_gpu_resource_manager().nodes()) == 2
        except AllocationError:
            return False

    wait_until(has_nodes, "both nodes", service)
    return service


def test_the_copies_are_whole():
    assert [len(snippets(guide)) for guide in ("practice", "resource_manager", "resource_optimizer")] == [3, 18, 3]


def test_the_practice_guide_runs():
    """It defines the classes that the package has: both have the same methods."""
    namespace = run_guide("practice")
    from gpu_advisor import compatibility

    for name in ("MemoryManager", "OptimizedDataLoader", "PerformanceMonitor"):
        theirs = {method for method in vars(namespace[name]) if not method.startswith("_")}
        assert theirs <= set(dir(getattr(compatibility, name))), name
    monitor = namespace["PerformanceMonitor"]()
    monitor.start_monitoring()
    monitor.log_metric("loss", 0.5)
    monitor.log_metric("loss", 1.5)
    expected = {"mean": 1.0, "max": 1.5, "min": 0.5, "std": 0.5}
    assert monitor.get_performance_report()["training_metrics"] == {"loss": expected}
    ours = compatibility.PerformanceMonitor()
    ours.log_metric("loss", 0.5)
    ours.log_metric("loss", 1.5)
    assert ours.get_performance_report()["training_metrics"] == {"loss": expected}


def test_the_resource_manager_guide_runs(environment, capsys):
    namespace = run_guide("resource_manager")
    printed = capsys.readouterr().out
    assert "gpu-node-1" in printed
    assert "gpu-node-2" in printed
    # The TensorFlow integration still holds one of the two V100s.
    assert (namespace["allocated_node"], namespace["result"]) == (None, "trained on the CPU")
    assert namespace["gpu_config"].gpu_count == 4


def test_the_resource_optimizer_runs():
    namespace = run_guide("resource_optimizer")
    assert {"GPUResourceOptimizer", "MemoryOptimizer", "CostOptimizer"} <= namespace.keys()


def test_no_package_of_the_users_name_is_shipped():
    import importlib.util

    assert importlib.util.find_spec("backend") is None


def test_the_guides_logger_is_the_managers():
    from gpu_advisor.compatibility import resources

    assert resources.log is logging.getLogger("gpu_resource_manager")


def test_the_rest_answer_has_the_guides_fields(environment):
    """Beside the allocation's own."""
    import requests

    body = {"gpu_count": 1, "gpu_type": "A100", "memory_gb": 80.0, "distributed_training": True}
    answer = requests.post(f"{environment.url}/api/v1/gpu/allocate", json=body, timeout=30).json()
    assert (answer["success"], answer["node_name"]) == (True, "gpu-node-2")
    assert {name: answer["gpu_config"][name] for name in body} == body
    assert answer["nodes"][0]["node_name"] == "gpu-node-2"
    requests.delete(f"{environment.url}/api/v1/gpu/allocations/{answer['id']}", timeout=30)
