"""Output of `gpu-advisor cost`: as a table, JSON or CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.commands import output
from gpu_advisor.cost.offer_ranking import MILLION
from gpu_advisor.rendering.escaping import one_line

if TYPE_CHECKING:
    from gpu_advisor.cost.catalogue import PriceAge
    from gpu_advisor.cost.offer_ranking import JobRequirements, OfferRanking, RankedOffer

MAX_ROWS_SHOWN = 10

_COLUMNS = (
    "provider", "region", "instance_type", "gpu_type", "gpu_count", "gpu_memory_gib", "spot", "price_per_hour",
    "units_per_second", "throughput_estimated", "throughput_basis", "hours", "cost", "cost_per_unit", "feasible",
    "failed", "dated", "source",
)  # fmt: skip
_CATALOGUE_COLUMNS = (
    "provider", "region", "instance_type", "gpu_type", "gpu_count", "gpu_memory_gib", "price_per_hour",
    "spot_price_per_hour", "dated", "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CostReport:
    """A query and its result; `unit`: of work, singular; `now`: the current offer."""

    work: JobRequirements
    unit: str
    choice: OfferRanking
    now: RankedOffer | None
    stale: tuple[PriceAge, ...]


def show(of: CostReport, form: output.Format, everything: bool) -> None:
    if form == "json":
        output.show_json(_document(of))
    elif form == "csv":
        output.show_documents_csv(_COLUMNS, map(_row, of.choice.candidates))
        _warn_stale_prices(of, err=True)
    else:
        _show_table(of, everything)


def show_list(of: CostReport, form: output.Format) -> None:
    """The catalogue's offers that pass the filters, regardless of throughput."""
    found = [each.offer for each in of.choice.candidates if each.only_throughput and not each.spot]
    rows = [
        {name: getattr(offer, name) for name in _CATALOGUE_COLUMNS} | {"dated": str(offer.dated)} for offer in found
    ]
    if form == "json":
        output.show_json({"instances": rows, "stale": _stale(of)})
    elif form == "csv":
        output.show_documents_csv(_CATALOGUE_COLUMNS, rows)
        _warn_stale_prices(of, err=True)
    else:
        shown = [
            (o.provider, o.region, o.instance_type, f"{o.gpu_count} x {o.gpu}", _money(o.price_per_hour),
             _money(o.spot_price_per_hour), str(o.dated))
            for o in found
        ]  # fmt: skip
        head = ("provider", "region", "instance type", "GPUs", "an hour", "spot", "not older than")
        output.show_table(head, shown, "The catalogue has nothing of these.")
        _warn_stale_prices(of)


def _document(of: CostReport) -> dict[str, Any]:
    return {
        "unit": of.unit,
        "instances": of.work.instances,
        "amount": of.work.amount,
        "interruption_ratio": of.work.interruption_ratio if of.work.spot else None,
        "best": _row(of.choice.best) if of.choice.best else None,
        "now": _row(of.now) if of.now else None,
        "saved_ratio": _saving_ratio(of),
        "stale": _stale(of),
        "candidates": [_row(each) for each in of.choice.candidates],
    }


def _row(each: RankedOffer) -> dict[str, Any]:
    offer = each.offer
    return {
        "provider": offer.provider,
        "region": offer.region,
        "instance_type": offer.instance_type,
        "gpu_type": str(offer.gpu),
        "gpu_count": offer.gpu_count,
        "gpu_memory_gib": offer.gpu_memory_gib,
        "spot": each.spot,
        "price_per_hour": each.price_per_hour,
        "units_per_second": each.throughput.per_second,
        "throughput_estimated": each.throughput.estimated,
        "throughput_basis": each.throughput.basis,
        "hours": each.hours,
        "cost": each.cost,
        "cost_per_unit": each.cost_per_unit,
        "feasible": each.feasible,
        "failed": list(each.failed),
        "dated": str(offer.dated),
        "source": offer.source,
    }


def _show_table(of: CostReport, everything: bool) -> None:
    feasible = of.choice.feasible
    shown = feasible if everything else feasible[:MAX_ROWS_SHOWN]
    per = f"per {of.unit}" if of.unit == "GPU hour" else f"per million {of.unit}s"
    rows = [_cells(each, of.unit, of.work.instances) for each in shown]
    head = ("instance type", "region", "GPUs", "price", "an hour", _rate_head(of.unit), "hours", "cost", per)
    output.show_table(head, rows, _no_result_text(of.choice))
    if len(shown) < len(feasible):
        click.echo(f"and {len(feasible) - len(shown)} dearer ones (--all)")
    for line in _notes(of):
        click.echo(one_line(line))
    failed = [each for each in of.choice.candidates if not each.feasible]
    if everything:
        for each in failed:
            click.echo(one_line(f"{_name(each)}: {'; '.join(each.failed)}"))
    elif failed:
        reasons = Counter(_failure_category(each.failed[0]) for each in failed)
        reason_counts = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
        click.echo(f"Excluded: {reason_counts} (--all lists them)")
    _warn_stale_prices(of)


