"""MemoryManager in one process: training with too little simulated memory gives the same results as with enough."""

from __future__ import annotations

import itertools
from collections import namedtuple
from typing import Any

import pytest
import torch
from gpu_advisor.calibration.batch_size_advice import BatchSizeRequest, recommend_batch_size
from gpu_advisor.calibration.points import MeasuredPoint, clean_points
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.device_memory import MemoryStats
from gpu_advisor.training.memory.errors import DoesNotFitError, MemoryManagerError, out_of_memory_type
from gpu_advisor.training.memory.micro_batch import even_part_size, split_batch
from gpu_advisor.training.memory.remedies import Remedy, choose_remedies
from gpu_advisor.training.memory.simulated_memory import SimulatedMemory
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

WIDTH = 64
MIB = 2**20


def model(*extra: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, WIDTH), *extra, nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)
    )


def data(samples: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 8, generator=generator)
    return {"x": x, "y": x.sum(1, keepdim=True).sin()}


def mean_loss(net: nn.Module, part: Any) -> torch.Tensor:
    return nn.functional.mse_loss(net(part["x"]), part["y"])


def train(
    net: nn.Module, manager: MemoryManager | None, steps: int = 20, samples: int = 60, loss: Any = mean_loss, **how: Any
) -> list[float]:
    """The losses of a run; without a manager, of the usual loop."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for step in range(steps):
        batch = data(samples if step % 5 else samples - 23, seed=step)
        if manager is None:
            optimizer.zero_grad()
            value = loss(net, batch)
            run_backward(value)
        else:
            value = manager.backward(batch, loss, **how)
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


def run_backward(loss: Any) -> None:
    loss.backward()


def peak(net: nn.Module, samples: int) -> int:
    memory = SimulatedMemory(2**40)
    with memory:
        run_backward(mean_loss(net, data(samples)))
    return memory.read().peak_allocated_bytes


def test_enough_memory_changes_no_bit():
    plain, managed = model(), model()
    assert train(plain, None) == train(managed, MemoryManager(managed))
    for one, other in zip(plain.parameters(), managed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_the_loss_curve_stays_when_memory_is_short(share):
    expected = train(model(), None, samples=600)
    net = model()
    limit = int(share * peak(model(), 600))
    with SimulatedMemory(limit) as memory:
        found = train(net, MemoryManager(net, memory=memory), samples=600)
        assert memory.read().peak_allocated_bytes <= limit
    assert found == pytest.approx(expected, rel=1e-4)


def test_it_did_run_out_of_memory():
    """The premise of the test above: without the manager the step fails."""
    net = model()
    limit = int(0.6 * peak(model(), 600))
    with SimulatedMemory(limit), pytest.raises(out_of_memory_type()):
        train(net, None, samples=600)
    with SimulatedMemory(limit) as memory:
        manager = MemoryManager(net, memory=memory)
        train(net, manager, samples=600)
    assert manager.recoveries >= 1
    assert manager.micro_batch_size is not None
    assert manager.micro_batch_size < 600
    assert memory.read().out_of_memory_errors == manager.recoveries, "later steps must keep the smaller size"


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(1, 40), at_once=st.integers(1, 50), reduction=st.sampled_from(["mean", "sum", "tokens"]))
def test_unequal_parts_count_for_what_they_are(samples, at_once, reduction):
    generator = torch.Generator().manual_seed(samples)
    batch = {**data(samples), "mask": (torch.rand(samples, 1, generator=generator) < 0.6).float()}
    batch["mask"][0] = 1

    def loss(net: nn.Module, part: Any) -> Any:
        each = (net(part["x"]) - part["y"]).square()
        if reduction == "tokens":
            return (each * part["mask"]).sum() / part["mask"].sum().clamp(min=1)
        return each.mean() if reduction == "mean" else each.sum()

    plain, managed = model(), model()
    expected = loss(plain, batch)
    run_backward(expected)
    manager = MemoryManager(managed)
    manager.micro_batch_size = at_once
    how: dict[str, Any] = {"reduction": "sum" if reduction == "sum" else "mean"}
    if reduction == "tokens":
        how["weight"] = lambda part: float(part["mask"].sum())
    assert float(manager.backward(batch, loss, **how)) == pytest.approx(float(expected.detach()), rel=1e-5)
    for one, other in zip(plain.parameters(), managed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


class FailsOnce:
    """A loss that runs out of memory in the backward pass of the given calls, after some gradients.

    Calls with less than `least` samples do not count: the manager tries with a few whether the step can be divided.
    """

    def __init__(self, *steps: int, least: int = 4) -> None:
        self.steps, self.calls, self.least = steps, itertools.count(), least

    def __call__(self, net: nn.Module, part: Any) -> torch.Tensor:
        loss = mean_loss(net, part)
        if len(part["x"]) >= self.least and next(self.calls) in self.steps:
            first = next(iter(net.parameters()))
            loss = loss + (BackwardOutOfMemory.apply(first) * 0).sum()  # type: ignore[no-untyped-call]
        return loss


class BackwardOutOfMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise out_of_memory_type()("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_failed_attempt_restores_gradients_buffers_and_random_state():
    expected_net = model(nn.BatchNorm1d(WIDTH), nn.Dropout(0.5))
    manager = MemoryManager(expected_net, exact=False)
    manager.micro_batch_size = 30
    torch.manual_seed(1)
    expected = train(expected_net, manager, steps=1, samples=83)
    drawn = torch.rand(1)

    net = model(nn.BatchNorm1d(WIDTH), nn.Dropout(0.5))
    manager = MemoryManager(net, exact=False)
    torch.manual_seed(1)
    found = train(net, manager, steps=1, samples=83, loss=FailsOnce(0))
    assert manager.micro_batch_size == 30
    assert found == expected
    assert torch.equal(torch.rand(1), drawn)
    for name, value in expected_net.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_earlier_gradients_are_replaced():
    net = model()
    manager = MemoryManager(net)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    manager.backward(data(8), mean_loss)
    assert max(float(parameter.grad.abs().max()) for parameter in net.parameters() if parameter.grad is not None) < 100


def test_batch_norm_is_warned_about_once(caplog):
    net = model(nn.BatchNorm1d(WIDTH))
    train(net, MemoryManager(net, exact=False), steps=4, loss=FailsOnce(0, 4))
    assert caplog.text.count("GroupNorm") == 1


def test_when_nothing_fits_the_error_says_what_to_do():
    net = model()
    with SimulatedMemory(1000) as memory:
        manager = MemoryManager(net, memory=memory)
        with pytest.raises(DoesNotFitError, match="lower precision"):
            manager.backward(data(8), mean_loss)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_other_errors_propagate_unchanged():
    def broken(net: nn.Module, part: Any) -> torch.Tensor:
        raise KeyError("label")

    net = model()
    with pytest.raises(KeyError, match="label"):
        MemoryManager(net).backward(data(8), broken)
    with pytest.raises(MemoryManagerError, match="tensor of one element"):
        MemoryManager(net).backward(data(8), lambda net, part: net(part["x"]))
    with pytest.raises(MemoryManagerError, match="split="):
        MemoryManager(net).backward([], mean_loss)


class CheckpointingModel(nn.Module):
    """A model with gradient checkpointing, with timm's method."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Linear(256, 8)) for _ in range(8))
        self.on = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.on = enable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch.utils.checkpoint import checkpoint

        for layer in self.inner:
            x = checkpoint(layer, x, use_reentrant=False) if self.on else layer(x)
        return x


