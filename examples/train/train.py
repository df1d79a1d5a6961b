"""Trains a small model with all parts of gpu_advisor.training, on a GPU or the CPU (less than a minute).

    python examples/train/train.py --directory /var/lib/gpu-exporter/textfile

README.md beside this file shows how its metrics reach the exporter's /metrics.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import time

import torch
from gpu_advisor.training import MemoryManager, OptimizedDataLoader, PrefetchLoader, TrainingMonitor
from gpu_advisor.training.memory.simulated_memory import SimulatedMemory
from torch import nn

SAMPLES, FEATURES, WIDTH = 2048, 64, 256


class SineDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Sums of sines; each sample takes as long to load as a small file from disk."""

    def __init__(self, read_seconds: float) -> None:
        self._read_seconds = read_seconds

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self._read_seconds)
        generator = torch.Generator().manual_seed(index)
        x = torch.rand(FEATURES, generator=generator) * 2 * math.pi
        return x, x.sin().mean(0, keepdim=True)


def build() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, WIDTH),
        nn.GELU(),
        nn.LayerNorm(WIDTH),
        nn.Linear(WIDTH, WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, 1),
    )


def compute_loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    x, y = batch
    return nn.functional.mse_loss(model(x), y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", default="example", help="label training_job (default: %(default)s)")
    parser.add_argument("--directory", help="the exporter's textfile directory")
    parser.add_argument("--listen", help="HOST:PORT to serve /metrics on, without a shared directory")
    parser.add_argument("--uuid", help="UUID of the GPU, as in gpu_info, if PyTorch does not report it")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--at-least-seconds", type=float, default=0, help="train more epochs until then")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--read-seconds", type=float, default=0.0005, help="latency of the simulated disk")
    parser.add_argument("--report-seconds", type=float, default=2.0, help="reporting interval")
    parser.add_argument(
        "--simulate-memory-mib", type=float, help="simulate this much memory on the CPU, to see a step recover"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    torch.manual_seed(0)

    with contextlib.ExitStack() as stack:
        memory = None
        if arguments.simulate_memory_mib:
            memory = stack.enter_context(SimulatedMemory(int(arguments.simulate_memory_mib * 2**20)))
        device = torch.device("cuda" if torch.cuda.is_available() and memory is None else "cpu")

        loader = OptimizedDataLoader(
            SineDataset(arguments.read_seconds), arguments.batch_size, shuffle=True, measure_within_seconds=5
        )
        print(f"{loader.num_workers} data-loading workers, of", *loader.worker_rates, sep="\n  ")
        model = build().to(device)
        manager = MemoryManager(model, memory=memory)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        monitor = stack.enter_context(
            TrainingMonitor(
                arguments.job,
                directory=arguments.directory,
                listen=arguments.listen,
                uuid=arguments.uuid,
                memory=manager.memory,
                interval_seconds=arguments.report_seconds,
            )
        )
        started_at, epoch = time.monotonic(), 0
        while epoch < arguments.epochs or time.monotonic() - started_at < arguments.at_least_seconds:
            epoch += 1
            for batch in monitor.batches(PrefetchLoader(loader, device)):
                loss = manager.backward(batch, compute_loss)
                optimizer.step()
                monitor.record(loss=loss)
                if manager.micro_batch_size:
                    monitor.record_micro_batch_size(manager.micro_batch_size)
            print(f"epoch {epoch}: loss {monitor.summary().values['loss'].mean:.4f} in the mean so far")
        print(monitor.summary())
        if manager.recoveries:
            print(f"recovered {manager.recoveries} time(s) from out of memory, micro-batch {manager.micro_batch_size}")


if __name__ == "__main__":
    main()
