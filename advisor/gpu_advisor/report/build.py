"""The history of a period and the current evaluation -> one report, as plain data. Pure.

All renderings read this document, so their numbers agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import fsum

from gpu_advisor.documents import savings
from gpu_advisor.documents import schema as shapes
from gpu_advisor.documents import serialize as document
from gpu_advisor.documents.serialize import format_rfc3339
from gpu_advisor.evaluation.check_bands import NODE_CHECKS, TargetBand, mean_band, memory_band, utilization_band
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.lost import is_down_by_hardware
from gpu_advisor.evaluation.money import GpuPrice, Interval, price_of, total
from gpu_advisor.evaluation.policies import lost_gpu
from gpu_advisor.evaluation.pools import Pool, assign_pools
from gpu_advisor.evaluation.prices import PriceList, billable
from gpu_advisor.report import promql_queries, series, usage
from gpu_advisor.report.comparison import changes_by_owner, fleet_changes
from gpu_advisor.report.first_actions import first_actions
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.observed_time import ObservedTime
from gpu_advisor.report.projection import project_month
from gpu_advisor.report.schema import (
    Band,
    ComparisonDocument,
    GpuHours,
    GpuModelUsage,
    LostGpus,
    PeriodDocument,
    Report,
    TargetsDocument,
    UsageGroup,
)
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.state.view import View

_CPU_BAND = next(item for item in NODE_CHECKS if item.name == "cpu").signals[0][1]

#: Recommendations and outcomes in a report; /recommendations and /outcomes have all.
MAX_LISTED = 100


def build_report(
    past: FleetHistory, view: View, settings: Settings, has_ledger: bool = True, before: FleetHistory | None = None
) -> Report:
    """`has_ledger`: whether the advisor keeps a ledger; a one-shot evaluation has no outcomes. `before`: the period
    before, for comparison.
    """
    usage_by_gpu = {gpu: usage.gpu_hour_usage(past, gpu) for gpu in past.gpus}
    lost = lost_gpu_hours(view, past)
    known = (*past.gpus, *_gpus_only_lost(past, view, lost))
    pools = [pool for pool in assign_pools(known, settings.pools) if pool.gpus]
    prices = _gpu_prices(known, view, settings)
    ranked = savings.by_urgency(view.issued)
    first_page = document.recommendations(view, ranked, 1, MAX_LISTED)
    groups = list(_groups(past, usage_by_gpu, pools, settings, prices, lost))
    worth_all = savings.total_savings(view, [each for each in ranked if not each.snoozed])
    return {
        **document.header(view),
        "period": _period(past),
        "recorded": past.recorded,
        "unavailable": list(past.unavailable),
        "groups": groups,
        "models": list(_models(usage_by_gpu, prices)),
        "projection": project_month(ObservedTime.of(past), groups),
        "comparison": _comparison(past, usage_by_gpu, before, view, settings) if before else None,
        "first_actions": first_actions(view, settings.web.external_url),
        "queries": promql_queries.fleet_queries(past),
        "checks": first_page["checks"],
        "recommendations": first_page["recommendations"],
        "recommendations_total": first_page["total"],
        "savings": {"gpus": worth_all.gpus, "money_per_hour": worth_all.money_per_hour, "bound": worth_all.bound},
        "summary": first_page["summary"],
        "currency": settings.cost.currency,
        "budget_per_hour": settings.cost.budget_per_hour,
        "price_basis": total(
            (price_of(Interval.exactly(1.0), each) for each in prices.values()), settings.cost.currency
        ).basis,
        "abstentions": first_page["abstentions"],
        "outcomes": _outcomes(view, past) if has_ledger else None,
        "suggestions": list(view.suggestions),
    }


def _gpu_prices(gpus: Sequence[Gpu], view: View, settings: Settings) -> Mapping[str, GpuPrice]:
    """By uuid: of the evaluation, which knows the memory, or by the model's name."""
    present = view.evaluation.prices.by_gpu if view.evaluation else {}
    by_name = PriceList(settings.cost, view.evaluation.facts.list_prices if view.evaluation else {})
    found = ((gpu.uuid, present.get(gpu.uuid) or by_name.price(gpu.name)) for gpu in gpus if not gpu.mig_profile)
    return {uuid: price for uuid, price in found if price is not None}


