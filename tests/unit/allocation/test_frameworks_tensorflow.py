"""TensorFlow's settings applied: in the real TensorFlow where it is installed, and against what it documents elsewhere.

To see the real one: pip install tensorflow, then this file. It is large, so the project does not bring it along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_advisor.allocation.frameworks import (
    AlreadyInitializedError,
    MissingDevicesError,
    SetupError,
    SetupOptions,
    TensorFlowSettings,
    apply_tensorflow,
    tensorflow_settings,
)
from gpu_advisor.allocation.model import NodeAllocation

from tests.servers import free_port
from tests.unit.allocation.allocations import make_allocation

real = pytest.mark.skipif(find_spec("tensorflow") is None, reason="pip install tensorflow")

WITHIN_SECONDS = 180
BEFORE = """
import json, sys
from gpu_advisor.allocation.frameworks import *
from gpu_advisor.allocation.frameworks.tensorflow import tensorflow_from_document
settings = tensorflow_from_document(json.load(sys.stdin))
"""
ON_THE_CPU = """
applied = apply_tensorflow(settings)
import tensorflow as tf
layer = tf.keras.layers.Dense(2)
out = layer(tf.ones((1, 2)))
print(json.dumps([applied.policy, layer.compute_dtype, out.dtype if isinstance(out.dtype, str) else out.dtype.name,
                  len(tf.config.list_physical_devices("GPU"))]))