def test_checkpointing_is_turned_on_when_smaller_parts_do_not_help():
    net = CheckpointingModel()
    plain = sum(parameter.nbytes for parameter in net.parameters())
    with SimulatedMemory(2 * plain + 120_000) as memory:
        manager = MemoryManager(net, memory=memory, min_micro_batch_size=32)
        manager.backward({"x": torch.randn(32, 8)}, lambda net, part: net(part["x"]).square().mean())
    assert net.on
    assert manager.recoveries >= 1


def test_checkpointing_is_turned_on_above_the_threshold_and_before_an_error():
    net = CheckpointingModel()

    def loss(net: nn.Module, part: Any) -> Any:
        return net(part["x"]).square().mean()

    with SimulatedMemory(2**40) as memory:
        run_backward(loss(net, {"x": torch.randn(64, 8)}))
        needed = memory.read().peak_allocated_bytes
    with SimulatedMemory(int(needed * 1.05)) as memory:
        manager = MemoryManager(net, memory=memory, threshold_ratio=0.9)
        for _ in range(2):
            assert not net.on
            manager.backward({"x": torch.randn(64, 8)}, loss)
            net.zero_grad()
    assert net.on
    assert manager.recoveries == 0


def test_transformers_models_have_it():
    transformers = pytest.importorskip("transformers")
    from gpu_advisor.training.memory.checkpointing import can_checkpoint, enable_checkpointing

    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8)
    inner = transformers.GPT2LMHeadModel(config)
    net = nn.ModuleDict({"text": inner})
    assert can_checkpoint(net)
    assert enable_checkpointing(net)
    assert any(getattr(module, "gradient_checkpointing", False) for module in net.modules())
    assert inner.config.use_cache is False
    assert not can_checkpoint(model())


