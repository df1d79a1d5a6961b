"""Time of a training step: computation at a published utilization, and the communication that it cannot hide.

A token costs 6 operations per parameter that it passes, and 12 * layers * width * sequence for attention's scores
(Narayanan et al., 2021, appendix, https://arxiv.org/abs/2104.04473, without recomputation). The share of a GPU's peak
that training reaches (MFU) is taken from LLM Foundry's tables for A100 and H100
(https://github.com/mosaicml/llm-foundry/blob/main/scripts/train/benchmarking/README.md, rows without recomputation of
3 to 13 billion parameters); other types are assumed to reach the lower of the two.

- Recomputation in full repeats the forward pass: a third more work (Chen et al., 2016,
  https://arxiv.org/abs/1604.06174). Selective recomputation repeats half of the matrix products.
- Pipelines idle (p - 1) / m of the time with m micro-batches (Narayanan et al., section 2.2).
- ZeRO-3 gathers the weights twice and scatters the gradients once each pass, lower stages reduce gradients once a step
  (Rajbhandari et al., 2020, section 7, https://arxiv.org/abs/1910.02054); both overlap with computation.
- Tensor parallelism reduces the layer's values four times a layer and pass, without overlap (Shoeybi et al., 2019,
  section 3, https://arxiv.org/abs/1909.08053); experts exchange them four times (Lepikhin et al., 2020,
  https://arxiv.org/abs/2006.16668).
- Off-loaded states cross the bus once a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.gpu_table import GPU_SPECS
from gpu_advisor.planning.activation_model import local_tokens
from gpu_advisor.planning.layout import Checkpointing, OptimizerSpec, ParallelLayout
from gpu_advisor.planning.transformer_shape import TransformerShape

_MFU = {"A100": 0.58, "A800": 0.58, "H100": 0.42, "H800": 0.42}
_USUAL_MFU = 0.42
#: Of a type whose peak is unknown: only the ranking uses it.
_NOMINAL_TFLOPS = 300.0
#: Work of a step relative to one without recomputation.
_WORK: dict[Checkpointing, float] = {"none": 1.0, "selective": 1 + 1 / 6, "full": 4 / 3}
#: Speed-up of a whole step by matrix products in 8 bits, as torchtitan measured for Llama 3.1 8B (8,532 / 6,667 tokens;
#: https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md).
_FP8_SPEEDUP = 1.28
_BUS_BYTES_PER_SECOND = 25e9
#: Fixed costs of a pass (launches, small kernels) in tokens' worth of work.
_TOKENS_OF_OVERHEAD = 205.0


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one optimizer step; `ideal`: of computation alone, without recomputation, bubbles or communication."""

    seconds: float
    ideal: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs together."""
        return self.tokens / self.seconds

    @property
    def relative(self) -> float:
        """Cost relative to the ideal (1.0)."""
        return self.seconds / self.ideal


def operations_per_token(shape: TransformerShape) -> float:
    """Floating-point operations of a training step per token, without recomputation."""
    return 6 * shape.used_parameters + 12 * shape.attentions * shape.layers * shape.query_width * shape.sequence


def published_mfu(gpu_type: str) -> float:
    return _MFU.get(gpu_type, _USUAL_MFU)


def peak_is_known(machines: ClusterSpec) -> bool:
    spec = GPU_SPECS.get(machines.gpu_type)
    return spec is not None and spec.tflops is not None


def step_time(
    shape: TransformerShape, layout: ParallelLayout, recipe: OptimizerSpec, machines: ClusterSpec
) -> StepTime:
    """Of a layout on these machines."""
    spec = GPU_SPECS.get(machines.gpu_type)
    peak = (spec.tflops if spec and spec.tflops else _NOMINAL_TFLOPS) * 1e12 * machines.card_ratio
    speed = peak * published_mfu(machines.gpu_type)
    if recipe.activations == 4:
        speed /= 2  # TF32 has half the peak of 16-bit formats
    tokens = layout.global_batch * shape.sequence
    gpu_work = operations_per_token(shape) * tokens / layout.gpus
    if recipe.adapters:
        gpu_work *= 2 / 3  # no gradients of the frozen weights
    ideal = gpu_work / speed
    pass_tokens = local_tokens(shape, layout)
    busy = ideal * (_WORK[layout.checkpointing] * layout.checkpoint_ratio + 1 - layout.checkpoint_ratio)
    busy /= _FP8_SPEEDUP if recipe.fp8 else 1.0
    busy *= 1 + _TOKENS_OF_OVERHEAD / pass_tokens
    bubble = 1 + (layout.pipeline - 1) / layout.accumulation
    link, network = _bandwidths(machines)
    exposed = layout.accumulation * _split_seconds(shape, layout, recipe, pass_tokens, link, network, machines)
    hidden = _data_seconds(shape, layout, recipe, link, network, machines)
    seconds = max((busy + exposed) * bubble, hidden) + 0.1 * min(busy, hidden) + _bus_seconds(shape, layout, recipe)
    return StepTime(seconds, ideal, tokens)


def _bandwidths(machines: ClusterSpec) -> tuple[float, float]:
    """Bytes per second of one GPU to others of its node, and between nodes."""
    spec = GPU_SPECS.get(machines.gpu_type)
    link = (spec.link_gb_per_second if spec else 32.0) * 1e9
    gbits = machines.network_gbits or (spec.network_gbits if spec else 12.5)
    return link, gbits * 1e9 / 8


def _split_seconds(
    shape: TransformerShape, layout: ParallelLayout, recipe: OptimizerSpec, tokens: float, link: float, network: float,
    machines: ClusterSpec,
) -> float:  # fmt: skip
    """Tensor and expert parallelism, and context parallelism's keys and values, of one pass through a GPU's layers."""
    layers = ceil(shape.layers / layout.pipeline)
    values = recipe.activations * tokens
    tensor_bytes = 4 * 2 * (1 - 1 / layout.tensor) * values * shape.hidden
    expert_bytes = (
        4 * (1 - 1 / layout.expert) * values * shape.hidden * shape.experts_used if shape.experts > 1 else 0.0
    )
    context_bytes = 4 * (layout.context - 1) * values * shape.key_value_width / layout.tensor
    seconds = tensor_bytes / (link if layout.tensor <= machines.gpus_per_node else network)
    seconds += expert_bytes / (link if layout.tensor * layout.expert <= machines.gpus_per_node else network)
    # Rings overlap with attention's own work; half is taken to show.
    seconds += 0.5 * context_bytes / (link if layout.tensor * layout.context <= machines.gpus_per_node else network)
    return layers * seconds


def _data_seconds(
    shape: TransformerShape, layout: ParallelLayout, recipe: OptimizerSpec, link: float, network: float,
    machines: ClusterSpec,
) -> float:  # fmt: skip
    """Gradients and, in ZeRO-3, weights between data-parallel GPUs, of a step."""
    over = layout.data * layout.context
    if over == 1:
        return 0.0
    bytes_ = recipe.activations * shape.parameters / (layout.tensor * layout.pipeline)
    trained = 0.0 if recipe.adapters else 1.0
    if layout.zero >= 3:
        within_node = layout.shards * layout.tensor <= machines.gpus_per_node
        gathered = layout.accumulation * (2 + trained) * bytes_ / (link if within_node else network)
        between = 2 * trained * bytes_ / layout.shards / network if layout.replicas > 1 else 0.0
        return gathered + between
    within_node = over * layout.tensor <= machines.gpus_per_node
    return 2 * trained * bytes_ / (link if within_node else network)


def _bus_seconds(shape: TransformerShape, layout: ParallelLayout, recipe: OptimizerSpec) -> float:
    if layout.offload == "none":
        return 0.0
    parameters = shape.parameters / layout.tensor / layout.pipeline / (layout.shards if layout.zero else 1)
    passes = 1 if layout.offload == "optimizer" else 1 + 2 * layout.accumulation
    # The optimizer's step on the host moves its states through memory about as slowly as the bus.
    return (2 * recipe.activations * passes + recipe.optimizer) * parameters / _BUS_BYTES_PER_SECOND