"""
#: Two logical devices of the one CPU stand for two GPUs: one step over both must be the mean of both halves.
MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from dataclasses import replace
applied = apply_tensorflow(replace(settings, device_type="CPU", nodes=(replace(settings.nodes[0], environment={}),)))
strategy = applied.strategy(["CPU:0", "CPU:1"])
with strategy.scope():
    weight = tf.Variable(0.0)
data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices([1.0, 5.0]).batch(2))
def add(x):
    return tf.reduce_sum(x) + weight
sums = [float(strategy.reduce("SUM", strategy.run(add, (each,)), None)) for each in data]
print(json.dumps([type(strategy).__name__, strategy.num_replicas_in_sync, sums]))
"""
WORKER = """
applied = apply_tensorflow(settings, node=sys.argv[1])
import tensorflow as tf
strategy = applied.strategy()
def one():
    mine = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32) + 1.0
    return tf.distribute.get_replica_context().all_reduce("sum", mine)
print(json.dumps([strategy.num_replicas_in_sync, float(strategy.run(tf.function(one)))]))
"""
LATE = """
import tensorflow as tf
try:
    apply_tensorflow(settings)
except SetupError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def clean() -> dict[str, str]:
    unwanted = ("VISIBLE_DEVICES", "TF_CONFIG")
    found = {name: value for name, value in os.environ.items() if not any(word in name for word in unwanted)}
    return found | {"TF_CPP_MIN_LOG_LEVEL": "3"}


def start(program: str, settings: TensorFlowSettings, *arguments: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", BEFORE + program, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean(),
    )  # fmt: skip
    assert started.stdin is not None
    started.stdin.write(json.dumps(settings.document()))
    started.stdin.close()
    started.stdin = None
    return started


def parse_outputs(*started: subprocess.Popen[str]) -> list[Any]:
    """What each prints as JSON at last."""
    try:
        outputs = [each.communicate(timeout=WITHIN_SECONDS) for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()
    assert [each.returncode for each in started] == [0] * len(started), [error[-3000:] for _, error in outputs]
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


@real
def test_on_the_cpu_the_policy_is_in_force():
    settings = tensorflow_settings(replace(make_allocation(mixed_precision=True), shares=()))
    assert parse_outputs(start(ON_THE_CPU, settings)) == [["mixed_bfloat16", "bfloat16", "bfloat16", 0]]


@real
def test_several_devices_of_a_node_are_mirrored():
    assert parse_outputs(start(MIRRORED, tensorflow_settings(make_allocation(gpus=2)))) == [
        ["MirroredStrategy", 2, [6.0]]
    ]


@real
def test_workers_of_several_nodes_find_each_other():
    """Both on this machine and on its CPU; their ports differ."""
    settings = tensorflow_settings(
        replace(make_allocation(), shares=(NodeAllocation("a", (0,), ()), NodeAllocation("b", (0,), ())))
    )
    workers = [f"localhost:{free_port()}" for _ in settings.nodes]
    nodes = tuple(
        replace(node, gpu_count=0, environment={"CUDA_VISIBLE_DEVICES": "-1", "TF_CONFIG": json.dumps(
            json.loads(node.environment["TF_CONFIG"]) | {"cluster": {"worker": workers}})})
        for node in settings.nodes
    )  # fmt: skip
    here = replace(settings, device_type="CPU", nodes=nodes)
    assert parse_outputs(*(start(WORKER, here, node.node_name) for node in nodes)) == [[2, 3.0], [2, 3.0]]


@real
def test_too_late_is_refused():
    ((kind, message),) = parse_outputs(start(LATE, tensorflow_settings(make_allocation(gpus=2))))
    assert kind == "AlreadyInitializedError"
    assert "CUDA_VISIBLE_DEVICES=GPU-0,GPU-1" in message


class FakeTensorFlow:
    """TensorFlow as far as settings reach it, by its documentation: memory growth and logical devices exclude each
    other (ValueError), and both are refused once the runtime has started (RuntimeError)."""

    __version__ = "2"

    def __init__(self, gpus: int, started: bool = False, capability: tuple[int, int] | None = (8, 0)) -> None:
        self.gpus = [f"GPU:{index}" for index in range(gpus)]
        self.started, self.capability = started, capability
        self.limits: dict[str, int] = {}
        self.growing: set[str] = set()
        self.policy = ""
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: self.gpus if kind == "GPU" else ["CPU:0"],
            LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
            set_logical_device_configuration=self.limit,
            experimental=SimpleNamespace(set_memory_growth=self.grow, get_device_details=self.details),
        )
        self.keras = SimpleNamespace(mixed_precision=SimpleNamespace(set_global_policy=self.set_policy))

    def set_policy(self, name: str) -> None:
        assert name in ("float32", "mixed_float16", "mixed_bfloat16")
        self.policy = name

    def details(self, device: str) -> dict[str, Any]:
        return {} if self.capability is None else {"compute_capability": self.capability}

    def grow(self, device: str, enable: bool) -> None:
        self._refuse(device in self.limits)
        self.growing.add(device)

    def limit(self, device: str, configurations: list[int]) -> None:
        self._refuse(device in self.growing)
        (self.limits[device],) = configurations

    def _refuse(self, excluded: bool) -> None:
        if self.started:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        if excluded:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")


@pytest.fixture
def fake_tensorflow(monkeypatch):
    def install(settings: TensorFlowSettings, fake: FakeTensorFlow) -> FakeTensorFlow:
        monkeypatch.setitem(sys.modules, "tensorflow", fake)
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TF_CONFIG"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.nodes[0].environment.items():
            monkeypatch.setenv(name, value)  # as a process that is started with them: it is imported already
        return fake

    return install


def test_each_gpu_gets_its_limit_or_grows(fake_tensorflow):
    settings = tensorflow_settings(
        make_allocation(gpus=2, memory_gb=80.0, gpu_memory_fraction=0.5, mixed_precision=True)
    )
    fake = fake_tensorflow(settings, FakeTensorFlow(2))
    applied = apply_tensorflow(settings)
    assert fake.limits == {"GPU:0": 38092, "GPU:1": 38092}  # MiB: 0.5 * 0.93 * 80 GiB
    assert (fake.policy, applied.strategy_name, fake.growing) == ("mixed_bfloat16", "MirroredStrategy", set())
    settings = tensorflow_settings(make_allocation(gpus=2), SetupOptions(growth=True))
    fake = fake_tensorflow(settings, FakeTensorFlow(2))
    apply_tensorflow(settings)
    assert (fake.limits, fake.growing, fake.policy) == ({}, {"GPU:0", "GPU:1"}, "float32")


@pytest.mark.parametrize(
    ("capability", "policy"), [((8, 0), "mixed_bfloat16"), ((7, 5), "mixed_float16"), (None, "float32")]
)
def test_a_number_type_that_was_not_known_is_asked_of_the_device(fake_tensorflow, capability, policy):
    settings = tensorflow_settings(replace(make_allocation(gpus=1, mixed_precision=True), gpu_type="NEWCARD"))
    fake = fake_tensorflow(settings, FakeTensorFlow(1, capability=capability))
    assert apply_tensorflow(settings).policy == fake.policy == policy


def test_refusals_say_how_to_fix_it(fake_tensorflow):
    settings = tensorflow_settings(make_allocation(gpus=2))
    fake_tensorflow(settings, FakeTensorFlow(2, started=True))
    with pytest.raises(AlreadyInitializedError, match="before creating any tensor"):
        apply_tensorflow(settings)
    fake_tensorflow(settings, FakeTensorFlow(1))
    with pytest.raises(MissingDevicesError, match="but 2 are allocated"):
        apply_tensorflow(settings)
    fake_tensorflow(settings, FakeTensorFlow(2)).growing.add("GPU:1")
    with pytest.raises(SetupError, match="exclude each other"):
        apply_tensorflow(settings)
