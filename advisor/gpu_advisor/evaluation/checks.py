"""The checklist: per GPU, node, pool and fleet. Met, missed (by how much) or unknown (why)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.check_bands import NODE_CHECKS, TargetBand, mean_band, memory_band, utilization_band
from gpu_advisor.evaluation.cost_check import check_cost
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.missing import explain_missing
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.recommendation import FLEET, Abstention, Check, CheckStatus, Evidence, Reason, Scope
from gpu_advisor.evaluation.serving.unmapped import unread_servers
from gpu_advisor.evaluation.signals import (
    JOB_PEAK_MEMORY,
    MEMORY_TOTAL,
    MEMORY_USED,
    UTILIZATION,
    UTILIZATION_COVERAGE,
    Signal,
)
from gpu_advisor.evaluation.unknown_checks import explain_no_gpus, explain_unknown, explain_unknown_gpus, unknown_check
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.promql.expressions import Ratio
from gpu_advisor.settings import Settings

#: Floating-point tolerance at the edges of a band.
ROUNDING = 1e-9

#: From this share on, a framework may have preallocated all memory.
PREALLOCATED_MEMORY_RATIO = 0.95


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
            yield unknown_check(item, title, FLEET, absent)
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
            yield unknown_check(item, title, FLEET, why)


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
            yield unknown_check(
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
        why = explain_unknown_gpus(facts, signal, unknown)
        message = why.message if not known and len(gpus) == 1 else f"{with_enough}: {why.message}"
        return unknown_check(item, title, scope, replace(why, scope=scope, message=message))
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
        return unknown_check(item, title, scope, explain_unknown(facts, signal, gpu, scope))
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
                yield unknown_check(
                    item.name, item.title, node.scope, explain_missing(facts, item.signals[0][0], node.scope)
                )
            elif item.pick == "first":
                yield judged[0]
            else:
                yield max(judged, key=lambda check: check.value or 0.0)


def _is_measured(value: float) -> bool:
    """node_exporter reports -1 Mbit/s for a link of unknown speed: a share of that is not a measurement."""
    return value >= -ROUNDING


def _judge(item: str, title: str, scope: Scope, value: float, band: TargetBand, evidence: Sequence[Evidence]) -> Check:
    if value < band.low - ROUNDING:
        status, severity, missed_by = CheckStatus.MISSED, band.below, value - band.low
    elif value > band.high + ROUNDING:
        status, severity, missed_by = CheckStatus.MISSED, "warning", value - band.high
    else:
        return Check(item, title, scope, CheckStatus.MET, "info", value, band.low, band.high, evidence=evidence)
    return Check(item, title, scope, status, severity, value, band.low, band.high, missed_by, evidence=evidence)
