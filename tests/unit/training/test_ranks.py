"""Two ranks (gloo), one of which runs out of memory, fails, exits or hangs: both agree, or both raise in time."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.memory.errors import MemoryManagerError
from gpu_advisor.training.memory.rank_consensus import _gradient_buckets
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.unit.training.test_memory import FailsOnce, data, mean_loss, model, run_backward

WITHIN_SECONDS = 60.0
STEPS = 4

#: A rank's error, or its losses and weights.
RankResult = dict[str, Any]


def batch(rank: int, step: int) -> dict[str, torch.Tensor]:
    """Each rank has its own batches, of different sizes."""
    return data(40 + 7 * rank, seed=10 * step + rank)


def run(net: nn.Module, manager: MemoryManager | None, loss: Any, rank: int) -> RankResult:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses = []
    for step in range(STEPS):
        if manager is None:
            optimizer.zero_grad()
            value = mean_loss(net, batch(rank, step))
            value.backward()
        else:
            value = manager.backward(batch(rank, step), loss)
        optimizer.step()
        losses.append(float(value.detach()))
    result: RankResult = {"losses": losses, "state": {name: value.clone() for name, value in net.state_dict().items()}}
    if manager is not None:
        result |= {"micro_batch_size": manager.micro_batch_size, "recoveries": manager.recoveries}
    return result


class UnusedLayerModel(nn.Module):
    """Each rank uses its own layer, and none uses the last one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers[dist.get_rank()](x)
        return found


def ddp(rank: int) -> RankResult:
    """The expected result: the usual loop."""
    net = DistributedDataParallel(model())
    return run(net, None, mean_loss, rank)


def managed_ddp(rank: int) -> RankResult:
    net = DistributedDataParallel(model())
    return run(net, MemoryManager(net), mean_loss, rank)


def one_is_short(rank: int) -> RankResult:
    net = DistributedDataParallel(model())
    return run(net, MemoryManager(net), FailsOnce(1) if rank == 1 else mean_loss, rank)


def one_is_always_short(rank: int) -> RankResult:
    net = model()
    return run(net, MemoryManager(net), FailsOnce(*range(100), least=1) if rank == 1 else mean_loss, rank)


def one_fails(rank: int) -> RankResult:
    def broken(net: nn.Module, part: Any) -> torch.Tensor:
        raise KeyError("label")

    net = model()
    return run(net, MemoryManager(net), broken if rank == 1 else mean_loss, rank)


def one_cannot_count(rank: int) -> RankResult:
    """An error before the model is called."""
    net = model()
    manager = MemoryManager(net)
    manager.backward([] if rank == 1 else data(4), mean_loss)
    return {}


def one_ends(rank: int) -> RankResult:
    def ends(net: nn.Module, part: Any) -> torch.Tensor:
        os._exit(9)

    net = model()
    return run(net, MemoryManager(net), ends if rank == 1 else mean_loss, rank)


def one_hangs(rank: int) -> RankResult:
    def hangs(net: nn.Module, part: Any) -> torch.Tensor:
        time.sleep(8)
        return mean_loss(net, part)

    net = model()
    return run(net, MemoryManager(net, timeout_seconds=2), hangs if rank == 1 else mean_loss, rank)


def unused(rank: int) -> RankResult:
    net = UnusedLayerModel()
    manager = MemoryManager(net)
    manager.backward(batch(rank, 0), mean_loss)
    return {"used": [layer.weight.grad is not None for layer in net.layers]}


def unfrozen_later(rank: int) -> RankResult:
    net = model()
    first = next(net.parameters())
    first.requires_grad_(False)
    manager = MemoryManager(net)
    net.requires_grad_()
    manager.backward(batch(rank, 0), mean_loss)
    return {"gradient": first.grad}


def accumulated(rank: int) -> RankResult:
    """Four batches a step."""
    net = model()
    manager = MemoryManager(net, accumulate=STEPS)
    for step in range(STEPS):
        manager.backward(batch(rank, step), FailsOnce(2) if rank == 1 else mean_loss)
    return {"gradient": next(net.parameters()).grad}


def accumulated_ddp(rank: int) -> RankResult:
    net = DistributedDataParallel(model())
    for step in range(STEPS):
        run_backward(mean_loss(net, batch(rank, step)) / STEPS)
    return {"gradient": next(net.parameters()).grad}


