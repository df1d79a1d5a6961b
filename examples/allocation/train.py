"""Leases a GPU, trains on it and releases it; on the CPU only with --cpu-fallback.

    python examples/allocation/train.py --gpu A100-80GB

The lease is renewed during training. If it is lost, training stops before another job gets the GPU.
"""

from __future__ import annotations

import argparse
import logging
import sys

from gpu_advisor.allocation.errors import AllocationError
from gpu_advisor.allocation.frameworks import SetupOptions
from gpu_advisor.allocation.manager import (
    Session,
    TrainingGPUConfig,
    get_gpu_resource_manager,
    train_with_gpu_resources,
)
from gpu_advisor.allocation.memory_strategy import MemoryStrategy

FEATURES, WIDTH = 64, 256


def train(gpus: Session, steps: int, batch_size: int) -> float:
    """Train and return the last loss. Called again with a smaller `batch_scale` after running out of memory."""
    applied = gpus.apply_pytorch(SetupOptions(strategy=MemoryStrategy.CONSERVATIVE))
    import torch  # after its settings are applied
    from torch import nn

    where = "the CPU" if gpus.on_cpu else f"{gpus.allocation.gpu_type} on {gpus.allocation.node_names[0]}"
    print(f"training on {where}: {applied.device}, {applied.dtype}", flush=True)
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1)).to(applied.device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    scaler = applied.grad_scaler()
    loss = torch.zeros(())
    for _ in range(steps):
        gpus.check()  # raises when the lease is lost
        x = torch.rand(max(1, int(batch_size * gpus.batch_scale)), FEATURES, device=applied.device)
        with applied.autocast():
            loss = nn.functional.mse_loss(model(x).float(), x.sin().mean(1, keepdim=True))
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
    return float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", default="", metavar="TYPE", help="such as A100-80GB or nvidia.com/gpu (default: any)")
    parser.add_argument("--min-memory-gb", type=float, help="accept a smaller GPU, down to this memory")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long to wait for a free GPU")
    parser.add_argument("--cpu-fallback", action="store_true", help="train on the CPU if no GPU is available")
    parser.add_argument("--advisor", metavar="URL", help="the advisor to lease from (default: the one on this machine)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = TrainingGPUConfig(
            gpu_type=arguments.gpu,
            min_memory_gb=arguments.min_memory_gb,
            mixed_precision=True,
            cpu_fallback=arguments.cpu_fallback,
            wait_seconds=arguments.wait,
        )
        manager = get_gpu_resource_manager(arguments.advisor)
        loss = train_with_gpu_resources(
            config, lambda gpus: train(gpus, arguments.steps, arguments.batch_size), manager
        )
    except AllocationError as error:
        sys.exit("\n  ".join((str(error), *getattr(error, "reasons", ()))))
    print(f"loss: {loss:.4f}")


if __name__ == "__main__":
    main()
