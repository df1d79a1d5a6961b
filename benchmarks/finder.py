"""The number of trials to find the largest batch that fits: `make bench-finder`.

Ours beside Lightning's BatchSizeFinder (`power`, `binsearch`) and accelerate's find_executable_batch_size, on the same
models and the same simulated memory limits in one run. Each tool calls the same trial, which raises the out-of-memory
error of CUDA where that would. Two kinds of cases:

- `trained`: small networks trained on this CPU under a limit on tracked tensors. A trial is three real steps, and wall
  times are theirs.
- `simulated`: image models of benchmarks/memory on GPUs of several sizes, with the caching allocator, workspaces that
  change with the batch and a driver's context. Only trials count there, trials take no time.

A size is safe where it runs without the allocator having to give memory back and to ask again (num_alloc_retries): that
makes the GPU wait in every step, and a little more memory ends it. Ours looks at that counter and the others do not, so
distances are measured from both: the largest safe size, and the largest that runs at all. Out of memory is only what
raises. Within 5 % also counts what is one sample short.

accelerate only goes down, by a tenth a failure, so its start decides: 1,024 everywhere. Lightning's figures are its own
defaults; `binsearch` takes 5 % off what it found.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gpu_advisor.calibration.batch_size_finder import SearchConfig, TrialMemory, find_batch_size
from gpu_advisor.calibration.caching_allocator import AllocatorPeak, replay
from gpu_advisor.calibration.memory_tracker import MemoryTracker
from torch import nn

from benchmarks import common
from benchmarks.memory.architectures import ImageModel, sample
from benchmarks.memory.population import Study, draw
from benchmarks.memory.step import at_batch, events
from benchmarks.memory.workspaces import workspaces

MAX_BATCH = 1024
MIB, GIB = 1 << 20, 1 << 30
STEPS = 3
Memory = Callable[[int, int], TrialMemory | None]
"""Of a batch size under a limit in bytes; None where it is not safe. Raises torch.OutOfMemoryError."""


@dataclass(frozen=True, slots=True)
class SearchCase:
    """A model on a GPU of `limit_bytes`, with the largest batch that is safe and the largest that runs."""

    kind: str
    name: str
    limit_bytes: int
    safe: int
    runs: int
    memory: Memory

    def is_safe(self, size: int) -> bool:
        try:
            return self.memory(size, self.limit_bytes) is not None
        except torch.OutOfMemoryError:
            return False


@dataclass
class CountingTrial:
    """A trial that counts its calls."""

    case: SearchCase
    trials: int = 0
    failures: int = 0

    def __call__(self, size: int) -> TrialMemory | None:
        self.trials += 1
        try:
            return self.case.memory(size, self.case.limit_bytes)
        except torch.OutOfMemoryError:
            self.failures += 1
            raise


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one tool did on one case; short ratios are how far below the largest it ended (negative: above)."""

    trials: int
    failures: int
    seconds: float
    safe: bool
    near: bool
    """Safe, and at most 5 % or one sample below the largest such size."""
    short_of_safe_ratio: float
    short_of_runs_ratio: float


def run_our_finder(trial: CountingTrial) -> int:
    def run(size: int) -> TrialMemory | None:
        try:
            return trial(size)
        except torch.OutOfMemoryError:
            return None

    return find_batch_size(run, SearchConfig(trial.case.limit_bytes, max_batch_size=MAX_BATCH)).batch_size


def accelerate(trial: CountingTrial) -> int:
    from accelerate.utils import find_executable_batch_size  # type: ignore[import-untyped]

    def run(batch_size: int) -> int:
        trial(batch_size)
        return batch_size

    found: int = find_executable_batch_size(run, starting_batch_size=MAX_BATCH)()
    return found


def lightning(mode: str) -> Callable[[CountingTrial], int]:
    def search(trial: CountingTrial) -> int:
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import BatchSizeFinder

        finder = BatchSizeFinder(mode=mode, max_val=2 * MAX_BATCH)
        with TemporaryDirectory() as folder, suppress(_Stop):  # it leaves a checkpoint where it was stopped
            trainer = Trainer(
                max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[_stop_after(finder)], default_root_dir=folder,
            )  # fmt: skip
            trainer.fit(_module(trial))
        assert finder.optimal_batch_size is not None
        return int(finder.optimal_batch_size)

    return search


