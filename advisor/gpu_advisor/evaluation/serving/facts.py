"""What one evaluation knows about inference servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpu_advisor.promql.expressions import Expression, Labels


@dataclass(frozen=True, slots=True, order=True)
class GroupKey:
    """What the replicas of a group have in common. Fields that are unknown are empty. `job` is that of servers that do
    not name their model: then it is what belongs together."""

    server: str
    model: str
    cluster: str = ""
    namespace: str = ""
    job: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ServingReplica:
    """One engine of one server. Fields that are unknown or do not apply are empty.

    `server` is the mapping's name. `values` are by signal; a signal without a value is absent. `before` are those of
    the window before, empty if it did not report then. `started` is when its process began (Unix time). `gpus` are the
    uuids of its GPUs, empty if unknown. `series_labels` select its series, under the names that they are stored with.
    `role` is its part of disaggregated serving, as far as its metrics name it: `prefill`, `decode`, or another word.
    """

    server: str
    job: str
    instance: str
    model: str = ""
    engine: str = ""
    cluster: str = ""
    namespace: str = ""
    pod: str = ""
    node: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False, compare=False)
    started: float | None = field(default=None, compare=False)
    gpus: tuple[str, ...] = field(default=(), compare=False)
    before: Mapping[str, float] = field(default_factory=dict, hash=False, compare=False)
    series_labels: Labels = field(default=(), compare=False)
    role: str = field(default="", compare=False)

    @property
    def group(self) -> GroupKey:
        """The group that it belongs to."""
        return GroupKey(self.server, self.model, self.cluster, self.namespace, "" if self.model else self.job)

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.pod or self.instance

    def value(self, signal: str) -> float | None:
        return self.values.get(signal)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A server at one load: requests running a replica, tokens generated per second a replica, seconds between two
    tokens, and prompt tokens computed beside each token of a sequence."""

    concurrency: float
    tokens_per_second: float
    itl_seconds: float
    prompt_tokens_per_step: float = 0.0


@dataclass(frozen=True, slots=True)
class DemandSample:
    """All replicas of a model in the step that ends at `at` (Unix time): how many report, the tokens that they generate
    per second, and the requests that wait; of all requests in the window that ends then, the 95th percentiles of their
    latencies (seconds), None if unknown."""

    at: float
    replicas: float
    tokens_per_second: float
    waiting: float
    ttft_p95: float | None = None
    itl_p95: float | None = None

    def misses(self, ttft: float | None, itl: float | None) -> bool | None:
        """Whether the window misses one of these objectives (seconds); None if no latency with one is known."""
        known = [
            latency > objective
            for latency, objective in ((self.ttft_p95, ttft), (self.itl_p95, itl))
            if latency is not None and objective is not None
        ]
        return any(known) if known else None


@dataclass(frozen=True, slots=True)
class ServingFacts:
    """`expressions` are by server and signal, over all of its series; `histories`, of the curve's points, and `demand`
    are by group.

    `unmapped` are servers that no mapping reads, and the metric that shows each. `quiet` are the addresses of pages
    that count requests for completions and have no metric of an engine, `routers` those of routers that show gauges of
    servers that nobody scrapes, and `silent` those of servers, by title, that have no requests running or waiting.
    `counted_at_end` are servers that count a request's tokens when it ends. `flags` and `helm_values` are by server and
    setting.
    """

    replicas: tuple[ServingReplica, ...] = ()
    expressions: Mapping[str, Mapping[str, Expression]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    helm_values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    histories: Mapping[GroupKey, tuple[CurvePoint, ...]] = field(default_factory=dict)
    demand: Mapping[GroupKey, tuple[DemandSample, ...]] = field(default_factory=dict)
    window_seconds: int = 300
    unmapped: Mapping[str, str] = field(default_factory=dict)
    quiet: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    silent: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted_at_end: frozenset[str] = frozenset()
