"""The largest batch that fits, found in how many trials: `make bench-finder`.

Ours beside Lightning's BatchSizeFinder (`power`, `binsearch`) and accelerate's find_executable_batch_size, on the same
models and the same simulated memory limits in one run. Each tool calls the same trial, which returns the peak or raises
the out-of-memory error of CUDA. Two kinds of cases:

- `trained`: small networks trained on this CPU under a limit on tracked tensors. A trial is three real steps, and wall
  times are theirs.
- `simulated`: image models of benchmarks/memory on GPUs of several sizes, with the caching allocator, workspaces that
  change with the batch and a driver's context. Only trials count there, a trial takes no time worth telling.

accelerate only goes down, by a tenth a failure, so its start decides: 1,024 everywhere. Lightning's figures are its own
defaults; `binsearch` takes 5 % off what it found.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gpu_advisor.calibration.allocator import replay
from gpu_advisor.calibration.finder import Search, find
from gpu_advisor.calibration.tracking import MemoryTracker
from torch import nn

from benchmarks import report
from benchmarks.memory.architectures import Model, sample
from benchmarks.memory.population import Study, draw
from benchmarks.memory.step import at_batch, events
from benchmarks.memory.workspaces import workspaces

LARGEST = 1024
MIB, GIB = 1 << 20, 1 << 30
STEPS = 3
Memory = Callable[[int, int], int]
"""Peak in bytes of a batch size under a limit in bytes. Raises torch.OutOfMemoryError beyond it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model on a GPU of `limit_bytes`; `best` is the largest batch that fits it."""

    kind: str
    name: str
    limit_bytes: int
    best: int
    memory: Memory


@dataclass
class Counted:
    """A trial that counts itself."""

    case: Case
    trials: int = 0
    failures: int = 0

    def __call__(self, size: int) -> int:
        self.trials += 1
        try:
            return self.case.memory(size, self.case.limit_bytes)
        except torch.OutOfMemoryError:
            self.failures += 1
            raise


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one tool did on one case; `short_ratio` is how far below the best it ended (negative: above)."""

    trials: int
    failures: int
    seconds: float
    short_ratio: float


def ours(trial: Counted) -> int:
    def run(size: int) -> int | None:
        try:
            return trial(size)
        except torch.OutOfMemoryError:
            return None

    return find(run, Search(trial.case.limit_bytes, largest=LARGEST)).batch_size


def accelerate(trial: Counted) -> int:
    from accelerate.utils import find_executable_batch_size  # type: ignore[import-untyped]

    def run(batch_size: int) -> int:
        trial(batch_size)
        return batch_size

    found: int = find_executable_batch_size(run, starting_batch_size=LARGEST)()
    return found


def lightning(mode: str) -> Callable[[Counted], int]:
    def search(trial: Counted) -> int:
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import BatchSizeFinder

        finder = BatchSizeFinder(mode=mode, max_val=2 * LARGEST)
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
    """Raised when the search is over: the training after it is none of ours."""


def _stop_after(finder: Any) -> Any:
    scale = finder.scale_batch_size

    def scale_and_stop(*arguments: Any) -> None:
        scale(*arguments)
        raise _Stop

    finder.scale_batch_size = scale_and_stop
    return finder


def _module(trial: Counted) -> Any:
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
            return DataLoader(TensorDataset(torch.zeros(16 * LARGEST, 1)), batch_size=self.batch_size)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Module()


