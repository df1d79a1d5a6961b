"""The choice against an exhaustive search of its own kind, over the shipped catalogue and over random ones."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources
from typing import Any

import pytest
from gpu_advisor.cost.catalogue import Catalogue, builtin_catalogue, offers_from_csv
from gpu_advisor.cost.offer_ranking import JobRequirements, rank_offers
from gpu_advisor.cost.offer_throughput import WorkRate
from gpu_advisor.cost.offers import GpuVariant, InstanceOffer, parse_exact_gpu
from hypothesis import given
from hypothesis import strategies as st

TODAY = date(2026, 11, 21)
#: Images a second of ResNet-50 on one GPU and on eight, and figures made up in the same order of magnitude.
SPEEDS = {("T4", 1): 430.0, ("V100-16GB", 1): 1200.0, ("V100-32GB", 8): 8056.0, ("A100-80GB", 1): 2470.0,
          ("A100-80GB", 8): 16621.0, ("A100-40GB", 1): 2300.0, ("A100-40GB", 8): 15600.0, ("L4", 1): 1000.0,
          ("L4", 4): 3700.0, ("H100", 1): 4300.0, ("H100", 8): 30000.0, ("H200", 8): 33000.0,
          ("B200", 8): 60000.0}  # fmt: skip


@dataclass(frozen=True)
class WorkloadCase:
    """One workload of the table, in the test's own words."""

    name: str
    speeds: tuple[tuple[str, int], ...] = tuple(SPEEDS)
    amount: float | None = 1e9
    memory: float = 0.0
    least: int = 1
    most: int | None = None
    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    spot: bool = False
    twice: float = 0.0
    budget: float | None = None
    deadline: float | None = None
    scaling: float | None = None
    instances: int = 1


TABLE = (
    WorkloadCase("anything"),
    WorkloadCase("anything, spot", spot=True),
    WorkloadCase("spot with a tenth done twice", spot=True, twice=0.1),
    WorkloadCase("spot where everything is done four times", spot=True, twice=3.0),
    WorkloadCase("needs 20 GiB", memory=20),
    WorkloadCase("needs 23 GiB: not what an L4 of AWS reports", memory=23, speeds=(("L4", 1), ("L4", 4))),
    WorkloadCase("needs all 16 GiB", memory=16, speeds=(("T4", 1),)),
    WorkloadCase("needs 60 GiB", memory=60),
    WorkloadCase("needs 141 GiB", memory=141),
    WorkloadCase("more memory than any", memory=500),
    WorkloadCase("eight GPUs", least=8),
    WorkloadCase("eight GPUs, spot", least=8, spot=True, twice=0.2),
    WorkloadCase("one GPU only", most=1),
    WorkloadCase("two to four GPUs, scaled", least=2, most=4, scaling=0.9),
    WorkloadCase("all scaled", scaling=0.85),
    WorkloadCase("AWS", providers=("aws",)),
    WorkloadCase("GCP, spot", providers=("gcp",), spot=True, twice=0.15),
    WorkloadCase("Azure", providers=("azure",)),
    WorkloadCase("Ireland", regions=("eu-west-1",)),
    WorkloadCase("two regions", regions=("us-east4", "us-west-2"), spot=True),
    WorkloadCase("within a day", deadline=24.0),
    WorkloadCase("within 9 hours", deadline=9.0),
    WorkloadCase("within a minute", deadline=1 / 60),
    WorkloadCase("for 300", budget=300.0),
    WorkloadCase("for 100 within 200 hours, spot", budget=100.0, deadline=200.0, spot=True, twice=0.1),
    WorkloadCase("for nearly nothing", budget=0.01),
    WorkloadCase(
        "only retired types could", speeds=(("V100-16GB", 1), ("V100-16GB", 2)), providers=("azure",), scaling=0.9
    ),
    WorkloadCase("the amount is unknown", amount=None),
    WorkloadCase("one speed known", speeds=(("H200", 8),)),
    WorkloadCase("no speed of what is there", speeds=(("L4", 1),), least=8),
    WorkloadCase("two of four L4 each", instances=2, speeds=(("L4", 4), ("L4", 8))),
    WorkloadCase("two instances, sixteen GPUs, scaled", instances=2, least=16, scaling=0.7, spot=True, twice=0.1),
    WorkloadCase("eight single GPUs within 10 hours", instances=8, most=8, deadline=10.0, scaling=0.9),
    WorkloadCase("three instances for 100", instances=3, budget=100.0, scaling=0.9),
    WorkloadCase("a small job", amount=1000.0, spot=True),
)


