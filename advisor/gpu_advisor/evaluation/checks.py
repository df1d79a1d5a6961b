"""The checklist: per GPU, node, pool and fleet. Met, missed (by how much) or unknown (why)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gpu_advisor.cost.list_prices import CURRENCY as LIST_PRICE_CURRENCY
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.lost import is_lost
from gpu_advisor.evaluation.money import Money
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.prices import Prices, billable
from gpu_advisor.evaluation.recommendation import Abstention, Check, CheckStatus, Evidence, Reason, Scope, Severity
from gpu_advisor.evaluation.serving.unmapped import unread_servers
from gpu_advisor.evaluation.signals import (
    IDLE_UTILIZATION,
    JOB_PEAK_MEMORY,
    MEMORY_TOTAL,
    MEMORY_USED,
    NODE_CPU,
    NODE_DISK_BUSY,
    NODE_IO_PRESSURE,
    NODE_MEMORY,
    NODE_NETWORK_RECEIVE,
    NODE_NETWORK_TRANSMIT,
    UTILIZATION,
    UTILIZATION_COVERAGE,
    Signal,
)
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.promql.expressions import Ratio
from gpu_advisor.settings import CpuLimits, MemoryLimits, PoolSettings, Settings

#: I/O pressure above a tenth of the time is a bottleneck; disks and links saturate before 100 %.
IO_PRESSURE_LIMIT = 0.10
DISK_BUSY_LIMIT = 0.90
NETWORK_LIMIT = 0.80
NODE_MEMORY_LIMIT = 0.95

#: Floating-point tolerance at the edges of a band.
ROUNDING = 1e-9

#: From this share on, a framework may have preallocated all memory.
PREALLOCATED_MEMORY_RATIO = 0.95

FLEET = Scope("fleet", "fleet")


@dataclass(frozen=True, slots=True)
class TargetBand:
    """The target range of a value, edges included, with the severity of a value below it; above, it is a warning."""

    low: float
    high: float
    below: Severity = "warning"

    def edge(self, value: float) -> float:
        """The edge that the value misses, or is nearest to. Edges at 0 and 1 cannot be missed."""
        if not 0.0 < self.low < 1.0:
            return self.high
        if not 0.0 < self.high < 1.0:
            return self.low
        return self.low if value - self.low <= self.high - value else self.high


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """A check of the first of its signals that has a value, or of the worst of all."""

    name: str
    title: str
    signals: tuple[tuple[Signal, Callable[[Settings], TargetBand]], ...]
    pick: Literal["first", "worst"] = "first"


def _band_around(limits: MemoryLimits | CpuLimits, below: Severity = "warning") -> TargetBand:
    """The target, and the tolerance to either side."""
    low, high = limits.target_usage - limits.tolerance, limits.target_usage + limits.tolerance
    return TargetBand(max(0.0, low / 100), min(1.0, high / 100), below)


def _cpu_band(settings: Settings) -> TargetBand:
    return _band_around(settings.resources.cpu, "info")


def _upper_limit(limit: float) -> Callable[[Settings], TargetBand]:
    return lambda _: TargetBand(0.0, limit)


NODE_CHECKS: tuple[NodeCheck, ...] = (
    NodeCheck("cpu", "CPU utilization", ((NODE_CPU, _cpu_band),)),
    NodeCheck("memory", "node memory", ((NODE_MEMORY, _upper_limit(NODE_MEMORY_LIMIT)),)),
    NodeCheck(
        "storage",
        "storage I/O",
        ((NODE_IO_PRESSURE, _upper_limit(IO_PRESSURE_LIMIT)), (NODE_DISK_BUSY, _upper_limit(DISK_BUSY_LIMIT))),
    ),
    NodeCheck(
        "network",
        "network bandwidth",
        ((NODE_NETWORK_RECEIVE, _upper_limit(NETWORK_LIMIT)), (NODE_NETWORK_TRANSMIT, _upper_limit(NETWORK_LIMIT))),
        "worst",
    ),
)


def utilization_band(settings: Settings, pool: PoolSettings) -> TargetBand:
    """Training is checked against the target utilization, serving against its two thresholds."""
    limits = settings.gpu_limits(pool)
    if pool.kind == "serving":
        return TargetBand(limits.scale_down_threshold / 100, limits.scale_up_threshold / 100)
    return TargetBand(limits.target_utilization / 100, 1.0)


def mean_band(settings: Settings, pools: Sequence[Pool]) -> TargetBand:
    """The band of the mean over GPUs of several pools, each GPU weighted with its pool's band."""
    bands = [(utilization_band(settings, pool.settings), len(pool.gpus)) for pool in pools if pool.gpus]
    count = sum(gpus for _, gpus in bands)
    return TargetBand(sum(b.low * gpus for b, gpus in bands) / count, sum(b.high * gpus for b, gpus in bands) / count)


