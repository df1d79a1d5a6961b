"""Does the exporter leak? Hours of scrapes and faults, with its memory, threads and file descriptors.

    python -m benchmarks.soak --minutes 60

The exporter reads the simulated NVML with 8 GPUs under 4 scrapers, while faults come and go: a GPU is lost, a call
hangs, the driver is reloaded, values are garbage, MIG is switched, thousands of processes appear, errors are reported.
Each round has all kinds of fault in random order, so that each quarter of the run has the same ones; rounds alternate
between two GPUs. The first two rounds warm up: everything that can be published then has been, and buffers and caches
have their size. The last quarter is compared with the first. Exits with 1 if a goal is missed, with 2 if the run
failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.common import RESULTS, Goal, missed_goals, percentile, table, write
from benchmarks.scraping import BenchmarkScraper, ScrapeError, fetch_page, scrape_once
from benchmarks.server_processes import NotReadyError, ServerProcess, free_port, run_server
from tests.simulated_nvml.build import CONTROL_VARIABLE, NoCompilerError, build
from tests.simulated_nvml.control import ALL_ONES_32, UNKNOWN, Control, SimulatedGpu, SimulatedMigInstance

GPUS = 8
VICTIMS = (2, 5)
SCRAPERS = 4
SCRAPE_SECONDS = 0.25
SAMPLE_SECONDS = 10.0
MIN_MINUTES = 5.0

RSS_GROWTH = 0.02
SLOW_SECONDS = 1.0
"""A scrape waits for no driver: even on a busy machine it never takes this long."""

XIDS = (13, 31, 43, 48, 63, 79, 94)


@dataclass(frozen=True)
class Fault:
    """A temporary fault of the machine."""

    name: str
    seconds: float
    inject: Callable[[Control, SimulatedGpu, random.Random], None]
    """Changes the machine, one of its GPUs, or either at random."""


def _lost(_control: Control, gpu: SimulatedGpu, _chance: random.Random) -> None:
    gpu.lost = True


def _all_lost(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    for each in control.gpus:
        each.lost = True


def _hang(_control: Control, gpu: SimulatedGpu, chance: random.Random) -> None:
    # Longer than the exporter's time limit of 5 s, so that it reports a hang.
    function = chance.choice(("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage"))
    gpu.hang = {function: 7.0}


def _reload(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    control.loads += 1


def _unload(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    control.loaded = False


def _garbage(_control: Control, gpu: SimulatedGpu, chance: random.Random) -> None:
    gpu.raw = {
        "nvmlDeviceGetTemperature": ALL_ONES_32,
        "nvmlDeviceGetPowerUsage": ALL_ONES_32,
        "nvmlDeviceGetUtilizationRates": chance.randint(101, ALL_ONES_32),
        "nvmlDeviceGetSamples": chance.randint(101, ALL_ONES_32),
    }
    gpu.errors = {"nvmlDeviceGetFanSpeed": UNKNOWN}


def _mig(_control: Control, gpu: SimulatedGpu, _chance: random.Random) -> None:
    gpu.mig = True
    gpu.instances = [SimulatedMigInstance(profile="1g.10gb", gpu_instance=place, processes=1) for place in range(7)]


def _many_processes(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    for each in control.gpus:
        each.processes = 2000


def _remove_gpus(control: Control, gpu: SimulatedGpu, _chance: random.Random) -> None:
    del control.gpus[control.gpus.index(gpu) :]


def _xids(control: Control, gpu: SimulatedGpu, chance: random.Random) -> None:
    control.xids.append((control.gpus.index(gpu), chance.choice(XIDS)))


FAULTS = (
    Fault("lost", 6, _lost),
    Fault("all lost", 4, _all_lost),
    Fault("hang", 9, _hang),
    Fault("reload", 3, _reload),
    Fault("unload", 5, _unload),
    Fault("garbage", 5, _garbage),
    Fault("mig", 7, _mig),
    Fault("storm", 7, _many_processes),
    Fault("fewer GPUs", 4, _remove_gpus),
    Fault("xid", 1, _xids),
)
CALM_SECONDS = 0.9
WARM_UP_SECONDS = len(VICTIMS) * sum(fault.seconds + CALM_SECONDS for fault in FAULTS)


@dataclass(frozen=True)
class ProcessSample:
    at: float  # seconds since the start
    rss: float  # bytes
    threads: int
    descriptors: int
    up: int  # GPUs


@dataclass
class ScrapeLog:
    """Results of all scrapers."""

    durations: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


class FaultyMachine:
    """The simulated machine, healthy except for one fault at a time."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._control = Control(folder / "control")
        self._left: list[Fault] = []
        self._rounds = 0
        self.caused: Counter[str] = Counter()
        self.heal()

    @property
    def path(self) -> Path:
        return self._control.path

    def heal(self) -> None:
        self._control.gpus = [
            SimulatedGpu(level=100.0 * i / GPUS, period=1.0, duty=0.5, processes=2) for i in range(GPUS)
        ]
        self._control.loaded = True
        self._control.write()

    def next_fault(self) -> Fault:
        """Cause the next fault of this round."""
        if not self._left:
            self._left = list(FAULTS)
            self._chance.shuffle(self._left)
            self._rounds += 1
        fault = self._left.pop()
        fault.inject(self._control, self._control.gpus[VICTIMS[self._rounds % len(VICTIMS)]], self._chance)
        self._control.write()
        self.caused[fault.name] += 1
        return fault


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            samples, scrapes, machine, seen = run(Path(folder), 60 * options.minutes, options.seed)
    except (NotReadyError, NoCompilerError) as error:
        print(f"benchmarks.soak: {error}", file=sys.stderr)
        return 2
    figures = summary(samples, scrapes)
    against = goals(figures, seen)
    print(_render_table(samples))
    print()
    print("\n".join(map(str, against)))
    path = write(
        "soak",
        {
            "minutes": options.minutes,
            "seed": options.seed,
            "faults": dict(machine.caused),
            "seen": sorted(seen),
            "figures": figures,
            "goals": [vars(goal) for goal in against],
            "samples": [vars(sample) for sample in samples],
        },
        options.results,
    )
    print(f"\nwritten: {path}")
    return 1 if missed_goals(against) else 0