def work(asked: WorkloadCase) -> JobRequirements:
    rates = tuple(
        WorkRate(SPEEDS.get(each, 1.0), "given", gpu=parse_exact_gpu(each[0]), gpu_count=each[1])
        for each in asked.speeds
    )
    return JobRequirements(
        rates, asked.amount, asked.memory, asked.instances, asked.least, asked.most, (), frozenset(asked.providers),
        frozenset(asked.regions), frozenset(), asked.spot, asked.twice, asked.budget, asked.deadline, asked.scaling,
    )  # fmt: skip


def raw() -> list[dict[str, str]]:
    with (resources.files("gpu_advisor.cost") / "catalogue.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def exhaustive(
    asked: WorkloadCase, rows: list[dict[str, str]], gone: set[str]
) -> tuple[float, set[tuple[str, str, str, bool]]]:
    """The least cost of a unit, and all that have it; written over plain rows, with nothing of the program in it."""
    sizes = {"V100", "A100"}
    every: list[tuple[float, tuple[str, str, str, bool]]] = []
    for row in rows:
        count, name = int(row["gpu_count"]) * asked.instances, row["gpu_type"]
        if name in sizes:
            name += f"-{row['gpu_memory_gib']}GB"
        if (name, count) in asked.speeds:
            speed = SPEEDS.get((name, count), 1.0)
        elif (name, 1) in asked.speeds and asked.scaling is not None:
            speed = SPEEDS.get((name, 1), 1.0) * count * asked.scaling
        else:
            continue
        if row["instance_type"] in gone or float(row["gpu_memory_gib"]) < asked.memory:
            continue
        if count < asked.least or count > (asked.most or 10**9):
            continue
        if asked.providers and row["provider"] not in asked.providers:
            continue
        if asked.regions and row["region"] not in asked.regions:
            continue
        for is_spot in (False, True) if asked.spot else (False,):
            price = row["spot_price_per_hour" if is_spot else "price_per_hour"]
            if not price:
                continue
            price = str(float(price) * asked.instances)
            seconds_of_one = (1 + asked.twice if is_spot else 1) / speed
            hours = (asked.amount or 0) * seconds_of_one / 3600
            if asked.deadline is not None and hours > asked.deadline:
                continue
            if asked.budget is not None and hours * float(price) > asked.budget:
                continue
            every.append(
                (float(price) * seconds_of_one / 3600, (row["instance_type"], row["region"], row["gpu_count"], is_spot))
            )
    least = min((cost for cost, _ in every), default=math.inf)
    return least, {who for cost, who in every if math.isclose(cost, least, rel_tol=1e-12)}


RETIRED = {"Standard_NV6", "Standard_NC6s_v3", "Standard_NC12s_v3", "Standard_NC24s_v3"}


@pytest.mark.parametrize("asked", TABLE, ids=lambda asked: asked.name)
def test_the_choice_is_that_of_exhaustive_search(asked: WorkloadCase) -> None:
    least, whos = exhaustive(asked, raw(), RETIRED)
    best = rank_offers(work(asked), builtin_catalogue(), TODAY).best
    if best is None:
        assert not whos
        return
    assert (best.offer.instance_type, best.offer.region, str(best.offer.gpu_count), best.spot) in whos
    assert best.cost_per_unit == pytest.approx(least, rel=1e-12)


