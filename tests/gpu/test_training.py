"""Tests of the training helpers that need a CUDA device: python -m pytest tests/gpu

Skipped without one; tests/unit/training tests the same logic on the CPU.
"""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from gpu_advisor.training import MemoryManager, PrefetchLoader, TrainingMonitor  # noqa: E402
from gpu_advisor.training.memory.device_memory import CudaMemory  # noqa: E402

MIB = 2**20


def batches(count: int, size: int) -> Any:
    """Pinned batches, each filled with its own number."""
    for number in range(count):
        yield {"x": torch.full((size,), float(number)).pin_memory(), "names": [str(number)]}


@pytest.mark.parametrize("depth", [1, 3])
def test_batches_are_right_however_slow_the_consumer_is(depth):
    """Each batch is read by a kernel that starts long after it was yielded, when later batches have been copied."""
    sums = []
    weight = torch.randn(4096, 4096, device="cuda")
    for batch in PrefetchLoader(list(batches(40, 4 * MIB)), "cuda", depth=depth):
        assert batch["x"].device == torch.device("cuda", torch.cuda.current_device())
        for _ in range(3):
            weight = torch.tanh(weight @ weight)  # the consumer's stream lags behind the host
        sums.append((batch["x"].sum(), batch["names"]))
        del batch  # its memory may be reused, but not before the sum is done
    assert [float(total) for total, _ in sums] == [number * 4.0 * MIB for number in range(40)]
    assert [names for _, names in sums] == [[str(number)] for number in range(40)]


def test_a_loader_that_reuses_one_pinned_buffer():
    buffer = torch.empty(4 * MIB).pin_memory()

    def same_buffer() -> Any:
        for number in range(30):
            yield buffer.fill_(float(number))

    found = [float(batch.mean()) for batch in PrefetchLoader(same_buffer(), "cuda")]
    assert found == [float(number) for number in range(30)]


def test_device_tensors_and_objects_with_a_to_method():
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    [(tensor, moved)] = PrefetchLoader([(torch.ones(5, device="cuda"), packed)], "cuda")
    assert tensor.is_cuda
    assert moved.data.is_cuda


def test_a_loss_on_the_gpu_is_recorded_without_waiting_for_it():
    monitor = TrainingMonitor("gpu", figures=False)
    weight = torch.randn(8192, 8192, device="cuda")
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    with monitor.step(samples=1):
        for _ in range(30):
            weight = torch.tanh(weight @ weight)
        monitor.record(loss=weight.sum() * 0 + 3)
        done.record()
    assert not done.query(), "record() synchronized with the GPU"
    loss = torch.zeros((), device="cuda")
    for number in range(5):  # the same tensor overwritten, as CUDA graphs do
        with monitor.step(samples=1):
            loss.fill_(float(number))
            monitor.record(loss=loss)
    summary = monitor.summary()
    assert (summary.values["loss"].count, summary.values["loss"].max) == (6, 4.0)
    assert summary.values["loss"].mean == pytest.approx((3 + 0 + 1 + 2 + 3 + 4) / 6)
    page = monitor.page()
    assert 'uuid="GPU-' in page or 'uuid="MIG-' in page or torch.version.hip
    assert "training_peak_memory_bytes" in page
    assert "training_memory_limit_bytes" in page


def test_the_uuid_is_nvmls():
    pynvml = pytest.importorskip("pynvml")
    monitor = TrainingMonitor("gpu", figures=False)
    torch.zeros(1, device="cuda")
    with monitor.step():
        pass
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(monitor._identity.uuid)
    assert pynvml.nvmlDeviceGetUUID(handle) == monitor._identity.uuid


def test_a_step_recovers_from_a_real_out_of_memory_error():
    device = torch.cuda.current_device()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(device)[1]

    def build() -> Any:
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(1024, 4096), torch.nn.Tanh(), torch.nn.Linear(4096, 4096), torch.nn.Tanh(),
            torch.nn.Linear(4096, 1),
        ).cuda()  # fmt: skip

    def loss(net: Any, part: Any) -> Any:
        return net(part).square().mean()

    batch = torch.randn(32768, 1024, device="cuda")
    plain = build()
    expected = loss(plain, batch)
    expected.backward()
    gradients = [parameter.grad.cpu() for parameter in plain.parameters()]
    needed = torch.cuda.max_memory_allocated()
    expected = float(expected.detach())
    del plain
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * needed / total)
    try:
        net = build()
        manager = MemoryManager(net)
        found = float(manager.backward(batch, loss))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert manager.recoveries >= 1
    assert manager.micro_batch_size is not None
    assert found == pytest.approx(expected, rel=1e-3)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient, rtol=2e-2, atol=1e-5)


def test_readings_of_the_device():
    memory = CudaMemory(torch.cuda.current_device())
    torch.cuda.empty_cache()
    memory.reset_peak()
    before = memory.read()
    block = torch.zeros(64 * MIB, dtype=torch.uint8, device="cuda")
    during = memory.read()
    assert during.allocated_bytes - before.allocated_bytes >= 64 * MIB
    del block
    after = memory.read()
    assert after.peak_allocated_bytes >= before.allocated_bytes + 64 * MIB
    assert after.reserved_bytes >= after.allocated_bytes
    memory.empty_cache()
    assert memory.read().reserved_bytes <= after.reserved_bytes
    assert 0 < after.limit_bytes <= torch.cuda.mem_get_info()[1]