def run(folder: Path, seconds: float, seed: int) -> tuple[list[ProcessSample], ScrapeLog, FaultyMachine, set[str]]:
    """Sample the exporter after the warm-up; return the samples, and the observed reasons of down GPUs."""
    library = build(folder)
    machine = FaultyMachine(folder, seed)
    port = free_port()
    command = [sys.executable, "-m", "gpu_exporter", f"--web.listen-address=127.0.0.1:{port}"]
    environment = {
        "LD_LIBRARY_PATH": str(library.parent),
        CONTROL_VARIABLE: str(machine.path),
        "MALLOC_ARENA_MAX": "2",  # as the unit and the image set it
    }
    stop = threading.Event()
    scrapes, seen = ScrapeLog(), set[str]()
    with run_server("gpu-exporter", command, port, folder / "log", environment) as server:
        begun = time.monotonic()
        helpers = [
            threading.Thread(target=_scrape, args=(server.address, scrapes, stop, bool(i % 2))) for i in range(SCRAPERS)
        ]
        helpers.append(threading.Thread(target=_inject_faults, args=(machine, stop)))
        for helper in helpers:
            helper.start()
        samples = []
        try:
            at = WARM_UP_SECONDS
            while at <= seconds and server.process.poll() is None:
                stop.wait(max(0.0, begun + at - time.monotonic()))
                page = _page(server.address)
                samples.append(_sample(server, at, len(_UP.findall(page))))
                seen |= set(_DOWN.findall(page))
                at += SAMPLE_SECONDS
        finally:
            stop.set()
            for helper in helpers:
                helper.join()
        if server.process.poll() is not None:
            scrapes.failures["the exporter ended"] += 1
    return samples, scrapes, machine, seen


def _inject_faults(machine: FaultyMachine, stop: threading.Event) -> None:
    while not stop.is_set():
        fault = machine.next_fault()
        stop.wait(fault.seconds)
        machine.heal()
        stop.wait(CALM_SECONDS)


def _scrape(address: tuple[str, int], scrapes: ScrapeLog, stop: threading.Event, keep: bool) -> None:
    """Scrape; half of the scrapers keep their connection, half open a new one each time."""
    kept = BenchmarkScraper(address)
    while not stop.wait(SCRAPE_SECONDS):
        begun = time.perf_counter()
        try:
            page = kept.scrape() if keep else scrape_once(address)
        except (OSError, ScrapeError) as error:
            scrapes.failures[f"{type(error).__name__}: {error}"] += 1
            continue
        scrapes.durations.append(time.perf_counter() - begun)
        if not page:
            scrapes.failures["empty page"] += 1
    kept.close()