def test_the_table_has_both_answers_and_empty_ones() -> None:
    empty = [asked.name for asked in TABLE if not exhaustive(asked, raw(), RETIRED)[1]]
    assert len(TABLE) >= 20
    assert 4 <= len(empty) <= len(TABLE) / 2


prices = st.floats(0.01, 200.0)
rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "gpu_type": st.sampled_from(["T4", "L4", "H100", "H200", "B200"]),
            "gpu_count": st.sampled_from([1, 4, 8]),
            "gpu_memory_gib": st.sampled_from([16, 24, 80, 141]),
            "price_per_hour": prices,
            "spot": st.none() | st.floats(0.05, 1.0),
        }
    ),
    max_size=12,
)


@given(
    rows_of_any_kind, st.booleans(), st.floats(0, 2), st.sampled_from([0.0, 20.0, 80.0]), st.sampled_from([1, 4, 8]),
    st.none() | st.floats(0.1, 1e4), st.none() | st.floats(0.01, 1e3),
)  # fmt: skip
def test_the_same_for_any_catalogue(
    rows: list[dict[str, Any]], spot: bool, twice: float, memory: float, least: int, budget: float | None,
    deadline: float | None,
) -> None:  # fmt: skip
    written = [
        {"provider": "any", "region": "here", "instance_type": f"i{number}", "gpu_type": row["gpu_type"],
         "gpu_count": str(row["gpu_count"]), "gpu_memory_gib": str(row["gpu_memory_gib"]), "vcpus": "",
         "memory_gib": "", "price_per_hour": repr(row["price_per_hour"]),
         "spot_price_per_hour": "" if row["spot"] is None else repr(row["price_per_hour"] * row["spot"]),
         "date": "2026-11-01", "source": "drawn"}
        for number, row in enumerate(rows)
    ]  # fmt: skip
    head = ["provider", "region", "instance_type", "gpu_type", "gpu_count", "gpu_memory_gib", "vcpus", "memory_gib",
            "price_per_hour", "spot_price_per_hour", "date", "source"]  # fmt: skip
    text = "\n".join([",".join(head), *(",".join(row[name] for name in head) for row in written)])
    # A card of odd memory has a name of its own, such as L4-80GB: rates of one size do not hold for it.
    usual = {"T4": 16, "L4": 24, "H100": 80, "H200": 141, "B200": 180}
    known = [row for row in written if usual[row["gpu_type"]] == float(row["gpu_memory_gib"])]
    asked = WorkloadCase(
        "any", memory=memory, least=least, spot=spot, twice=twice, budget=budget, deadline=deadline, amount=1e7
    )
    least_cost, whos = exhaustive(asked, known, set())
    best = rank_offers(work(asked), Catalogue(offers_from_csv(text, "drawn")), TODAY).best
    assert (best is None) == (not whos)
    if best is not None:
        assert best.cost_per_unit == pytest.approx(least_cost, rel=1e-12)


def test_every_candidate_that_is_not_feasible_says_why() -> None:
    found = rank_offers(work(replace(TABLE[0], spot=True, memory=60, deadline=10)), builtin_catalogue(), TODAY)
    assert len(found.candidates) == 2 * len(builtin_catalogue().offers)
    assert all(each.failed for each in found.candidates if not each.feasible)
    reported = " ".join(reason for each in found.candidates for reason in each.failed)
    for reason in ("retired on", "GiB per GPU", "spot price unknown", "throughput", "takes"):
        assert reason in reported


def test_all_reasons_are_reported_not_the_first() -> None:
    asked = JobRequirements(rates=(), gpu_memory_gib=60, min_gpus=2, providers=frozenset({"gcp"}))
    nv6 = next(
        each
        for each in rank_offers(asked, builtin_catalogue(), TODAY).candidates
        if each.offer.instance_type == "Standard_NV6"
    )
    assert [reason.split()[0] for reason in nv6.failed] == ["retired", "provider", "8", "1", "throughput"]


