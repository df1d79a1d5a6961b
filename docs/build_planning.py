"""Writes docs/planning.md: the memory model, and its comparison with published figures.

python docs/build_planning.py            writes it
python docs/build_planning.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from generated_page import table, write_or_check

from benchmarks import published_plans

PAGE = Path(__file__).parent / "planning.md"
COMMAND = "python docs/build_planning.py"

TEXT = f"""# Planning a training job

Made by `{COMMAND}`: do not edit.

    gpu-advisor plan --params 7b --gpus 8xA100-80GB
    gpu-advisor plan --config config.json --gpus 4x8xH100 --global-batch 1024 --sequence 4096
    gpu-advisor plan --layers 32 --hidden 4096 --heads 32 --gpus 4xL40S --format json

The planner tries all plausible layouts: tensor parallelism within a node, pipeline parallelism, data parallelism with
ZeRO stages, micro-batches, activation checkpointing, offloading. It ranks those that fit with the margin by known
costs. The output shows the memory of the best, why others were ruled out, and, as JSON, settings for torchrun,
DeepSpeed, FSDP and Megatron-LM. The ranking does not predict speed.

## Memory terms

| term | bytes on a GPU |
| --- | --- |
| weights | 2 per parameter in mixed precision; divided by the data-parallel size in ZeRO-3 |
| gradients | 2 (4 where they are kept in float32); divided from ZeRO-2 on |
| optimizer | 12 for AdamW in mixed precision; divided from ZeRO-1 on |
| activations | of a layer `s b h (34 + 5 a s / h)` in a GPT with dropout, counted operation by operation (see below) |
| buffers | two layers' weights, gathered by ZeRO-3 or offloading |
| overhead | driver, libraries, communicators: 1 GiB by default (`--overhead-gib`) |

Gates, experts and grouped-query attention have activations of their own. `--attention flash` leaves out the scores,
`5 a s / h`, which FlashAttention does not keep.

Sources: [ZeRO](https://arxiv.org/abs/1910.02054), [activations](https://arxiv.org/abs/2205.05198),
[FlashAttention](https://arxiv.org/abs/2205.14135), [the pipeline's bubble](https://arxiv.org/abs/2104.04473).
With a size alone (`--params`) the planner assumes the nearest published model, and names it.

## Correction by a profile

    gpu-advisor plan --params 1.3b --gpus 8xA100-40GB --profile gpt.profile.json

Formulas do not know your code: how the loss keeps its logits, what a fused kernel saves, what your driver takes. A
profile of the same model on one GPU, from [`gpu-advisor probe`](calibration.md) without checkpointing, measures it. Its
peaks lie on a line over the plan's activations: the slope scales the activations of every layout, and the excess of
the intercept over the model states replaces the assumed overhead. Gradients stay in the plan, even if a step without
accumulation peaks before they exist. A profile of another model, precision, sequence or attention is rejected with the
reason. Probe the complete model: with fewer layers, the embedding and output layer dominate.

## Other models

    gpu-advisor plan --module my.training:factory --gpus 4xL4 --global-batch 128 --profile l4.profile.json

traces the module as `gpu-advisor estimate` does, at each micro-batch that divides a GPU's part of the global batch, and
reports the largest that fits: the estimate leaves the margin free, and the upper end of its interval fits. A trace does
not attribute memory to parameters, so these plans are data-parallel only, without sharding.

## Limitations

Not included: fragmentation (keep the margin), checkpoint writing, host memory for offloaded states.

## Published figures

"""

TEXT_AFTER_TABLE = """
Known difference: DeepSpeed's estimator for ZeRO-2 without offloading gives 15.93 GiB for the T5-3B above, the ZeRO
paper's sharded gradients 10.0 GiB: the estimator counts a full copy of the gradients beside the sharded one.
"""


def text() -> str:
    """The page."""
    return (
        TEXT
        + "\n".join(table(("what", "published", "gpu-advisor", "difference", "source"), published_plans.rows()))
        + "\n"
        + TEXT_AFTER_TABLE
    )


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, text(), COMMAND))
