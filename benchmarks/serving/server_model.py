"""What a step of an inference server costs: hardware, model and settings.

A step's time is a fixed overhead, plus the greater of reading the weights and computing its tokens, plus reading the
KV cache of the sequences that decode: the roofline of a transformer's forward pass.
Source: https://arxiv.org/abs/2211.05102, section 2 (costs of inference: weights, KV cache, FLOPs).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hardware:
    """One GPU: dense BF16 FLOP/s, memory bandwidth (bytes/s) and memory (bytes), of data sheets."""

    name: str
    flops: float
    bandwidth: float
    memory: float


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder: parameters, bytes per parameter, and KV cache bytes per token."""

    name: str
    parameters: float
    kv_bytes_per_token: float
    bytes_per_parameter: float = 2.0

    @property
    def weights_bytes(self) -> float:
        return self.parameters * self.bytes_per_parameter


#: https://www.nvidia.com/en-us/data-center/a100/ (and h100, l4, l40s): dense tensor FLOP/s, GB/s, GB.
GPUS = (
    Hardware("A100-80GB", 312e12, 2.0e12, 80e9),
    Hardware("H100-80GB", 989e12, 3.35e12, 80e9),
    Hardware("L40S", 362e12, 0.864e12, 48e9),
    Hardware("L4", 121e12, 0.3e12, 24e9),
)

#: KV bytes: 2 (key and value) x layers x KV heads x head size x 2 bytes, by each model's published config.
MODELS = (
    Model("llama-3.1-8b", 8.03e9, 2 * 32 * 8 * 128 * 2),
    Model("qwen2.5-14b", 14.8e9, 2 * 48 * 8 * 128 * 2),
    Model("llama-2-13b", 13.0e9, 2 * 40 * 40 * 128 * 2),
    Model("llama-3.2-3b", 3.21e9, 2 * 28 * 8 * 128 * 2),
)

#: What kernels reach of the data sheet, and the scheduler's time for a step (seconds).
FLOPS_EFFICIENCY, BANDWIDTH_EFFICIENCY, STEP_OVERHEAD_SECONDS = 0.55, 0.8, 0.003


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's settings, under vLLM's names. `kv_tokens` is the size of its KV cache.

    `skip_ahead`: a request that fits may overtake one that does not, and a short prompt a long one. `prefill_speedup`
    and `decode_speedup` are 1 for the real hardware; a cause is found by relaxing one thing.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    chunked_prefill: bool = True
    prefix_cache: bool = False
    skip_ahead: bool = False
    prefill_speedup: float = 1.0
    decode_speedup: float = 1.0


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a step's parts."""

    overhead: float
    weights: float
    per_prefill_token: float
    per_decode_token: float
    per_kv_token: float

    def step(self, prefill_tokens: float, sequences: float, kv_tokens: float) -> float:
        """The time of a step (seconds) that computes these tokens and reads this much KV cache."""
        compute = self.per_prefill_token * prefill_tokens + self.per_decode_token * sequences
        return self.overhead + max(self.weights, compute) + self.per_kv_token * kv_tokens


def step_cost(hardware: Hardware, model: Model, settings: Settings, tensor_parallel: int = 1) -> StepCost:
    """The cost of steps on `tensor_parallel` GPUs, of which each further one adds 85 % of one."""
    gpus = 1 + 0.85 * (tensor_parallel - 1)
    bandwidth = hardware.bandwidth * BANDWIDTH_EFFICIENCY * gpus * settings.decode_speedup
    token = 2 * model.parameters / (hardware.flops * FLOPS_EFFICIENCY * gpus)
    return StepCost(
        overhead=STEP_OVERHEAD_SECONDS,
        weights=model.weights_bytes / bandwidth,
        per_prefill_token=token / settings.prefill_speedup,
        per_decode_token=token / settings.decode_speedup,
        per_kv_token=model.kv_bytes_per_token / bandwidth,
    )


def kv_tokens_of(hardware: Hardware, model: Model, gpu_memory_utilization: float, tensor_parallel: int = 1) -> int:
    """The KV cache (tokens) that fits beside the weights and 2 GB of activations a GPU; 0 if the weights do not."""
    room = tensor_parallel * (hardware.memory * gpu_memory_utilization - 2e9) - model.weights_bytes
    return max(0, int(room / model.kv_bytes_per_token))