def memory_band(settings: Settings) -> TargetBand:
    return _band_around(settings.resources.memory)


def run_checklist(facts: Facts, settings: Settings, pools: Sequence[Pool], prices: Prices) -> tuple[Check, ...]:
    """The whole checklist: fleet first, then pools, nodes and GPUs."""
    known = KnownGpus.of(facts, [gpu for pool in pools for gpu in pool.gpus])
    return (
        *_fleet(facts, settings, pools, prices, known),
        *_groups(facts, settings, pools, known),
        *_nodes(facts, settings),
        *_gpus(facts, settings, pools, known),
    )


@dataclass(frozen=True, slots=True)
class KnownGpus:
    """The uuids of GPUs with enough data on utilization, and on the memory that they need."""

    utilization: frozenset[str]
    memory_need: frozenset[str]

    @classmethod
    def of(cls, facts: Facts, gpus: Sequence[Gpu]) -> KnownGpus:
        return cls(
            _with_coverage(facts).intersection(gpu.uuid for gpu in gpus),
            _with_memory_need(facts).intersection(gpu.uuid for gpu in gpus),
        )


def _fleet(
    facts: Facts, settings: Settings, pools: Sequence[Pool], prices: Prices, known: KnownGpus
) -> Iterator[Check]:
    if facts.gpus:
        yield from _group(facts, settings, pools, FLEET, known)
    else:
        absent = explain_no_gpus(facts)
        for item, title in (("gpu_utilization", "GPU utilization"), ("gpu_memory", "GPU memory")):
            yield _unknown_check(item, title, FLEET, absent)
    yield check_cost(facts, settings, prices)
    if facts.exporters_of_duplicates:
        yield _check_duplicate_exporters(facts)
    for item, title, messages in (
        ("unmapped_exporters", "exporters without a mapping", facts.unmapped_exporters),
        ("unread_servers", "inference servers without metrics", tuple(unread_servers(facts))),
        ("host_metrics", "host metrics of each GPU", (facts.unmatched_hosts,) if facts.unmatched_hosts else ()),
    ):
        if messages:
            why = Abstention(Reason.UNSUPPORTED, item, FLEET, "; ".join(messages))
            yield _unknown_check(item, title, FLEET, why)


def _check_duplicate_exporters(facts: Facts) -> Check:
    """Present only if missed. Information only: each GPU is counted once, and recommendations continue."""
    counts = Counter(facts.exporters_of_duplicates.values())
    message = "; ".join(
        f"duplicate series of {counts[names]} GPUs from {' and '.join(names)}; using {names[0]}, disable the other"
        for names in sorted(counts)
    )
    share = len(facts.exporters_of_duplicates) / len(facts.gpus) if facts.gpus else 1.0
    title = "one exporter per GPU"
    return Check("exporters", title, FLEET, CheckStatus.MISSED, "info", share, 0.0, 0.0, share, message=message)


def _groups(facts: Facts, settings: Settings, pools: Sequence[Pool], known: KnownGpus) -> Iterator[Check]:
    for pool in pools:
        if pool.gpus:
            yield from _group(facts, settings, [pool], pool.scope, known)
        else:
            name = pool.settings.name
            message = f"no GPU matches pool {name}: check its selectors"
            if pool.settings.joins_servers:
                message = (
                    f"no GPU is known to serve pool {name}: scrape its inference servers, and the owners of GPUs, or "
                    f"give the pool selectors (match)"
                )
            yield _unknown_check(
                "gpu_utilization",
                "GPU utilization",
                pool.scope,
                Abstention(Reason.NO_DATA, "pool", pool.scope, message),
            )
    nodes: dict[str, dict[str, list[Gpu]]] = {}
    for pool in pools:
        for gpu in pool.gpus:
            nodes.setdefault(gpu.node, {}).setdefault(pool.settings.name, []).append(gpu)
    settings_of = {pool.settings.name: pool.settings for pool in pools}
    for node, parts in sorted(nodes.items()):
        on_node = [Pool(settings_of[name], tuple(gpus)) for name, gpus in parts.items()]
        yield from _group(facts, settings, on_node, Scope("node", node), known)


