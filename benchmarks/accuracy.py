"""Error of the mean utilization that Prometheus computes, from the exporter's counter and from the gauge.

    python -m benchmarks.accuracy

A simulated driver averages bursty loads over 1/6 s or 1 s and reports whole percents, with and without a sample
buffer. The exporter's readings come slightly late, and Prometheus scrapes every 15 s with a jitter of half a second.
The mean over 5 minutes is the rate of gpu_busy_seconds_total divided by the rate of gpu_observed_seconds_total, with
Prometheus' own extrapolation, and for the gauge avg_over_time of gpu_utilization_ratio. Time is simulated, with many
phases and seeds. Exits with 1 if the counter's error exceeds a percentage point.

The true value is the load's mean from the first to the last scrape in the window, as rate() extrapolates from these.
"""

from __future__ import annotations

import argparse
import bisect
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from gpu_advisor.sources.reductions import Times, Values, reduce
from gpu_exporter.devices.meters import BusyMeter, UtilizationSample

from benchmarks.common import RESULTS, Goal, missed_goals, percentile, table, write

WINDOW_SECONDS = 300.0
SCRAPE_SECONDS = 15.0
SCRAPE_JITTER = 0.5
LEAD_SECONDS = 40.0  # before the window: a scrape and some readings
GOAL_ERROR_RATIO = 0.01

BUFFER_SAMPLES = 100
"""What a driver keeps, about."""

MEAN_LATENESS_SECONDS = 0.003
"""Mean lateness of a reading: threads are not started on the dot."""

DELAYED_READ_RATIO, MAX_DELAY_SECONDS = 0.01, 0.4
"""Readings that wait for something else, and how long at most."""