def test_a_batch_size_is_proposed_from_measured_peaks():
    net = model()
    with SimulatedMemory(16 * MIB) as memory:
        manager = MemoryManager(net, memory=memory, check_every_steps=1)
        for at_once in (1024, 2048, None):
            manager.micro_batch_size = at_once
            manager.backward(data(4096), mean_loss)
            net.zero_grad()
        advice = manager.propose_batch_size(0.85)
    extra = 3 * data(4096)["x"].nbytes  # the whole batch, and the weights' gradients
    watch = manager._watch
    assert watch is not None
    for size, measured in watch.peaks.items():
        assert peak(net, size) <= measured <= peak(net, size) + extra
    points = [MeasuredPoint(size, watch.peaks[size]) for size in (1024, 2048, 4096)]
    request = BatchSizeRequest(16 * MIB, 0.85, current_batch=4096)
    assert advice.recommended_batch_size is not None
    assert 0.6 * 16 * MIB <= peak(net, advice.recommended_batch_size) <= 0.86 * 16 * MIB
    assert advice == recommend_batch_size(clean_points(points), request)
    with pytest.raises(MemoryManagerError, match="memory="):
        MemoryManager(net).propose_batch_size()


def test_above_the_threshold_the_log_says_so_once(caplog):
    net = model()
    with SimulatedMemory(int(1.02 * peak(net, 256))) as memory:
        manager = MemoryManager(net, memory=memory, check_every_steps=1)
        for _ in range(3):
            manager.backward(data(256), mean_loss)
            net.zero_grad()
    assert caplog.text.count("gpu-advisor probe") == 1


GIB = 2**30


def reading(**figures: int) -> MemoryStats:
    base = {
        "allocated_bytes": 10 * GIB, "reserved_bytes": 12 * GIB, "peak_allocated_bytes": 40 * GIB,
        "peak_reserved_bytes": 45 * GIB, "limit_bytes": 80 * GIB,
    }  # fmt: skip
    return MemoryStats(**{**base, **figures})


@pytest.mark.parametrize(
    ("now", "can_checkpoint", "expected"),
    [
        ({}, True, ()),
        ({"peak_allocated_bytes": 75 * GIB}, True, (Remedy.CHECKPOINTING,)),
        ({"peak_allocated_bytes": 75 * GIB}, False, (Remedy.SMALLER_BATCH,)),
        ({"allocation_retries": 3, "reserved_bytes": 40 * GIB}, True, (Remedy.EMPTY_CACHE,)),
        ({"allocation_retries": 3, "reserved_bytes": 11 * GIB}, True, ()),  # there is nothing to give back
        ({"allocation_retries": 1, "reserved_bytes": 40 * GIB}, True, ()),  # as many as before
        ({"reserved_bytes": 79 * GIB, "peak_reserved_bytes": 80 * GIB}, True, ()),  # a full cache is no trouble
    ],
)
def test_remedies(now, can_checkpoint, expected):
    assert choose_remedies(reading(**now), reading(allocation_retries=1), 0.92, can_checkpoint) == expected


