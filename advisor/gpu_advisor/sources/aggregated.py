"""Canonical series made of canonical series: what is told of hosts and of models, so that no dashboard adds up GPUs.

The levels are `host` (labels `nodename` and `name`, the GPU's model: a node with two models has two series) and `model`
(`name` alone). Fleets of thousands have some hundred hosts and a few models, which a week can be read of.

Sums go with the number of GPUs that they are sums over: a GPU without a value is in neither, and is not taken for one
that does nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

INFO = "gpu:identity:info"
MEAN, SEEN = "gpu:utilization_ratio:mean30m", "gpu:utilization_coverage_ratio:mean30m"
IDLE = "gpu:idle:mean30m"
HOLDING = f"({IDLE} * on (uuid) (gpu:memory_used_ratio:last > bool 0.05))"
MEMORY_BYTES = "gpu:memory_total_bytes:last"
_WHERE = f"* on (uuid) group_left (nodename, name) {INFO}"


@dataclass(frozen=True, slots=True)
class Aggregated:
    """A series of this record, made by `expr` of the canonical series in `of`."""

    record: str
    expr: str
    of: tuple[str, ...]
    about: str


def _hosts(op: str, record: str, of: str, about: str, *needs: str) -> Aggregated:
    expr = f"{op} by (nodename, name) ({of} {_WHERE})"
    return Aggregated(f"host:{record}", expr, (*(needs or (of,)), INFO), about)


def _models(of_hosts: Aggregated) -> Aggregated:
    """The same of all hosts' GPUs of a model."""
    record = of_hosts.record.replace("host:", "model:", 1)
    return Aggregated(record, f"sum by (name) ({of_hosts.record})", (of_hosts.record,), of_hosts.about)


_COUNT = Aggregated("host:gpus:count", f"count by (nodename, name) ({INFO})", (INFO,), "GPUs")
_MEASURED = _hosts("count", "gpus_measured:count", "gpu:utilization_ratio:mean5m", "GPUs whose utilization is known")
_BUSY = _hosts("sum", "gpus_busy:mean5m", "gpu:utilization_ratio:mean5m", "sum of the utilization of these")
_POWER = _hosts("sum", "gpu_power_watts:sum", "gpu:power_watts:last", "power drawn by all GPUs")

#: Recorded at each evaluation, in this order, after what they are made of.
FINE: tuple[Aggregated, ...] = (
    _COUNT,
    _hosts("sum", "gpus_down:sum", "(gpu:up:last == bool 0)", "GPUs that do not answer", "gpu:up:last"),
    _MEASURED,
    _BUSY,
    _hosts(
        "sum", "gpu_memory_used_bytes:sum", f"(gpu:memory_used_ratio:last * {MEMORY_BYTES})", "memory held",
        "gpu:memory_used_ratio:last", MEMORY_BYTES,
    ),
    _hosts("sum", "gpu_memory_total_bytes:sum", MEMORY_BYTES, "memory of all GPUs"),
    _POWER,
    *map(_models, (_COUNT, _MEASURED, _BUSY, _POWER)),
)  # fmt: skip

_IDLE = _hosts("sum", "gpus_idle:sum30m", IDLE, "GPUs that did nothing for 30 minutes")
_HOLDING = _hosts(
    "sum", "gpus_idle_holding:sum30m", HOLDING, "those of them that hold more than 5 % of their memory", IDLE,
    "gpu:memory_used_ratio:last",
)  # fmt: skip

#: Recorded once a minute: half an hour of each GPU is read for it.
SLOW: tuple[Aggregated, ...] = (
    # What was not seen is not idle: nothing is said of a GPU that was watched for less than 90 % of the time.
    Aggregated(IDLE, f"({MEAN} < bool 0.01) and on (uuid) ({SEEN} >= 0.9)", (MEAN, SEEN),
               "1 if the GPU was busy for less than 1 % of 30 minutes, 0 if not"),
    _IDLE,
    _HOLDING,
    *map(_models, (_IDLE, _HOLDING)),
)  # fmt: skip


def rules(every: tuple[Aggregated, ...], recorded: Collection[str]) -> Iterator[dict[str, str]]:
    """The rules of those whose parts are recorded, by these names or by a rule before."""
    there = set(recorded)
    for series in every:
        if there.issuperset(series.of):
            there.add(series.record)
            yield {"record": series.record, "expr": series.expr}