def test_a_type_is_retired_from_its_day_on() -> None:
    rates = (WorkRate(1200, "given", gpu=GpuVariant("V100", 16)),)
    asked = JobRequirements(rates, instance_types=frozenset({"NC6s_v3"}))
    assert rank_offers(asked, builtin_catalogue(), date(2025, 9, 29)).best is not None
    assert rank_offers(asked, builtin_catalogue(), date(2025, 9, 30)).best is None


def test_throughput_is_not_carried_over_to_other_counts_or_sizes() -> None:
    asked = JobRequirements((WorkRate(1200, "given", gpu=GpuVariant("V100", 16)),))
    offers = {
        (each.offer.gpu, each.offer.gpu_count) for each in rank_offers(asked, builtin_catalogue(), TODAY).feasible
    }
    assert offers == {(GpuVariant("V100", 16.0), 1)}
    of_four = JobRequirements((WorkRate(4400, "given", gpu=GpuVariant("V100", 16), gpu_count=4),), scaling_ratio=0.9)
    assert {each.offer.gpu_count for each in rank_offers(of_four, builtin_catalogue(), TODAY).feasible} == {4}


def test_an_estimate_is_asked_for_and_says_that_it_is_one() -> None:
    asked = JobRequirements((WorkRate(1250, "given", gpu=GpuVariant("V100", 16)),))
    with_estimate = rank_offers(replace(asked, estimate=True), builtin_catalogue(), TODAY)
    a100 = next(each for each in with_estimate.feasible if each.offer.gpu == GpuVariant("A100", 80.0))
    assert a100.throughput.estimated
    assert a100.throughput.per_second == pytest.approx(1250 * 312 / 125 * a100.offer.gpu_count)
    assert "312/125 peak TFLOPS" in a100.throughput.basis
    v100 = next(each for each in with_estimate.feasible if each.offer.instance_type == "p3.2xlarge")
    assert not v100.throughput.estimated
    assert not any(each.throughput.estimated for each in rank_offers(asked, builtin_catalogue(), TODAY).candidates)


def test_the_dearer_hour_can_be_the_cheaper_work() -> None:
    """ResNet-50, as docs/cost.md has it."""
    rates = (WorkRate(1200, "", gpu=GpuVariant("V100", 16)), WorkRate(2470, "", gpu=GpuVariant("A100", 80)))
    found = rank_offers(
        JobRequirements(rates, 1.28e6 * 90, providers=frozenset({"aws", "azure", "gcp"})), builtin_catalogue(), TODAY
    ).feasible
    hourly = min(found, key=lambda each: each.offer.price_per_hour)
    assert hourly.offer.instance_type == "p3.2xlarge"
    assert found[0].offer.instance_type == "Standard_NC24ads_A100_v4"


def test_the_order_of_the_catalogue_does_not_matter() -> None:
    asked = work(TABLE[1])
    turned = Catalogue(tuple(reversed(builtin_catalogue().offers)), builtin_catalogue().retired)
    assert rank_offers(asked, turned, TODAY).feasible == rank_offers(asked, builtin_catalogue(), TODAY).feasible


@given(st.floats(1.0, 5.0), st.floats(0, 1))
def test_a_dearer_offer_is_never_chosen_for_being_dearer(factor: float, twice: float) -> None:
    asked = replace(work(TABLE[1]), interruption_ratio=twice)
    before = rank_offers(asked, builtin_catalogue(), TODAY)
    first = before.best
    assert first is not None

    def dearer(offer: InstanceOffer) -> InstanceOffer:
        if offer is not first.offer:
            return offer
        spot = offer.spot_price_per_hour
        return replace(offer, price_per_hour=offer.price_per_hour * factor,
                       spot_price_per_hour=None if spot is None else spot * factor)  # fmt: skip

    after = rank_offers(
        asked, Catalogue(tuple(map(dearer, builtin_catalogue().offers)), builtin_catalogue().retired), TODAY
    ).best
    assert after is not None
    assert after.cost_per_unit is not None
    assert first.cost_per_unit is not None
    assert after.cost_per_unit >= first.cost_per_unit * (1 - 1e-12)