def _cells(each: RankedOffer, unit: str, instances: int) -> tuple[str, ...]:
    offer = each.offer
    scale, seconds = (1.0, 3600) if unit == "GPU hour" else (MILLION, 1)
    per_second = "-" if each.throughput.per_second is None else f"{each.throughput.per_second * seconds:.5g}"
    return (
        f"{instances} x {offer.instance_type}" if instances > 1 else offer.instance_type, offer.region,
        f"{offer.gpu_count * instances} x {offer.gpu}", "spot" if each.spot else "on demand",
        _money(each.price_per_hour), f"~{per_second}" if each.throughput.estimated else per_second,
        "-" if each.hours is None else f"{each.hours:.4g}", _money(each.cost),
        _money(None if each.cost_per_unit is None else each.cost_per_unit * scale),
    )  # fmt: skip


def _rate_head(unit: str) -> str:
    return "GPU hours/h" if unit == "GPU hour" else f"{unit}s/s"


def _notes(of: CostReport) -> Iterator[str]:
    """Notes on the basis of the numbers."""
    best, now = of.choice.best, of.now
    if best is not None:
        yield f"Cheapest: {_name(best)}. Throughput: {best.throughput.basis}"
    if any(each.throughput.estimated for each in of.choice.feasible):
        yield "~: estimated from peak TFLOPS, may be wrong by a factor: measure it with gpu-advisor probe"
    if of.work.spot:
        yield f"On spot instances {of.work.interruption_ratio:.0%} of the work is repeated (--interruption)"
    for each in of.choice.candidates if of.work.instance_types else ():
        if not each.feasible and of.work.allows_instance_type(each.offer):
            yield f"{_name(each)}: {'; '.join(each.failed)}"
    if now is not None:
        name = _name(now)
        saved = _saving_ratio(of)
        for why in now.failed:
            yield f"Now, {name}: {why}"
        if saved is not None and saved > 0:
            yield f"Compared with {name} (now): {saved:.0%} less for the same work"
        elif saved is not None:
            yield f"{name} (now) is as cheap as any that fits the job"


def _name(each: RankedOffer) -> str:
    return f"{each.offer.instance_type} in {each.offer.region}{', spot' if each.spot else ''}"


def _saving_ratio(of: CostReport) -> float | None:
    """Share of the current cost of the work, 0..1; None if unknown."""
    best, now = of.choice.best, of.now
    if best is None or now is None or now.cost_per_unit is None or best.cost_per_unit is None:
        return None
    return 1 - best.cost_per_unit / now.cost_per_unit


def _no_result_text(choice: OfferRanking) -> str:
    if choice.undetermined:
        count = sum(each.only_throughput for each in choice.candidates)
        return (
            f"Insufficient data: {count} match the job, but their throughput is unknown. Add --rate or --profile, or "
            "use --estimate-throughput."
        )
    return "Nothing fits the job: relax a filter, the budget or the deadline; --all lists the reasons."


def _failure_category(reason: str) -> str:
    """Groups reasons for the summary, by how `offer_ranking` begins them."""
    for start, name in (
        ("retired", "retired"), ("provider", "of other providers"), ("region", "in other regions"),
        ("instance type", "of other types"), ("GPU", "with other GPUs"), ("spot price", "without a spot price"),
        ("takes", "too late"), ("costs", "above the budget"), ("throughput", "of unknown throughput"),
    ):  # fmt: skip
        if reason.startswith(start):
            return name
    return "with too little memory" if "GiB per GPU" in reason else "with too few or too many GPUs"


def _stale(of: CostReport) -> list[dict[str, Any]]:
    return [{"provider": age.provider, "oldest": str(age.oldest), "age_days": age.days} for age in of.stale]


def _warn_stale_prices(of: CostReport, err: bool = False) -> None:
    past = [f"{age.provider} {age.oldest} ({age.days} days)" for age in of.stale if age.days >= 0]
    if past:
        click.echo(
            f"Old prices: {', '.join(past)}. Update them with --refresh-from, or set your own with --catalogue", err=err
        )
    for age in of.stale:
        if age.days < 0:
            click.echo(f"Prices of {age.provider} are dated {age.oldest}, in the future: check the date", err=err)


def _money(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"
