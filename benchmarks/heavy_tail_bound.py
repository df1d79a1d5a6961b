"""What a day of heavy-tailed bursts costs if the tail is known, and how little of the tail a day shows.

    python -m benchmarks.heavy_tail_bound [--days N]

The oracle knows the daily pattern, and from many generated days what any number of spare GPUs leaves unserved: it keeps
the fewest that are expected to meet the objective. It sees each burst at once, and starts GPUs for it, which serve
after the start delay and cost nothing once it is over.

The estimate knows the same, but for the tail: it has the exact sizes of one day's bursts, and extrapolates a
generalised Pareto distribution of the larger half of them (peaks over a threshold: Pickands, 1975,
https://doi.org/10.1214/aos/1176343003), fitted by probability-weighted moments (Hosking and Wallis, 1987,
https://doi.org/10.1080/00401706.1987.10488243). How much its spare GPUs differ from day to day bounds what any policy
can know of this tail after a day.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks import common
from benchmarks.demand import MINUTES_OF_DAY, Demand
from benchmarks.demand_families import (
    LARGEST_TAIL_BURST,
    SMALLEST_TAIL_BURST,
    TAIL_BURSTS_PER_HOUR,
    TAIL_SHAPE,
    heavy_tailed_days,
    heavy_tailed_levels,
)
from benchmarks.slo_backtest import FIRST_SEED, OBJECTIVES, POOL, name_of

#: GPUs that are requested when a minute ends serve from the third minute after it.
REACTION_MINUTES = 3
FIRST_KNOWN_SEED = 100_000
MEASURED_DAYS = 3  # as in benchmarks.slo_backtest
SPARE_GPUS: Demand = np.arange(POOL.max + 1.0)
BURSTS_A_DAY = 24 * TAIL_BURSTS_PER_HOUR

#: Spare GPUs for which the estimate knows what each burst beyond them leaves unserved.
KNOWN_SPARE_GPUS = 20


@dataclass(frozen=True, slots=True)
class HeavyTailBound:
    """Of one objective. Shares of the demand are in units of it.

    The oracle: its spare GPUs and GPU-hours a day, what it is expected to leave unserved, in the median day, and in
    the mean of the days of benchmarks.slo_backtest; `within` and `above` are shares of means of three days: within a
    factor of two of the objective, and above. The estimate: spare GPUs in the tenth and ninetieth of a hundred days,
    and the share of days after which what is expected is within a factor of two.
    """

    spare_gpus: int
    gpu_hours: float
    expected: float
    median_day: float
    measured: float
    within: float
    above: float
    estimated_few: float
    estimated_many: float
    estimated_within: float


def second_days(seeds: Sequence[int]) -> Demand:
    return np.array([heavy_tailed_days(seed)[MINUTES_OF_DAY:] for seed in seeds])


def unserved(days: Demand, spare: int) -> tuple[Demand, Demand]:
    """The unserved share of each day, and its GPU-hours."""
    kept = np.ceil(heavy_tailed_levels()[MINUTES_OF_DAY:] + spare)
    started = np.ceil(np.pad(days, ((0, 0), (REACTION_MINUTES, 0)))[:, : days.shape[1]])
    sizes = np.maximum(kept, started)
    return np.maximum(0, days - sizes).sum(axis=1) / days.sum(axis=1), sizes.sum(axis=1) / 60


def true_excess(spare: Demand) -> Demand:
    """The mean of a burst's GPUs beyond so many."""
    scale = SMALLEST_TAIL_BURST**TAIL_SHAPE / (TAIL_SHAPE - 1)
    beyond = np.clip(spare, SMALLEST_TAIL_BURST, LARGEST_TAIL_BURST) ** (1 - TAIL_SHAPE)
    return np.asarray(scale * (beyond - LARGEST_TAIL_BURST ** (1 - TAIL_SHAPE)))