#: Hours by uuid; None: unknown.
LostHours = Mapping[str, float | None]


def lost_gpu_hours(view: View, past: FleetHistory) -> LostHours:
    """Hours in the period by lost GPU, by uuid: since its utilization was read last, or since it was reported as lost
    if that is earlier. Where its utilization was never read, since its first sample; without any, since the period's
    first data of any GPU.

    A GPU that is down for a hardware reason counts before anything is recommended for it. Hours are unknown for a GPU
    that was read in the last step, and if the utilization of all GPUs is missing because a query failed.
    """
    if past.unavailable and not any(past.values.get(series.UTILIZATION, {}).values()):
        return dict.fromkeys(_lost_since(view))
    period = past.period
    first_step = min((first for first, _ in past.observed_spans.values()), default=0)
    found: dict[str, float | None] = {}
    for uuid, reported in _lost_since(view).items():
        first_sample, _ = past.observed_spans.get(uuid, (first_step, first_step))
        unread = max(past.of(series.UTILIZATION, uuid), default=first_sample - 1) + 1
        since = max(period.time(first_step - 1), min(reported, period.time(unread - 1)))
        found[uuid] = (period.end - since) / 3600 if since < period.end else None
    return found


def _lost_since(view: View) -> Mapping[str, float]:
    """When each lost GPU was reported as lost at the latest, by uuid (Unix time)."""
    facts = view.evaluation.facts if view.evaluation else None
    down = {gpu.uuid: facts.at for gpu in billable(facts.gpus) if is_down_by_hardware(facts, gpu)} if facts else {}
    issued = [each for each in view.issued if each.recommendation.kind == lost_gpu.KIND]
    return down | {uuid: each.since for each in issued for uuid in each.recommendation.gpus}


def _gpus_only_lost(past: FleetHistory, view: View, lost: LostHours) -> Iterator[Gpu]:
    """Lost GPUs without any history in the period."""
    read = {gpu.uuid for gpu in past.gpus}
    for gpu in view.evaluation.facts.gpus if view.evaluation else ():
        if gpu.uuid in lost and gpu.uuid not in read:
            yield gpu


def _period(past: FleetHistory) -> PeriodDocument:
    period = past.period
    known = [index for sighting in past.observed_spans.values() for index in sighting]
    return {
        "start": format_rfc3339(period.start),
        "end": format_rfc3339(period.end),
        "step_seconds": period.step_seconds,
        "points": period.points,
        "queries": past.queries,
        "data_start": format_rfc3339(period.time(min(known) - 1)) if known else None,
        "data_end": format_rfc3339(period.time(max(known))) if known else None,
    }


def _comparison(
    past: FleetHistory,
    usage_by_gpu: Mapping[Gpu, usage.GpuHourUsage],
    before: FleetHistory,
    view: View,
    settings: Settings,
) -> ComparisonDocument:
    usage_before = {gpu: usage.gpu_hour_usage(before, gpu) for gpu in before.gpus}
    prices = _gpu_prices((*before.gpus, *past.gpus), view, settings)
    return {
        "period": _period(before),
        "data_ratio": ObservedTime.of(before).ratio,
        "unavailable": list(before.unavailable),
        "fleet": fleet_changes(past, usage_by_gpu, before, usage_before, prices),
        "by": changes_by_owner(past, before, settings.teams, prices),
    }


def _outcomes(view: View, past: FleetHistory) -> list[shapes.OutcomeDocument]:
    """Outcomes judged in the period, newest first."""
    recent = [each for each in reversed(view.outcomes.recent) if each.judged >= past.period.start]
    return [document.outcome(each, view.feedback) for each in recent[:MAX_LISTED]]