class BusySignal:
    """Bursts of full load: `edges` are the times at which it turns on, off, on, ... in seconds."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        lengths = (off - on for on, off in zip(edges[::2], edges[1::2], strict=True))
        self._busy = [0.0, *accumulate(lengths)]

    def busy_seconds(self, at: float) -> float:
        """From the beginning to `at`."""
        passed = bisect.bisect_right(self._edges, at)
        done = self._busy[passed // 2]
        return done + at - self._edges[passed - 1] if passed % 2 else done

    def mean(self, start: float, end: float) -> float:
        return (self.busy_seconds(end) - self.busy_seconds(start)) / (end - start)


SignalFactory = Callable[[random.Random, float], BusySignal]


def square_wave(period: float) -> SignalFactory:
    """Bursts of one length at one distance."""

    def make(chance: random.Random, seconds: float) -> BusySignal:
        duty, phase = chance.uniform(0.1, 0.9), chance.uniform(0, period)
        count = int(seconds / period) + 2
        starts = [phase + (k - 1) * period for k in range(count)]
        return BusySignal([max(0.0, edge) for start in starts for edge in (start, start + duty * period)])

    return make


def bursts(busy: float, idle: float) -> SignalFactory:
    """Bursts and pauses of random lengths with these means."""

    def make(chance: random.Random, seconds: float) -> BusySignal:
        edges, at = [], 0.0
        while at < seconds:
            start = at + chance.expovariate(1 / idle)
            at = start + chance.expovariate(1 / busy)
            edges += [start, at]
        return BusySignal(edges)

    return make


BUSY_SIGNALS: dict[str, SignalFactory] = {
    "period 15 s": square_wave(15.0),
    "period 37 s": square_wave(37.0),
    "random bursts of 5 s": bursts(5.0, 5.0),
    "random bursts of 0.5 s": bursts(0.5, 0.5),
    "period 0.3 s": square_wave(0.3),
}


class SimulatedDriver:
    """Averages the load over periods of its own clock, and keeps the last of them in whole percents."""

    def __init__(self, load: BusySignal, period: float, chance: random.Random) -> None:
        self._load = load
        self._period = period * (1 + chance.uniform(-5e-4, 5e-4))  # its clock is its own
        self._phase = chance.uniform(0, self._period)

    def gauge(self, now: float) -> float:
        return self._percent(self._last(now))

    def newer_than(self, seen: int, now: float) -> list[UtilizationSample]:
        last = self._last(now)
        samples = []
        for tick in range(last, max(0, last - BUFFER_SAMPLES), -1):
            stamp = round(self._end(tick) * 1e6)
            if stamp <= seen:
                break
            samples.append((stamp, self._percent(tick)))
        return samples[::-1]

    def _last(self, now: float) -> int:
        return int((now - self._phase) / self._period)

    def _end(self, tick: int) -> float:
        return self._phase + tick * self._period

    def _percent(self, tick: int) -> float:
        end = self._end(tick)
        return float(round(100 * self._load.mean(end - self._period, end)))


@dataclass(frozen=True)
class ReadMethod:
    """How the exporter sees the load."""

    period: float  # that the driver averages over, in seconds
    buffer: bool
    interval: float  # between two readings, in seconds

    def __str__(self) -> str:
        period = "1/6 s" if self.period < 1 else "1 s"
        return f"driver's {period}, {'buffer' if self.buffer else 'gauge'} read every {self.interval:g} s"


class Errors(NamedTuple):
    """Absolute errors of the mean over the window, as ratios."""

    counter: float
    gauge: float
    counter_with_edges: float


def measure_window(make: SignalFactory, method: ReadMethod, seed: int) -> Errors:
    """One load seen through one window."""
    chance = random.Random(seed)
    end = LEAD_SECONDS + WINDOW_SECONDS + chance.uniform(0, SCRAPE_SECONDS)  # queries come at any time
    load = make(chance, end + 1)
    driver = SimulatedDriver(load, method.period, chance)
    scrapes = sorted(
        k * SCRAPE_SECONDS + chance.uniform(-SCRAPE_JITTER, SCRAPE_JITTER)
        for k in range(1, int(end / SCRAPE_SECONDS) + 1)
    )
    meter = BusyMeter()
    busy, observed, gauge = [], [], []
    readings = _readings(method.interval, chance)
    reading, value = next(readings), 0.0
    for scrape in scrapes:
        while reading <= scrape:
            value = driver.gauge(reading)
            meter.update(reading, driver.newer_than(meter.next_sample_since, reading) if method.buffer else None, value)
            reading = next(readings)
        busy.append(meter.busy)
        observed.append(meter.observed)
        gauge.append(value / 100)
    times = np.array([round(1000 * scrape) for scrape in scrapes], dtype=np.int64)
    inside = [scrape for scrape in scrapes if end - WINDOW_SECONDS <= scrape <= end]
    truth = load.mean(inside[0], inside[-1])
    counter = _over_window("rate", times, busy, end) / _over_window("rate", times, observed, end)
    return Errors(
        abs(counter - truth),
        abs(_over_window("mean", times, gauge, end) - truth),
        abs(counter - load.mean(end - WINDOW_SECONDS, end)),
    )


def _readings(interval: float, chance: random.Random) -> Iterator[float]:
    """When the exporter reads: on the grid of its interval, a little late."""
    start = 1.0 + chance.uniform(0, interval)
    last, tick = start, 0
    while True:
        late = chance.expovariate(1 / MEAN_LATENESS_SECONDS)
        if chance.random() < DELAYED_READ_RATIO:
            late += chance.uniform(0, MAX_DELAY_SECONDS)
        last = max(last, start + tick * interval + late)
        yield last
        tick += 1


def _over_window(function: Literal["rate", "mean"], times: Times, values: Sequence[float], end: float) -> float:
    series: Values = np.array(values, dtype=np.float64)
    result = reduce(function, times, series, round(1000 * end), round(1000 * WINDOW_SECONDS))
    assert result is not None
    return result


#: A gauge that is read less often than the driver averages skips periods. Read just as often, it skips one wherever a
#: reading comes late: over a thousand windows up to 1.5 points. Twice a period is enough for any.
READ_METHODS: dict[ReadMethod, bool] = {
    ReadMethod(1 / 6, buffer=True, interval=1.0): True,
    ReadMethod(1.0, buffer=True, interval=1.0): True,
    ReadMethod(1.0, buffer=False, interval=1.0): False,
    ReadMethod(1 / 6, buffer=False, interval=1.0): False,
    ReadMethod(1.0, buffer=False, interval=0.5): True,
    ReadMethod(1 / 6, buffer=False, interval=0.08): True,
}
"""Whether each has to keep the goal: a stretch goal where not."""


def measure(ways: Sequence[ReadMethod], seeds: int) -> dict[ReadMethod, dict[str, list[Errors]]]:
    """The errors of each way, by load, over so many seeds."""
    return {
        method: {
            name: [measure_window(make, method, seed) for seed in range(seeds)] for name, make in BUSY_SIGNALS.items()
        }
        for method in ways
    }


def figures(errors: Sequence[Errors]) -> dict[str, dict[str, float]]:
    """Of each kind of error, the p50, the p95 and the largest."""
    return {
        kind: {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "max": max(values)}
        for kind, values in zip(Errors._fields, zip(*errors, strict=True), strict=True)
    }


def goals(found: Mapping[ReadMethod, Mapping[str, Sequence[Errors]]]) -> list[Goal]:
    against = []
    for method, loads in found.items():
        worst, name = max((error.counter, name) for name, errors in loads.items() for error in errors)
        figure = f"largest {100 * worst:.2f} points, {name}"
        against.append(
            Goal(
                f"{method}: within a point",
                worst <= GOAL_ERROR_RATIO,
                figure,
                stretch=not READ_METHODS.get(method, True),
            )
        )
    return against


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    begun = time.monotonic()
    found = measure(list(READ_METHODS), options.seeds)
    against = goals(found)
    print(_render_table(found))
    print()
    print("\n".join(map(str, against)))
    path = write(
        "accuracy",
        {
            "window_seconds": WINDOW_SECONDS,
            "scrape_seconds": SCRAPE_SECONDS,
            "scrape_jitter_seconds": SCRAPE_JITTER,
            "seeds": options.seeds,
            "error_ratio": {
                str(method): {name: figures(errors) for name, errors in loads.items()}
                for method, loads in found.items()
            },
            "goals": [vars(goal) for goal in against],
        },
        options.results,
    )
    print(f"\n{time.monotonic() - begun:.0f} s; written: {path}")
    return 1 if missed_goals(against) else 0


def _render_table(found: Mapping[ReadMethod, Mapping[str, Sequence[Errors]]]) -> str:
    rows = [
        [
            "errors in percentage points: p50 / p95 / max",
            "counter",
            "gauge, avg_over_time",
            "counter and window's edges",
        ]
    ]
    for method, loads in found.items():
        rows.append([str(method), "", "", ""])
        for name, errors in loads.items():
            kinds = figures(errors).values()
            rows.append(
                [f"  {name}", *(" / ".join(f"{100 * value:5.2f}" for value in each.values()) for each in kinds)]
            )
    return table(rows)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    def count(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError("at least 1")
        return int(text)

    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=count, default=60, help="windows of each load; default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of accuracy.json; default: %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