Pair = namedtuple("Pair", ["x", "name"])


@given(st.integers(1, 60), st.integers(1, 70))
def test_cutting_keeps_every_sample_in_order(samples, most):
    batch: dict[str, Any] = {
        "x": torch.arange(samples), "names": [str(n) for n in range(samples)], "scale": 2.0, "one": torch.tensor(3),
        "pair": Pair(torch.arange(samples) * 2, "all"),
    }  # fmt: skip
    parts = list(split_batch(batch, most))
    sizes = [len(part["x"]) for part in parts]
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert torch.equal(torch.cat([part["pair"].x for part in parts]), batch["pair"].x)
    assert [name for part in parts for name in part["names"]] == batch["names"]
    assert all((part["scale"], int(part["one"]), part["pair"].name) == (2.0, 3, "all") for part in parts)
    assert max(sizes) == even_part_size(samples, most) <= most
    assert max(sizes) - min(sizes) <= 1


def test_tensors_with_samples_in_another_dimension_are_refused():
    with pytest.raises(MemoryManagerError, match="disagree on the number of samples: 4, 7; pass split="):
        list(split_batch({"x": torch.zeros(4, 2), "y": torch.zeros(7, 4)}, 2))


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda: nn.DataParallel(model()), "DistributedDataParallel"),
        (lambda: type("FSDPModule", (nn.Linear,), {})(1, 1), "micro-batch size that fits"),
        (lambda: nn.Flatten(), "no parameter"),
    ],
)
def test_models_that_cannot_be_managed(make, fix):
    with pytest.raises(MemoryManagerError, match=fix):
        MemoryManager(make())


def test_settings_are_checked():
    wrong: list[dict[str, Any]] = [{"threshold_ratio": 85}, {"min_micro_batch_size": 0}, {"check_every_steps": 0}]
    for arguments in wrong:
        with pytest.raises(MemoryManagerError):
            MemoryManager(model(), **arguments)


class AmbiguousFailure:
    """A loss with cuDNN's ambiguous error above `fits` samples."""

    def __init__(self, fits: int) -> None:
        self.fits = fits

    def __call__(self, net: nn.Module, part: Any) -> torch.Tensor:
        if len(part["x"]) > self.fits:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
        return mean_loss(net, part)


def test_an_ambiguous_error_is_memory_if_a_smaller_part_succeeds():
    net = model()
    manager = MemoryManager(net)
    manager.backward(data(16), AmbiguousFailure(8))
    assert (manager.recoveries, manager.micro_batch_size) == (1, 8)


def test_an_ambiguous_error_that_stays_is_raised_unchanged():
    net = model()
    with pytest.raises(RuntimeError, match="CUDNN_STATUS_NOT_SUPPORTED"):
        MemoryManager(net).backward(data(16), AmbiguousFailure(0))


@pytest.mark.parametrize("full", [{"reserved_bytes": 79 * GIB}, {"free_bytes": GIB}, {"free_bytes": 0}])
def test_an_ambiguous_error_is_memory_while_memory_is_nearly_full(full: dict[str, int]):
    class Full:
        def read(self) -> MemoryStats:
            return reading(**full)

        def reset_peak(self) -> None: ...

        def empty_cache(self) -> None: ...

    net = model()
    manager = MemoryManager(net, memory=Full())
    manager.backward(data(16), AmbiguousFailure(2))
    assert (manager.recoveries, manager.micro_batch_size) == (3, 2)