def _groups(
    past: FleetHistory,
    usage_by_gpu: Mapping[Gpu, usage.GpuHourUsage],
    pools: Sequence[Pool],
    settings: Settings,
    prices: Mapping[str, GpuPrice],
    lost: LostHours,
) -> Iterator[UsageGroup]:
    if not pools:
        return
    band = mean_band(settings, pools)
    yield _group(past, usage_by_gpu, past.gpus, None, band, settings, prices, lost)
    for pool in pools:
        band = utilization_band(settings, pool.settings)
        here = {gpu.uuid: lost[gpu.uuid] for gpu in pool.devices if gpu.uuid in lost}
        read = [gpu for gpu in pool.devices if gpu in usage_by_gpu]
        yield _group(past, usage_by_gpu, read, pool.settings, band, settings, prices, here)


def _group(
    past: FleetHistory,
    usage_by_gpu: Mapping[Gpu, usage.GpuHourUsage],
    gpus: Sequence[Gpu],
    pool: PoolSettings | None,
    utilization: TargetBand,
    settings: Settings,
    prices: Mapping[str, GpuPrice],
    lost: LostHours,
) -> UsageGroup:
    mine = {gpu: usage_by_gpu[gpu] for gpu in gpus}
    sums = usage.total(list(mine.values()))
    nodes = sorted({gpu.node for gpu in gpus})
    return {
        "kind": "pool" if pool else "fleet",
        "name": pool.name if pool else "fleet",
        "pool_kind": pool.kind if pool else None,
        "gpus": len(gpus),
        "nodes": len(nodes),
        "gpu_hours": _hours(sums),
        "cost": usage.cost(mine, prices),
        "lost": _lost(lost, prices),
        "gpu_utilization_ratio": sums.utilization,
        "gpu_memory_ratio": usage.mean_memory(past, gpus),
        "cpu_ratio": usage.mean(value for node in nodes for value in past.cpu.get(node, {}).values()),
        "coverage_ratio": sums.coverage,
        "targets": _targets(utilization, settings),
        "trends": usage.trends(past, gpus),
    }


def _lost(hours: LostHours, prices: Mapping[str, GpuPrice]) -> LostGpus:
    known = {uuid: each for uuid, each in hours.items() if each is not None}
    priced = [prices[uuid].amount * each for uuid, each in known.items() if uuid in prices]
    return {
        "gpus": len(hours),
        "gpu_hours": fsum(known.values()) if known or not hours else None,
        "cost": fsum(priced) if priced or not hours else None,
        "unpriced_gpus": len(hours.keys() - prices.keys()),
        "unknown_gpus": len(hours) - len(known),
    }


def _models(usage_by_gpu: Mapping[Gpu, usage.GpuHourUsage], prices: Mapping[str, GpuPrice]) -> Iterator[GpuModelUsage]:
    """By unused hours, most first."""
    by_name: dict[str, dict[Gpu, usage.GpuHourUsage]] = {}
    for gpu, each in usage_by_gpu.items():
        by_name.setdefault(gpu.name, {})[gpu] = each
    sums = {name: usage.total(list(each.values())) for name, each in by_name.items()}
    for name in sorted(by_name, key=lambda name: (-sums[name].unused, name)):
        found = {prices.get(gpu.uuid) for gpu in by_name[name]}
        price = found.pop() if len(found) == 1 else None
        yield {
            "name": name,
            "gpus": len(by_name[name]),
            "price_per_hour": price.amount if price else None,
            "price_estimated": price.estimated if price else None,
            "gpu_hours": _hours(sums[name]),
            "cost": usage.cost(by_name[name], prices),
            "gpu_utilization_ratio": sums[name].utilization,
        }


def _hours(of: usage.GpuHourUsage) -> GpuHours:
    return {
        "present": of.present,
        "observed": of.observed,
        "unobserved": of.unobserved,
        "busy": of.busy,
        "unused": of.unused,
        "memory_allocated": of.memory_allocated,
        "idle_allocated": of.idle_allocated,
        "memory_unknown": of.memory_unknown,
    }


def _targets(utilization: TargetBand, settings: Settings) -> TargetsDocument:
    return {
        "gpu_utilization": _band(utilization),
        "gpu_memory": _band(memory_band(settings)),
        "cpu": _band(_CPU_BAND(settings)),
    }


def _band(of: TargetBand) -> Band:
    return {"low": of.low, "high": of.high}