def batch_norm(rank: int) -> RankResult:
    net = DistributedDataParallel(model(nn.BatchNorm1d(64)))
    return run(net, MemoryManager(net), mean_loss, rank)


def sync_batch_norm(rank: int) -> RankResult:
    MemoryManager(model(nn.SyncBatchNorm(64)))
    return {}


def _rank(scenario: Callable[[int], RankResult], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    dist.barrier()  # gloo fails in a rank whose peer ends while it connects
    try:
        result = scenario(rank)
    except Exception as error:  # noqa: BLE001  # the error is the result
        result = {"error": type(error).__name__, "message": str(error)}
    torch.save(result, folder / str(rank))
    os._exit(0)  # without waiting for a rank that hangs


def ranks(scenario: Callable[[int], RankResult], tmp_path: Path) -> dict[int, RankResult]:
    """The results of the two ranks. A rank that does not exit in time fails the test."""
    folder = tmp_path / scenario.__name__
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(scenario, rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + WITHIN_SECONDS
    try:
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
            assert process.exitcode is not None, "a rank hangs"
    finally:
        for process in processes:
            process.kill()
            process.join()
    return {rank: torch.load(folder / str(rank)) for rank in range(2) if (folder / str(rank)).exists()}


def same_state(one: RankResult, other: RankResult) -> None:
    for name, value in one["state"].items():
        torch.testing.assert_close(value, other["state"][name])


@pytest.mark.parametrize("scenario", [managed_ddp, one_is_short])
def test_the_weights_are_those_of_distributed_data_parallel(tmp_path, scenario):
    expected, found = ranks(ddp, tmp_path), ranks(scenario, tmp_path)
    for rank in range(2):
        assert found[rank]["losses"] == pytest.approx(expected[rank]["losses"], rel=1e-5)
        same_state(expected[rank], found[rank])
        same_state(found[0], found[rank])
        assert found[rank]["recoveries"] == (scenario is one_is_short)
        assert found[rank]["micro_batch_size"] == (24 if scenario is one_is_short else None), "ranks differ"


@pytest.mark.parametrize(
    ("scenario", "errors"),
    [
        (one_is_always_short, ["DoesNotFitError", "DoesNotFitError"]),
        (one_fails, ["PeerFailedError", "KeyError"]),
        (one_cannot_count, ["PeerFailedError", "MemoryManagerError"]),
        (one_ends, ["PeerFailedError", None]),
        (one_hangs, ["PeerFailedError", "PeerFailedError"]),
        (sync_batch_norm, ["MemoryManagerError", "MemoryManagerError"]),
    ],
)
def test_both_raise_and_nobody_waits(tmp_path, scenario, errors):
    found = ranks(scenario, tmp_path)
    assert [found.get(rank, {}).get("error") for rank in range(2)] == errors, found


def test_parameters_that_others_use_and_that_nobody_uses(tmp_path):
    found = ranks(unused, tmp_path)
    assert found[0]["used"] == found[1]["used"] == [True, True, False]


def test_parameters_unfrozen_later_are_averaged(tmp_path):
    found = ranks(unfrozen_later, tmp_path)
    torch.testing.assert_close(found[0]["gradient"], found[1]["gradient"])


def test_accumulated_gradients_are_those_of_distributed_data_parallel(tmp_path):
    expected, found = ranks(accumulated_ddp, tmp_path), ranks(accumulated, tmp_path)
    for rank in range(2):
        torch.testing.assert_close(found[rank]["gradient"], expected[rank]["gradient"])


def test_buffers_are_the_first_ranks(tmp_path):
    found = ranks(batch_norm, tmp_path)
    same_state(found[0], found[1])


def test_gradients_go_into_pieces_whole_and_in_order():
    sizes = [3, 5, 1, 20, 1, 2, 9]
    pieces = _gradient_buckets([torch.zeros(size) for size in sizes], 10)
    assert [[piece.numel() for piece in pieces_] for pieces_ in pieces] == [[3, 5, 1], [20], [1, 2], [9]]


def test_a_compiled_wrapper_is_refused():
    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self._orig_mod = DistributedDataParallel.__new__(DistributedDataParallel)

    with pytest.raises(MemoryManagerError, match="before wrapping it"):
        MemoryManager(Compiled())