def _group(facts: Facts, settings: Settings, pools: Sequence[Pool], scope: Scope, known: KnownGpus) -> Iterator[Check]:
    gpus = [gpu for pool in pools for gpu in pool.gpus]
    measured = tuple(gpu.uuid for gpu in gpus if gpu.uuid in known.utilization)
    band = mean_band(settings, pools)
    yield _mean(facts, "gpu_utilization", "GPU utilization", UTILIZATION, measured, gpus, scope, band)
    with_need = tuple(gpu.uuid for gpu in gpus if gpu.uuid in known.memory_need)
    yield _mean(facts, "gpu_memory", "GPU memory", MEMORY_USED, with_need, gpus, scope, memory_band(settings))


def _mean(
    facts: Facts,
    item: str,
    title: str,
    signal: Signal,
    known: tuple[str, ...],
    gpus: Sequence[Gpu],
    scope: Scope,
    band: TargetBand,
) -> Check:
    """The mean over GPUs with data, unless too many have none: those may be the busy ones, or the idle ones."""
    share = len(known) / len(gpus)
    with_enough = f"{len(known)} of {len(gpus)} GPUs {'has' if len(known) == 1 else 'have'} enough data"
    if share < facts.evaluation.min_coverage_ratio:
        with_data = set(known)
        unknown = [gpu for gpu in gpus if gpu.uuid not in with_data]
        why = _explain_unknown_gpus(facts, signal, unknown)
        message = why.message if not known and len(gpus) == 1 else f"{with_enough}: {why.message}"
        return _unknown_check(item, title, scope, replace(why, scope=scope, message=message))
    value = facts.mean(signal, known)
    if value is None:
        raise ValueError(f"{item} of {scope} has no value to check")
    found = _judge(
        item, title, scope, value, band, facts.evidence_on_demand(signal, known, band.edge(value), coverage=share)
    )
    return found if share == 1 else found._replace(message=with_enough)


def _gpus(facts: Facts, settings: Settings, pools: Sequence[Pool], known: KnownGpus) -> Iterator[Check]:
    for pool in pools:
        band, memory = utilization_band(settings, pool.settings), memory_band(settings)
        for gpu in pool.gpus:
            scope, has_coverage, is_need_known = gpu.scope, gpu.uuid in known.utilization, gpu.uuid in known.memory_need
            yield _gpu(facts, "gpu_utilization", "GPU utilization", UTILIZATION, gpu, scope, band, has_coverage)
            check = _gpu_memory(facts, gpu, scope, memory, is_need_known)
            yield _of_unified_memory(check, facts.value(MEMORY_TOTAL, gpu.uuid)) if gpu.unified else check


def _gpu(
    facts: Facts, item: str, title: str, signal: Signal, gpu: Gpu, scope: Scope, band: TargetBand, known: bool
) -> Check:
    value = facts.value(signal, gpu.uuid)
    if not known or value is None:
        return _unknown_check(item, title, scope, _explain_unknown(facts, signal, gpu, scope))
    coverage = facts.value(UTILIZATION_COVERAGE, gpu.uuid) if signal is UTILIZATION else None
    evidence = facts.evidence_on_demand(signal, (gpu.uuid,), band.edge(value), coverage=coverage)
    return _judge(item, title, scope, value, band, evidence)


def _gpu_memory(facts: Facts, gpu: Gpu, scope: Scope, band: TargetBand, is_need_known: bool) -> Check:
    """By the job's own report if there is one: memory preallocated by a framework is not memory needed."""
    needed, capacity = facts.value(JOB_PEAK_MEMORY, gpu.uuid), facts.value(MEMORY_TOTAL, gpu.uuid)
    if needed is None or not capacity:
        return _gpu(facts, "gpu_memory", "GPU memory", MEMORY_USED, gpu, scope, band, is_need_known)
    peak, total = (facts.evidence(signal, (gpu.uuid,)) for signal in (JOB_PEAK_MEMORY, MEMORY_TOTAL))
    both = Ratio(peak.expression, total.expression) if peak.expression and total.expression else None
    value = needed / capacity
    share = replace(peak, unit="ratio", value=value, expression=both, threshold=band.edge(value))
    return _judge("gpu_memory", "GPU memory", scope, value, band, (share,))


def _of_unified_memory(check: Check, total: float | None) -> Check:
    """The check of a GPU whose memory is also the CPU's: the total is that of both, and so is the use."""
    size = "" if total is None else f" of {total / GIB:.0f} GiB"
    shared = f"unified memory{size}: processes on the CPU use it as well, and count"
    return check._replace(title="unified memory", message="; ".join(filter(None, (check.message, shared))))