class _Stop(Exception):
    """Raised when the search is over, to skip the training after it."""


def _stop_after(finder: Any) -> Any:
    scale = finder.scale_batch_size

    def scale_and_stop(*arguments: Any) -> None:
        scale(*arguments)
        raise _Stop

    finder.scale_batch_size = scale_and_stop
    return finder


def _module(trial: CountingTrial) -> Any:
    from lightning.pytorch import LightningModule
    from torch.utils.data import DataLoader, TensorDataset

    class Module(LightningModule):
        """One trial in the first step of each of Lightning's: the other steps of it would repeat the same."""

        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 2
            self.weight = nn.Parameter(torch.zeros(1))

        def training_step(self, batch: Any, index: int) -> Any:
            if index == 0:
                trial(self.batch_size)
            return self.weight.sum()

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.zeros(16 * MAX_BATCH, 1)), batch_size=self.batch_size)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Module()


TOOLS: dict[str, Callable[[CountingTrial], int]] = {
    "ours": run_our_finder,
    "lightning power": lightning("power"),
    "lightning binsearch": lightning("binsearch"),
    "accelerate": accelerate,
}


def _mlp() -> tuple[nn.Module, tuple[int, ...]]:
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 10)), (128,)


def _conv() -> tuple[nn.Module, tuple[int, ...]]:
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 8), (8, 16)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)), (3, 16, 16)


def _transformer() -> tuple[nn.Module, tuple[int, ...]]:
    layer = nn.TransformerEncoderLayer(48, 2, 96, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(48 * 16, 10)), (16, 48)


NETWORKS = {"mlp": _mlp, "conv": _conv, "transformer": _transformer}


def train(name: str, size: int, limit_bytes: int | None) -> TrialMemory:
    """Run three steps with AdamW, with memory by tracked tensors."""
    with MemoryTracker(limit_bytes) as tracker:
        model, shape = NETWORKS[name]()
        optimizer = torch.optim.AdamW(model.parameters())
        inputs, targets = torch.randn(size, *shape), torch.randint(10, (size,))
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            forward = tracker.current_bytes
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        del inputs, targets, loss
    return TrialMemory(tracker.peak_bytes, tracker.current_bytes, forward)


def trained_cases(generator: random.Random, count: int) -> Iterable[SearchCase]:
    """Limits between the memory of 12 and of 700 samples, so that the best lies anywhere between."""
    for number in range(count):
        name = list(NETWORKS)[number % len(NETWORKS)]
        size = round(12 * (700 / 12) ** generator.random())
        limit = train(name, size, None).peak_bytes
        yield _case("trained", name, limit, partial(train, name))


def simulated_cases(generator: random.Random, count: int) -> Iterable[SearchCase]:
    """Models on GPUs where at least a batch of four fits and one of MAX_BATCH does not."""
    made = 0
    while made < count:
        study = draw(generator)
        [model] = sample(1, generator.randrange(1 << 30))
        limit = generator.choice((8, 12, 16, 24, 40, 80)) * GIB
        memory = simulated(study, model)
        try:
            memory(4, limit)
        except torch.OutOfMemoryError:
            continue
        case = _case("simulated", model.name, limit, memory)
        if case.runs < MAX_BATCH:
            made += 1
            yield case


def simulated(study: Study, model: ImageModel) -> Memory:
    """Compute what a driver reports of a model, once per size and limit."""
    steps, workspace = events(model.tape, study.way), workspaces(study.library)
    copies = 1 + study.way.optimizer_slots + study.way.keeps_gradients
    held = 4 * model.tape.parameters * copies + study.held_bytes + study.context_bytes

    @cache
    def peak(size: int, limit: int) -> AllocatorPeak | None:
        try:
            return replay([(0, study.held_bytes), *at_batch(steps, size, workspace)], limit - study.context_bytes)
        except MemoryError:
            return None

    def memory(size: int, limit: int) -> TrialMemory | None:
        found = peak(size, limit)
        if found is None:
            raise torch.OutOfMemoryError("CUDA out of memory. Simulated.")
        return None if found.retries else TrialMemory(found.reserved_bytes + study.context_bytes, held)

    return memory


def _case(kind: str, name: str, limit: int, memory: Memory) -> SearchCase:
    def runs(size: int) -> bool:
        try:
            memory(size, limit)
        except torch.OutOfMemoryError:
            return False
        return True

    probe = SearchCase(kind, name, limit, 0, 0, memory)
    return replace(probe, safe=_largest_that_holds(probe.is_safe), runs=_largest_that_holds(runs))