def estimated_excess(bursts: Demand, spare: Demand) -> Demand:
    """The same by the larger half of the bursts; infinite where the mean of the fitted distribution is."""
    threshold = np.median(bursts)
    excesses = np.sort(bursts[bursts > threshold] - threshold)
    mean = excesses.mean()
    ranks = (np.arange(len(excesses)) + 0.65) / len(excesses)
    weighted = np.mean((1 - ranks) * excesses)
    shape, scale = 2 - mean / (mean - 2 * weighted), 2 * mean * weighted / (mean - 2 * weighted)
    if shape >= 1:
        return np.full(len(spare), np.inf)
    reach = np.maximum(1 + shape * (spare - threshold) / scale, 1e-9)
    found = np.where(reach > 1e-9, np.mean(bursts > threshold) * scale / (1 - shape) * reach ** (1 - 1 / shape), 0.0)
    return np.where(spare < threshold, np.inf, found)


def estimated_spare(days: int, shares: Demand) -> Demand:
    """The spare GPUs after each of so many days, by objective; `shares` are expected by spare GPUs."""
    random = np.random.default_rng(FIRST_KNOWN_SEED)
    per_burst = shares[KNOWN_SPARE_GPUS] / true_excess(SPARE_GPUS)[KNOWN_SPARE_GPUS]
    found = np.empty((days, len(OBJECTIVES)), dtype=int)
    for day in range(days):
        sizes = SMALLEST_TAIL_BURST * (random.pareto(TAIL_SHAPE, random.poisson(BURSTS_A_DAY)) + 1)
        expected = per_burst * estimated_excess(np.minimum(LARGEST_TAIL_BURST, sizes), SPARE_GPUS)
        for number, objective in enumerate(OBJECTIVES):
            met = expected <= objective
            found[day, number] = np.argmax(met) if met.any() else POOL.max
    return found


def bounds(known: Demand, measured: Demand) -> dict[str, HeavyTailBound]:
    by_spare = [unserved(known, spare) for spare in range(int(LARGEST_TAIL_BURST) + 1)]
    shares = np.zeros(len(SPARE_GPUS))
    shares[: len(by_spare)] = [each.mean() for each, _ in by_spare]
    estimates = estimated_spare(len(known), shares)
    found = {}
    for number, objective in enumerate(OBJECTIVES):
        spare, estimated = int(np.argmax(shares <= objective)), estimates[:, number]
        relative, hours = by_spare[spare][0] / objective, by_spare[spare][1]
        means = relative.reshape(-1, MEASURED_DAYS).mean(axis=1)
        reached = shares[estimated] / objective
        found[name_of(objective)] = HeavyTailBound(
            spare_gpus=spare,
            gpu_hours=float(hours.mean()),
            expected=float(relative.mean()),
            median_day=float(np.median(relative)),
            measured=float(unserved(measured, spare)[0].mean()) / objective,
            within=float(np.mean((means >= 0.5) & (means <= 2))),
            above=float(np.mean(means > 2)),
            estimated_few=float(np.quantile(estimated, 0.1)),
            estimated_many=float(np.quantile(estimated, 0.9)),
            estimated_within=float(np.mean((reached >= 0.5) & (reached <= 2))),
        )
    return found


def table(found: dict[str, HeavyTailBound]) -> str:
    head = ["objective", "spare GPUs", "GPU-hours", "expected", "median day", "measured days", "within", "above"]
    rows = [[*head, "estimated spare GPUs", "within"]]
    for name, each in found.items():
        shares = (f"{share:.2f}" for share in (each.expected, each.median_day, each.measured))
        oracle = (str(each.spare_gpus), f"{each.gpu_hours:.0f}", *shares, f"{each.within:.0%}", f"{each.above:.0%}")
        estimate = (f"{each.estimated_few:.0f} to {each.estimated_many:.0f}", f"{each.estimated_within:.0%}")
        rows.append([name, *oracle, *estimate])
    return common.table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=900, help="that the oracle knows, a multiple of three")
    chosen = parser.parse_args()
    known = second_days(range(FIRST_KNOWN_SEED, FIRST_KNOWN_SEED + chosen.days // MEASURED_DAYS * MEASURED_DAYS))
    found = bounds(known, second_days(range(FIRST_SEED, FIRST_SEED + MEASURED_DAYS)))
    print(table(found))
    print(common.write("heavy_tail_bound", {"by_objective": {name: asdict(each) for name, each in found.items()}}))


if __name__ == "__main__":
    main()