def _with_memory_need(facts: Facts) -> frozenset[str]:
    """The GPUs whose memory used is the memory needed: if all of it is used, a framework may have preallocated it."""
    coverages, reported = facts.column(UTILIZATION_COVERAGE), facts.column(JOB_PEAK_MEMORY)
    least = facts.evaluation.min_coverage_ratio
    return frozenset(
        uuid
        for uuid, used in facts.column(MEMORY_USED).items()
        if coverages.get(uuid, 1.0) >= least and (used < PREALLOCATED_MEMORY_RATIO or uuid in reported)
    )


def _with_coverage(facts: Facts) -> frozenset[str]:
    """The GPUs whose window has enough data: not where the scrape interval is unknown, as of a new target."""
    known, least = facts.column(UTILIZATION), facts.evaluation.min_coverage_ratio
    coverages = facts.column(UTILIZATION_COVERAGE)
    return frozenset(uuid for uuid, coverage in coverages.items() if coverage >= least and uuid in known)


def _explain_unknown_gpus(facts: Facts, signal: Signal, gpus: Sequence[Gpu]) -> Abstention:
    """The reason of the first, with the number of those that share it."""
    first = gpus[0]
    count = 1 if first.up else sum(_outage(facts, gpu) == _outage(facts, first) for gpu in gpus)
    return _explain_unknown(facts, signal, first, first.scope, f"{count} GPUs" if count > 1 else "")


def _outage(facts: Facts, gpu: Gpu) -> tuple[bool | None, str | None, str, bool]:
    """What the explanation of a GPU that is down or does not report follows from."""
    return gpu.up, facts.down_reasons.get(gpu.uuid), gpu.exporter, gpu.uuid in facts.unresolved


def _explain_unknown(facts: Facts, signal: Signal, gpu: Gpu, scope: Scope, several: str = "") -> Abstention:
    coverage = facts.value(UTILIZATION_COVERAGE, gpu.uuid)
    if gpu.up and coverage is None and facts.value(UTILIZATION, gpu.uuid) is not None and signal is UTILIZATION:
        return Abstention(Reason.INSUFFICIENT_HISTORY, signal.name, scope, facts.explain_unknown_interval())
    if gpu.up and signal is UTILIZATION and _has_few_scrapes(facts, gpu):
        message = (
            f"fewer than two scrapes in the window of {facts.evaluation.window_seconds} s: scrape more often, or raise "
            "evaluation.window_seconds"
        )
        return Abstention(Reason.INSUFFICIENT_HISTORY, signal.name, scope, message)
    if gpu.up and coverage is not None and coverage < facts.evaluation.min_coverage_ratio:
        message = (
            f"{coverage:.0%} of the last {facts.evaluation.window_seconds} s has data, "
            f"{facts.evaluation.min_coverage_ratio:.0%} is needed: wait"
        )
        return Abstention(Reason.INSUFFICIENT_HISTORY, signal.name, scope, message)
    used = facts.value(MEMORY_USED, gpu.uuid) if signal is MEMORY_USED else None
    if used is not None:
        message = (
            f"{used:.0%} is allocated, perhaps preallocated by a framework: to show what it needs, a job must report "
            "training_peak_memory_bytes"
        )
        return Abstention(Reason.UNSUPPORTED, signal.name, scope, message)
    return facts.explain_missing(signal, scope, gpu, several)


def _has_few_scrapes(facts: Facts, gpu: Gpu) -> bool:
    """Whether a counter has a mean over the long window only."""
    known = (facts.value(signal, gpu.uuid) is not None for signal in (UTILIZATION, IDLE_UTILIZATION))
    return tuple(known) == (False, True)


def _nodes(facts: Facts, settings: Settings) -> Iterator[Check]:
    items = [(item, [(signal, band(settings)) for signal, band in item.signals]) for item in NODE_CHECKS]
    for node in facts.nodes:
        for item, bands in items:
            judged = [
                _judge(
                    item.name, item.title, node.scope, value, band,
                    facts.evidence_on_demand(signal, (node.name,), band.edge(value)),
                )
                for signal, band in bands
                if (value := facts.value(signal, node.name)) is not None and _is_measured(value)
            ]  # fmt: skip
            if not judged:
                yield _unknown_check(
                    item.name, item.title, node.scope, facts.explain_missing(item.signals[0][0], node.scope)
                )
            elif item.pick == "first":
                yield judged[0]
            else:
                yield max(judged, key=lambda check: check.value or 0.0)


def _is_measured(value: float) -> bool:
    """node_exporter reports -1 Mbit/s for a link of unknown speed: a share of that is not a measurement."""
    return value >= -ROUNDING