def _largest_that_holds(holds: Callable[[int], bool]) -> int:
    """Return the largest size that satisfies the condition, by bisection: memory increases with size."""
    low, high = 1, 2 * MAX_BATCH
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


@dataclass
class ToolSummary:
    outcomes: list[SearchResult] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        found = self.outcomes
        return {
            "runs": len(found),
            "trials": mean(one.trials for one in found),
            "failures": mean(one.failures for one in found),
            "runs_without_failure_ratio": mean(one.failures == 0 for one in found),
            "seconds": mean(one.seconds for one in found),
            "safe_ratio": mean(one.safe for one in found),
            "short_of_safe_ratio": mean(one.short_of_safe_ratio for one in found),
            "within_5_percent_ratio": mean(one.near for one in found),
            "short_of_runs_ratio": mean(one.short_of_runs_ratio for one in found),
        }


def run(case: SearchCase, tool: Callable[[CountingTrial], int]) -> SearchResult:
    trial = CountingTrial(case)
    begin = time.perf_counter()
    found = tool(trial)
    seconds = time.perf_counter() - begin
    safe, short = case.is_safe(found), (1 - found / largest for largest in (case.safe, case.runs))
    near = safe and found >= min(0.95 * case.safe, case.safe - 1)
    return SearchResult(trial.trials, trial.failures, seconds, safe, near, *short)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=int, default=12, help="cases that are trained")
    parser.add_argument("--simulated", type=int, default=60, help="cases that are simulated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for package in ("lightning.pytorch", "accelerate.utils"):
        importlib.import_module(package)  # so that no tool's time counts it
    generator = random.Random(1)
    tallies: dict[tuple[str, str], ToolSummary] = {}
    cases = [*trained_cases(generator, arguments.trained), *simulated_cases(generator, arguments.simulated)]
    gc.freeze()  # the others collect garbage after every trial: not what belongs to the cases
    for case in cases:
        for name, tool in TOOLS.items():
            tallies.setdefault((case.kind, name), ToolSummary()).outcomes.append(run(case, tool))
    figures = {key: tally.figures() for key, tally in tallies.items()}
    print(_table(figures))
    goals = _goals(figures)
    print(*goals, sep="\n")
    results = {f"{kind}, {name}": found for (kind, name), found in figures.items()}
    print(common.write("finder", {**results, "torch": torch.__version__, "goals": [str(goal) for goal in goals]}))
    return 0


def _table(figures: dict[tuple[str, str], dict[str, float]]) -> str:
    rows = [["cases, tool", "runs", "trials", "out of memory", "runs without", "wall s", "safe",
             "below safe", "within 5 %", "below what runs"]]  # fmt: skip
    for (kind, name), one in figures.items():
        rows.append([
            f"{kind}, {name}", str(one["runs"]), f"{one['trials']:.1f}", f"{one['failures']:.2f}",
            f"{one['runs_without_failure_ratio']:.0%}", f"{one['seconds']:.2f}", f"{one['safe_ratio']:.0%}",
            f"{one['short_of_safe_ratio']:.1%}", f"{one['within_5_percent_ratio']:.0%}",
            f"{one['short_of_runs_ratio']:.1%}",
        ])  # fmt: skip
    return common.table(rows)


def _goals(figures: dict[tuple[str, str], dict[str, float]]) -> list[common.Goal]:
    goals = []
    for kind in dict.fromkeys(kind for kind, _ in figures):
        mine = figures[kind, "ours"]
        for name in TOOLS:
            if name != "ours":
                ratio = mine["trials"] / figures[kind, name]["trials"]
                goals.append(common.Goal(f"{kind}: less than half the trials of {name}", ratio < 0.5, f"{ratio:.0%}"))
        clean, close = mine["runs_without_failure_ratio"], mine["within_5_percent_ratio"]
        goals.append(common.Goal(f"{kind}: no out-of-memory event in 95 % of runs", clean >= 0.95, f"{clean:.0%}"))
        goals.append(
            common.Goal(f"{kind}: within 5 % of the largest that is safe", close >= 0.95, f"{close:.0%} of runs")
        )
    return goals


if __name__ == "__main__":
    sys.exit(main())
