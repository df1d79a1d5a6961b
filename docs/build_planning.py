"""Writes docs/planning.md: how memory is reckoned, and the published figures it is held against.

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

Every way to split the job that makes sense is tried: tensor-parallel within a node, pipeline-parallel, data-parallel
with ZeRO's stages, micro-batches, activations kept or computed again, states off-loaded. Those that fit with the margin
are ordered by what they are known to cost; the answer shows the memory of the best, what ruled the others out, and, as
JSON, settings for torchrun, DeepSpeed, FSDP and Megatron-LM. The order is one of costs, not a promise of speed.

## What memory is made of

| term | bytes on a GPU |
| --- | --- |
| weights | 2 a parameter in mixed precision; divided by the data-parallel size in ZeRO-3 |
| gradients | 2 (4 where they are kept in float32); divided from ZeRO-2 on |
| optimizer | 12 for AdamW in mixed precision; divided from ZeRO-1 on |
| activations | of a layer `s b h (34 + 5 a s / h)` in a GPT with dropout, counted operation by operation (see below) |
| buffers | two layers' weights, where ZeRO-3 or off-loading brings them in |
| overhead | driver, libraries, communicators: 1 GiB unless you say otherwise |

Gates, experts and grouped-query attention have activations of their own. `--attention flash` leaves out the scores,
`5 a s / h`, which FlashAttention does not keep.

Sources: [ZeRO](https://arxiv.org/abs/1910.02054), [activations](https://arxiv.org/abs/2205.05198),
[FlashAttention](https://arxiv.org/abs/2205.14135), [the pipeline's bubble](https://arxiv.org/abs/2104.04473).
A size alone (`--params`) is read as the nearest published model, which is named in the answer.

## Corrected by what you measured

    gpu-advisor plan --params 1.3b --gpus 8xA100-40GB --profile gpt.profile.json

Formulas do not know your code: how the loss keeps its logits, what a fused kernel saves, what your driver takes. A
profile of the same model on one GPU, by [`gpu-advisor probe`](calibration.md) and without checkpointing, says it. Its
peaks lie on a line over the plan's activations: the slope scales the activations of every layout, and what the
intercept has above the model's states replaces the assumed overhead. Gradients stay in the plan, also where a step
without accumulation peaks before they are there. A profile of another model, precision, sequence or attention is
refused with what does not agree. A probe of fewer layers will not do: the ends of the model are then too large a part
of it.

## Models that are no transformers

    gpu-advisor plan --module my.training:factory --gpus 4xL4 --global-batch 128 --profile l4.profile.json

traces the module as `gpu-advisor estimate` does, at each micro-batch that divides what a GPU gets of the global one,
and says the largest that fits: with the margin free, and at all at the upper end of the estimate's interval. A trace
does not know which memory is whose parameters, so the job is split by data only, without sharding.

## What is left out

Not in it: fragmentation (keep the margin), checkpoints being written, the host's memory for what is off-loaded.

## Published figures

"""

TEXT_AFTER_TABLE = """
Known to differ: DeepSpeed's estimator for ZeRO-2 without off-loading says 15.93 GiB for the T5-3B above, where sharded
gradients of the ZeRO paper give 10.0 GiB: it counts a whole copy of the gradients beside the sharded one.
"""


def text() -> str:
    """The page."""
    return (
        TEXT
        + "\n".join(table(("what", "published", "here", "difference", "source"), published_plans.rows()))
        + "\n"
        + TEXT_AFTER_TABLE
    )


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, text(), COMMAND))