def check_cost(facts: Facts, settings: Settings, prices: Prices) -> Check:
    """Cost of all GPUs, lost ones included, against the budget.

    Unknown without a budget, without GPUs, or if GPUs have no price and the others are within the budget. A cost at
    list prices says that it is an estimate.
    """
    if not facts.gpus:
        return _unknown_check("cost", "cost", FLEET, explain_no_gpus(facts))
    budget, spent = settings.cost.budget_per_hour, fleet_cost(facts, prices)
    message = _explain_cost(facts, settings, prices, spent)
    least, most = spent.per_hour.low, spent.per_hour.high
    if budget is None or (most is None and least <= budget):
        return _unknown_check("cost", "cost", FLEET, Abstention(Reason.UNSUPPORTED, "cost", FLEET, message))
    met = least <= budget
    return Check(
        "cost", "cost", FLEET, CheckStatus.MET if met else CheckStatus.MISSED,
        "info" if met else "warning", least, None, budget, None if met else least - budget, message=message,
    )  # fmt: skip


def fleet_cost(facts: Facts, prices: Prices) -> Money:
    """What all GPUs cost per hour: at least that of those with a price."""
    return prices.cost(gpu.uuid for gpu in billable(facts.gpus))


def _explain_cost(facts: Facts, settings: Settings, prices: Prices, spent: Money) -> str:
    """Empty if all is known and set."""
    paid = billable(facts.gpus)
    unpriced = sorted({gpu.name or "GPUs of unknown model" for gpu in paid if gpu.uuid not in prices.by_gpu})
    lost = [gpu.uuid for gpu in paid if is_lost(facts, gpu)]
    parts = []
    if spent.bound is not None and (spent.estimated or unpriced or settings.cost.budget_per_hour is None):
        parts.append(str(spent))
    if lost:
        subject = "1 lost GPU costs" if len(lost) == 1 else f"{len(lost)} lost GPUs cost"
        parts.append(f"{subject} {prices.cost(lost)}")
    if unpriced:
        parts.append(f"no price for {', '.join(unpriced)}: {_price_fix(settings)}")
    elif spent.estimated:
        parts.append("set cost.gpu_price_per_hour for your own prices")
    if settings.cost.budget_per_hour is None:
        parts.append("set cost.budget_per_hour in the settings")
    return "; ".join(parts)


def _price_fix(settings: Settings) -> str:
    if settings.cost.list_prices and settings.cost.currency != LIST_PRICE_CURRENCY:
        return (
            f"list prices are in {LIST_PRICE_CURRENCY} and are not converted to {settings.cost.currency}; set "
            "cost.gpu_price_per_hour"
        )
    return "set it under cost.gpu_price_per_hour in the settings"


def explain_no_gpus(facts: Facts) -> Abstention:
    """Why the fleet has no GPUs."""
    if facts.down_targets:
        targets = ", ".join(facts.down_targets[:3])
        what = f"target {targets} is" if len(facts.down_targets) == 1 else f"targets {targets} are"
        message = f"{what} down: check that the exporter runs there"
        return Abstention(Reason.NO_DATA, "gpus", FLEET, message)
    if not facts.nodes:
        return Abstention(Reason.NO_DATA, "gpus", FLEET, "no exporter metrics found: is an exporter scraped?")
    by_state: dict[str, list[str]] = {}
    for name, found in sorted(facts.drivers.items()):
        by_state.setdefault(", ".join(sorted(found)), []).append(name)
    states = "; ".join(
        f"driver{'' if len(names) == 1 else 's'} {state}: {', '.join(names)}"
        for state, names in sorted(by_state.items())
    )
    message = "no GPU found on any node" + (f"; {states}" if states else "")
    return Abstention(Reason.UNSUPPORTED, "gpus", FLEET, message)


def _judge(item: str, title: str, scope: Scope, value: float, band: TargetBand, evidence: Sequence[Evidence]) -> Check:
    if value < band.low - ROUNDING:
        status, severity, missed_by = CheckStatus.MISSED, band.below, value - band.low
    elif value > band.high + ROUNDING:
        status, severity, missed_by = CheckStatus.MISSED, "warning", value - band.high
    else:
        return Check(item, title, scope, CheckStatus.MET, "info", value, band.low, band.high, evidence=evidence)
    return Check(item, title, scope, status, severity, value, band.low, band.high, missed_by, evidence=evidence)


def _unknown_check(item: str, title: str, scope: Scope, why: Abstention) -> Check:
    return Check(
        item, title, scope, CheckStatus.UNKNOWN, "info", None, None, None, reason=why.reason, message=why.message
    )