TOOLS: dict[str, Callable[[Counted], int]] = {
    "ours": ours,
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


def train(name: str, size: int, limit_bytes: int | None) -> int:
    """Three steps with AdamW; the peak of tracked tensors in bytes."""
    with MemoryTracker(limit_bytes) as tracker:
        model, shape = NETWORKS[name]()
        optimizer = torch.optim.AdamW(model.parameters())
        inputs, targets = torch.randn(size, *shape), torch.randint(10, (size,))
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return int(tracker.peak_bytes)


def trained_cases(generator: random.Random, count: int) -> Iterable[Case]:
    """Limits between the memory of 12 and of 700 samples, so that the best lies anywhere between."""
    for number in range(count):
        name = list(NETWORKS)[number % len(NETWORKS)]
        size = round(12 * (700 / 12) ** generator.random())
        limit = train(name, size, None)

        def memory(size: int, limit: int, name: str = name) -> int:
            return train(name, size, limit)

        yield _case("trained", name, limit, memory)


def simulated_cases(generator: random.Random, count: int) -> Iterable[Case]:
    """Models on GPUs where at least a batch of four fits and one of LARGEST does not."""
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
        if case.best < LARGEST:
            made += 1
            yield case


def simulated(study: Study, model: Model) -> Memory:
    """Peaks of a model as a driver would see them, computed once a size."""
    steps, workspace = events(model.tape, study.way), workspaces(study.library)
    known: dict[int, int] = {}

    def memory(size: int, limit: int) -> int:
        if size not in known:
            peak = replay([(0, study.held_bytes), *at_batch(steps, size, workspace)])
            known[size] = peak.reserved_bytes + study.context_bytes
        if known[size] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Simulated.")
        return known[size]

    return memory


def _case(kind: str, name: str, limit: int, memory: Memory) -> Case:
    """With the largest size that fits, by bisection: memory is taken to rise."""
    low, high = 1, 2 * LARGEST
    while low < high:
        middle = (low + high + 1) // 2
        try:
            memory(middle, limit)
            low = middle
        except torch.OutOfMemoryError:
            high = middle - 1
    return Case(kind, name, limit, low, memory)


@dataclass
class Tally:
    outcomes: list[Outcome] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        found = self.outcomes
        return {
            "runs": len(found),
            "trials": mean(one.trials for one in found),
            "failures": mean(one.failures for one in found),
            "runs_without_failure_ratio": mean(one.failures == 0 for one in found),
            "seconds": mean(one.seconds for one in found),
            "short_ratio": mean(one.short_ratio for one in found),
            "within_5_percent_ratio": mean(0 <= one.short_ratio <= 0.05 for one in found),
        }


def run(case: Case, tool: Callable[[Counted], int]) -> Outcome:
    trial = Counted(case)
    begin = time.perf_counter()
    found = tool(trial)
    return Outcome(trial.trials, trial.failures, time.perf_counter() - begin, 1 - found / case.best)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=int, default=12, help="cases that are trained")
    parser.add_argument("--simulated", type=int, default=60, help="cases that are simulated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    generator = random.Random(1)
    tallies: dict[tuple[str, str], Tally] = {}
    cases = [*trained_cases(generator, arguments.trained), *simulated_cases(generator, arguments.simulated)]
    for case in cases:
        for name, tool in TOOLS.items():
            tallies.setdefault((case.kind, name), Tally()).outcomes.append(run(case, tool))
    figures = {key: tally.figures() for key, tally in tallies.items()}
    print(_table(figures))
    goals = _goals(figures)
    print(*goals, sep="\n")
    results = {f"{kind}, {name}": found for (kind, name), found in figures.items()}
    print(report.write("finder", {**results, "torch": torch.__version__, "goals": [str(goal) for goal in goals]}))
    return 0


def _table(figures: dict[tuple[str, str], dict[str, float]]) -> str:
    rows = [["cases, tool", "runs", "trials", "out of memory", "runs without", "wall s", "below best", "within 5 %"]]
    for (kind, name), one in figures.items():
        rows.append([
            f"{kind}, {name}", str(one["runs"]), f"{one['trials']:.1f}", f"{one['failures']:.2f}",
            f"{one['runs_without_failure_ratio']:.0%}", f"{one['seconds']:.2f}", f"{one['short_ratio']:.1%}",
            f"{one['within_5_percent_ratio']:.0%}",
        ])  # fmt: skip
    return report.table(rows)


def _goals(figures: dict[tuple[str, str], dict[str, float]]) -> list[report.Goal]:
    goals = []
    for kind in dict.fromkeys(kind for kind, _ in figures):
        mine = figures[kind, "ours"]
        for name in TOOLS:
            if name != "ours":
                ratio = mine["trials"] / figures[kind, name]["trials"]
                goals.append(report.Goal(f"{kind}: less than half the trials of {name}", ratio < 0.5, f"{ratio:.0%}"))
        clean, close = mine["runs_without_failure_ratio"], mine["within_5_percent_ratio"]
        goals.append(report.Goal(f"{kind}: no out-of-memory event in 95 % of runs", clean >= 0.95, f"{clean:.0%}"))
        goals.append(report.Goal(f"{kind}: within 5 % of the largest that fits", close >= 0.95, f"{close:.0%} of runs"))
    return goals


if __name__ == "__main__":
    sys.exit(main())