_UP = re.compile(r'^gpu_up\{uuid="GPU-[^"]*"\} 1$', re.MULTILINE)
_DOWN = re.compile(r'^gpu_down_info\{.*reason="(\w+)"\} 1$', re.MULTILINE)


def _page(address: tuple[str, int]) -> str:
    try:
        return fetch_page(address)
    except (OSError, ScrapeError):
        return ""  # the scrapers count failures


def _sample(server: ServerProcess, at: float, up: int) -> ProcessSample:
    descriptors = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    return ProcessSample(at, server.rss_bytes(), server.threads(), descriptors, up)


def summary(samples: Sequence[ProcessSample], scrapes: ScrapeLog) -> dict[str, float]:
    """Summarize the first and the last quarter of at least 8 samples.

    Memory is compared by its median. Threads and descriptors vary with faults and connections, but a leak never goes
    away: they are compared by their minimum while there are GPUs (without a driver there is no event thread).
    """
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]
    return {
        "rss_first_quarter_bytes": median(sample.rss for sample in first),
        "rss_last_quarter_bytes": median(sample.rss for sample in last),
        "threads_first_quarter": min(sample.threads for sample in first if sample.up),
        "threads_last_quarter": min(sample.threads for sample in last if sample.up),
        "descriptors_first_quarter": min(sample.descriptors for sample in first if sample.up),
        "descriptors_last_quarter": min(sample.descriptors for sample in last if sample.up),
        "most_up_last_quarter": max(sample.up for sample in last),
        "fewest_up_last_quarter": min(sample.up for sample in last),
        "scrapes": len(scrapes.durations),
        "scrape_failures": scrapes.failures.total(),
        "scrape_p50_seconds": median(scrapes.durations),
        "scrape_p99_seconds": percentile(scrapes.durations, 0.99),
        "scrape_max_seconds": max(scrapes.durations),
    }


def goals(figures: Mapping[str, float], seen: set[str]) -> list[Goal]:
    growth = figures["rss_last_quarter_bytes"] / figures["rss_first_quarter_bytes"] - 1
    found = [
        Goal(
            f"memory of the last quarter at most {RSS_GROWTH:.0%} above the first",
            growth <= RSS_GROWTH,
            f"{growth:+.2%}",
        )
    ]
    for what in ("threads", "descriptors"):
        before, after = figures[f"{what}_first_quarter"], figures[f"{what}_last_quarter"]
        found.append(Goal(f"no growth of {what}", after <= before, f"{before:.0f} -> {after:.0f}"))
    failures, slowest = figures["scrape_failures"], figures["scrape_max_seconds"]
    found.append(Goal("no scrape failed", failures == 0, f"{failures:.0f} of {figures['scrapes']:.0f}"))
    found.append(
        Goal(f"no scrape took {SLOW_SECONDS:.0f} s", slowest < SLOW_SECONDS, f"slowest {1000 * slowest:.0f} ms")
    )
    # Faults that the exporter never met would prove nothing.
    missing = {"lost", "hung", "driver_gone"} - seen
    found.append(Goal("the faults were seen", not missing, f"not seen: {', '.join(sorted(missing)) or 'none'}"))
    fewest, most = figures["fewest_up_last_quarter"], figures["most_up_last_quarter"]
    recovers = most == GPUS and fewest < GPUS
    found.append(Goal("and recovered from, to the end", recovers, f"{fewest:.0f} to {most:.0f} of {GPUS} GPUs up"))
    return found


def _render_table(samples: Sequence[ProcessSample]) -> str:
    quarter = len(samples) // 4
    rows = [["quarter of the run", "RSS, MiB: median", "min", "max", "threads", "descriptors"]]
    for number in range(4):
        part = samples[number * quarter : (number + 1) * quarter] if number < 3 else samples[-quarter:]
        rss = [sample.rss / 2**20 for sample in part]
        rows.append(
            [
                str(number + 1),
                f"{median(rss):.2f}",
                f"{min(rss):.2f}",
                f"{max(rss):.2f}",
                _range([sample.threads for sample in part]),
                _range([sample.descriptors for sample in part]),
            ]
        )
    return table(rows)


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}-{max(counts)}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    def minutes(text: str) -> float:
        value = float(text)
        if value < MIN_MINUTES:
            raise argparse.ArgumentTypeError(f"a run of less than {MIN_MINUTES:.0f} minutes tells nothing")
        return value

    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=minutes, default=60.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the faults; default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of soak.json; default: %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
