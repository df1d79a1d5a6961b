"""Pools of GPUs, and their demand signals."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gpu_advisor.settings.field_types import Regex, StrictModel
from gpu_advisor.settings.resources import GpuLimits
from gpu_advisor.settings.slo import SloSettings

PoolKind = Literal["serving", "training", "undecided"]

#: What a demand signal counts: all work, or only work that waits, besides the work in service.
DemandKind = Literal["total", "waiting"]


class _DemandPreset(StrictModel):
    query: str
    counts: DemandKind
    source: str


#: Demand signals of known servers and schedulers, over all of their series in the source: a pool that shares its source
#: with others needs its own `query`, restricted to its own labels.
DEMAND_PRESETS: dict[str, _DemandPreset] = {
    "vllm": _DemandPreset(
        query="sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)",
        counts="total",
        source="https://docs.vllm.ai/en/latest/usage/metrics.html",
    ),
    "triton": _DemandPreset(
        query="sum(nv_inference_pending_request_count)",
        counts="waiting",
        source="https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html",
    ),
    "kueue": _DemandPreset(
        query='sum(kueue_pending_workloads{status="active"})',
        counts="waiting",
        source="https://kueue.sigs.k8s.io/docs/reference/metrics/",
    ),
    "slurm": _DemandPreset(
        query='sum(gpu_queue_eligible_jobs{scheduler="slurm"})',
        counts="waiting",
        source="https://slurm.schedmd.com/job_reason_codes.html",
    ),
}

#: All pending jobs of a cluster, also those without a GPU, held, or waiting for another job: from slurmctld (26.05) and
#: prometheus-slurm-exporter.
_ALL_PENDING_JOBS = re.compile(r"slurm_(?:(?:partition|user|account)_)?(?:jobs|queue)_pending")
_OPERATORS = frozenset({"and", "or", "unless", "offset", "bool"})


def _counts_all_pending_jobs(query: str) -> bool:
    """Whether a query has no other metric than counts of all pending jobs."""
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", query)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    names = {name for name in re.findall(r"[a-zA-Z_:][\w:]*(?!\s*\()\b(?!\s*\()", text) if name not in _OPERATORS}
    return bool(names) and all(map(_ALL_PENDING_JOBS.fullmatch, names))


def _require_text(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("empty: write PromQL that gives one number, or omit it")
    return value


class DemandSettings(StrictModel):
    """Demand signal: how much work there is. Utilization cannot show it beyond 100 %."""

    preset: Literal["vllm", "triton", "kueue", "slurm"] | None = Field(
        None, description="the query of a known server or scheduler"
    )
    query: Annotated[str, BeforeValidator(_require_text)] | None = Field(
        None, description="PromQL that gives one number: work in units of per_replica"
    )
    counts: DemandKind | None = Field(
        None, description="total: all work; waiting: only work that waits, besides the work in service"
    )
    per_replica: float = Field(gt=0, description="how much of it one replica handles well, e.g. 16 concurrent requests")

    @model_validator(mode="after")
    def _one_query(self) -> DemandSettings:
        if (self.preset is None) == (self.query is None):
            raise ValueError("give either a preset (vllm, triton, kueue, slurm) or a query in PromQL")
        if self.query and _counts_all_pending_jobs(self.query):
            raise ValueError(
                "the query counts all pending jobs, also those without GPUs, held, or waiting for another job: use "
                "preset: slurm"
            )
        return self

    @property
    def promql(self) -> str:
        return self.query or DEMAND_PRESETS[str(self.preset)].query

    @property
    def kind(self) -> DemandKind:
        return self.counts or (DEMAND_PRESETS[self.preset].counts if self.preset else "total")


class PoolSettings(StrictModel):
    """GPUs that belong together. Each GPU belongs to the first pool whose selectors all match it."""

    name: str = Field(min_length=1)
    kind: PoolKind = Field(
        "undecided",
        description="serving pools are scaled; others are only checked for idle GPUs; undecided: unspecified, inferred "
        "for diagnoses as far as jobs, servers and owners show it",
    )
    match: dict[Literal["uuid", "name", "node", "vendor"], Regex] = Field(
        default_factory=dict,
        description="regular expressions, each matching the whole value of a GPU property. Without any, a pool with "
        "slo.ttft_p95 or slo.itl_p95 has the inference servers of the model it is named after, or, named after none, "
        "all that no other pool has; any other pool has all GPUs",
    )
    gpus_per_replica: int = Field(1, ge=1, description="GPUs per replica; default: tensor_parallel x pipeline_parallel")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share each layer")
    pipeline_parallel: int = Field(1, ge=1, description="pipeline stages, each of tensor_parallel GPUs")
    start_delay_seconds: int = Field(120, ge=0, le=86400, description="seconds until a new replica is ready")
    demand: DemandSettings | None = Field(None, description="demand signal, in PromQL")
    slo: SloSettings | None = Field(None, description="service level objective; the advisor tunes the headroom to it")
    headroom_deviations: float | None = Field(
        None, ge=0, le=20, description="overrides evaluation.headroom_deviations; not with slo.unserved or slo.windows"
    )
    gpu: GpuLimits | None = Field(None, description="overrides resources.gpu")

    @model_validator(mode="before")
    @classmethod
    def _default_gpus_per_replica(cls, values: Any) -> Any:
        """Without gpus_per_replica, a replica is one copy of the model."""
        if not isinstance(values, dict) or "gpus_per_replica" in values:
            return values
        sizes = [values.get(key, 1) for key in ("tensor_parallel", "pipeline_parallel")]
        whole = all(type(size) is int and size >= 1 for size in sizes)  # anything else is reported by its own field
        return {**values, "gpus_per_replica": sizes[0] * sizes[1]} if whole else values

    @property
    def unserved_ratio(self) -> float | None:
        """The objective of `slo.unserved` as a ratio (0..1): the headroom is tuned to it. None without one."""
        return self.slo.unserved_ratio if self.slo else None

    @property
    def states_windows(self) -> bool:
        return self.slo is not None and self.slo.windows is not None

    @property
    def joins_servers(self) -> bool:
        """Whether it has the GPUs of inference servers, not those of selectors: objectives of language models say
        nothing on other GPUs."""
        return not self.match and self.slo is not None and self.slo.is_of_requests

    @model_validator(mode="after")
    def _check_one_headroom(self) -> PoolSettings:
        tuned = self.unserved_ratio is not None
        name = "slo.unserved" if tuned else "slo.windows"
        if (tuned or self.states_windows) and self.headroom_deviations is not None:
            raise ValueError(
                f"{name} and headroom_deviations contradict each other: the SLO tunes the headroom; remove one"
            )
        if tuned and self.kind != "serving":
            raise ValueError(f"slo.unserved is for serving pools, not {self.kind}: set kind: serving, or remove it")
        return self

    @model_validator(mode="after")
    def _check_whole_replicas(self) -> PoolSettings:
        model_parallel = self.tensor_parallel * self.pipeline_parallel
        if self.gpus_per_replica % model_parallel:
            raise ValueError(
                f"gpus_per_replica ({self.gpus_per_replica}) is not a multiple of "
                f"tensor_parallel x pipeline_parallel ({model_parallel}): make it one, or omit it"
            )
        if self.gpu and self.gpu.max is not None and self.gpu.max < self.gpus_per_replica:
            raise ValueError(f"gpu.max ({self.gpu.max}) is below gpus_per_replica ({self.gpus_per_replica}): raise it")
        return self
