"""The cost of a scrape of gpu-exporter, beside nvitop-exporter and node_exporter on the same machine.

    python -m benchmarks.exporter

The GPU exporters read the same simulated NVML with 8 GPUs; its calls are almost free, so the figures are the exporters'
own costs. gpu-exporter and node_exporter have their default collectors. The servers alternate by round, so that noise
affects all alike; a figure is the median over the rounds. Of the ratios to node_exporter, the lowest of a round counts,
too. Goals are ratios. Exits with 1 if a goal is missed, with 2 if a peer is not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.common import Goal, missed_goals, percentile, table, write
from benchmarks.scraping import BenchmarkScraper, fetch_page, scrape_concurrently, scrape_once, time_scrapes
from benchmarks.server_processes import NotReadyError, ServerProcess, free_port, run_server
from tests.simulated_nvml.build import CONTROL_VARIABLE, NoCompilerError, build
from tests.simulated_nvml.control import Control, SimulatedGpu

OURS, NVITOP, NODE = "gpu-exporter", "nvitop-exporter", "node_exporter"

GPUS = 8
NODE_BINARIES = ("prometheus-node-exporter", "node_exporter")

#: A server may still be working when the scraper has the whole response.
SETTLE_SECONDS = 0.02

Figures = dict[str, float]


class PeerMissingError(Exception):
    """A peer is not installed; the message says how to install it."""


@dataclass(frozen=True)
class MeasurementPlan:
    """How much to measure, per round and server."""

    rounds: int = 7
    scrapes: int = 200  # in a block, over a connection that is kept and over fresh ones
    spaced: int = 6  # a second apart; may be none
    scrapers: int = 16
    scrapes_per_scraper: int = 10
    idle_seconds: float = 4.0
    warmup: int = 50


@dataclass(frozen=True)
class ResultLine:
    """One row of the table. `scale` converts the figure to the unit of the title."""

    figure: str
    title: str
    scale: float = 1
    digits: int = 2


KINDS = {
    "spaced": "one scrape a second",
    "kept": "scrapes in a row, kept connection",
    "fresh": "scrapes in a row, fresh connections",
    "plain": "the same, not compressed",
}
RESULT_LINES = (
    ResultLine("spaced_p50_seconds", f"{KINDS['spaced']}, p50, ms", 1e3),
    ResultLine("spaced_cpu_seconds", "  CPU a scrape, ms", 1e3),
    *(
        line
        for kind in ("kept", "fresh", "plain")
        for line in (
            ResultLine(f"{kind}_p50_seconds", f"{KINDS[kind]}, p50, ms", 1e3),
            ResultLine(f"{kind}_p90_seconds", "  p90, ms", 1e3),
            ResultLine(f"{kind}_p99_seconds", "  p99, ms", 1e3),
            ResultLine(f"{kind}_cpu_seconds", "  CPU a scrape, ms", 1e3),
        )
    ),
    ResultLine("concurrent_p50_seconds", f"{MeasurementPlan.scrapers} scrapers at once, p50, ms", 1e3),
    ResultLine("concurrent_p99_seconds", "  p99, ms", 1e3),
    ResultLine("concurrent_failures", "  failures", 1, 0),
    ResultLine("idle_cpu_ratio", "CPU without scrapes, % of a core", 100),
    ResultLine("rss_bytes", "resident memory after all, MiB", 2**-20, 1),
    ResultLine("threads", "threads", 1, 0),
    ResultLine("page_bytes", "page as sent, KiB", 2**-10, 1),
    ResultLine("series", "series", 1, 0),
    ResultLine("gpu_families", "GPU families", 1, 0),
)


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    plan = MeasurementPlan(rounds=options.rounds, scrapes=options.scrapes)
    try:
        with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as running:
            figures = measure(running, plan)
    except (PeerMissingError, NotReadyError, NoCompilerError) as error:
        print(f"benchmarks.exporter: {error}", file=sys.stderr)
        return 2
    against = goals(figures)
    print(_render_table(figures))
    print()
    print("\n".join(map(str, against)))
    path = write(
        "exporter",
        {
            "versions": versions(),
            "plan": vars(plan),
            "figures": figures,
            "ratios": {peer: ratios(figures, peer) for peer in (NVITOP, NODE)},
            "goals": [vars(goal) for goal in against],
        },
        options.results,
    )
    print(f"\nwritten to {path}")
    for goal in missed_goals(against):
        print(f"goal missed: {goal.text} ({goal.figure})", file=sys.stderr)
    return 1 if missed_goals(against) else 0


@contextmanager
def servers(folder: Path) -> Iterator[list[ServerProcess]]:
    """Run the three exporters, each on a free port. Raises PeerMissingError, NotReadyError or NoCompilerError."""
    node = node_exporter()
    _require_nvitop()
    library = build(folder)
    control = Control(folder / "control", gpus=[SimulatedGpu(level=100.0 * i / GPUS) for i in range(GPUS)])
    control.write()
    simulated = {"LD_LIBRARY_PATH": str(library.parent), CONTROL_VARIABLE: str(control.path)}
    python = sys.executable
    ours, nvitop, nodes = (free_port() for _ in range(3))
    commands: dict[str, tuple[list[str], int, dict[str, str]]] = {
        OURS: ([python, "-m", "gpu_exporter", f"--web.listen-address=127.0.0.1:{ours}"], ours, simulated),
        NVITOP: (
            [python, "-m", "nvitop_exporter", f"--port={nvitop}", "--interval=1", "--hostname=localhost"],
            nvitop,
            simulated,
        ),
        NODE: (
            [
                node,
                f"--web.listen-address=127.0.0.1:{nodes}",
            ],
            nodes,
            {},
        ),
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(run_server(name, command, port, folder / f"{name}.log", environment))
            for name, (command, port, environment) in commands.items()
        ]


def node_exporter() -> str:
    """Return the path of node_exporter. Raises PeerMissingError."""
    found = next(filter(None, map(shutil.which, NODE_BINARIES)), None)
    if found is None:
        raise PeerMissingError("node_exporter is not on PATH; on Debian: apt-get install prometheus-node-exporter")
    return found


def _require_nvitop() -> None:
    try:
        importlib.metadata.version("nvitop-exporter")
    except importlib.metadata.PackageNotFoundError as error:
        raise PeerMissingError("nvitop-exporter is not installed: pip install -e '.[bench]'") from error


def measure(running: Sequence[ServerProcess], plan: MeasurementPlan) -> dict[str, Figures]:
    """Return the figures of each server by name: medians over the rounds.

    Those of ours also have `<figure>_times_lowest`: the lowest ratio of node_exporter's figure to ours in a round.
    """
    for server in running:
        time_scrapes(partial(scrape_once, server.address), plan.warmup)
    rounds: dict[str, list[Figures]] = {server.name: [] for server in running}
    for number in range(plan.rounds):
        print(f"round {number + 1} of {plan.rounds}", file=sys.stderr)
        found: dict[str, Figures] = {server.name: {} for server in running}
        idle = _measure_idle(running, plan.idle_seconds)
        for name, ratio in idle.items():
            found[name]["idle_cpu_ratio"] = ratio
        if plan.spaced:
            for name, figures in _measure_spaced(running, plan.spaced).items():
                found[name].update(figures)
        # Nobody is always the first, or always after the same.
        for kind in ("kept", "fresh", "plain"):
            for server in _rotate(running, number):
                found[server.name].update(_measure_burst(server, kind, plan.scrapes, idle[server.name]))
        for server in _rotate(running, number):
            found[server.name].update(_measure_concurrent(server, plan))
        for name, figures in found.items():
            rounds[name].append(figures)
    found = {server.name: {**_medians(rounds[server.name]), **_state(server)} for server in running}
    for kind in KINDS:
        figure = f"{kind}_p50_seconds"
        pairs = zip(rounds[NODE], rounds[OURS], strict=True)
        ratios_by_round = [theirs[figure] / ours[figure] for theirs, ours in pairs if figure in ours]
        if ratios_by_round:
            found[OURS][f"{figure}_times_lowest"] = min(ratios_by_round)
    return found


def _rotate(running: Sequence[ServerProcess], by: int) -> list[ServerProcess]:
    by %= len(running)
    return [*running[by:], *running[:by]]


def _medians(rounds: Sequence[Figures]) -> Figures:
    found = {figure: median(figures[figure] for figures in rounds) for figure in rounds[0]}
    found["concurrent_failures"] = sum(figures["concurrent_failures"] for figures in rounds)
    return found


def _measure_idle(running: Sequence[ServerProcess], seconds: float) -> dict[str, float]:
    """Return the share of a core that each server uses without scrapes, over the same time."""
    before = [server.cpu_seconds() for server in running]
    begun = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begun
    return {server.name: (server.cpu_seconds() - used) / elapsed for server, used in zip(running, before, strict=True)}


def _measure_spaced(running: Sequence[ServerProcess], count: int) -> dict[str, Figures]:
    """One scrape of each a second: each finds new values, a cold processor cache and, in gpu-exporter, no ready page.

    Half way between two readings of gpu-exporter, which reads when the second begins; the others read when they like.
    """
    scrapers = {server.name: BenchmarkScraper(server.address) for server in running}
    took: dict[str, list[float]] = {server.name: [] for server in running}
    used: dict[str, list[float]] = {server.name: [] for server in running}
    for number in range(count):
        time.sleep(1.4 - time.time() % 1)
        for server in _rotate(running, number):
            before = server.cpu_seconds()
            took[server.name] += time_scrapes(scrapers[server.name].scrape, 1)
            time.sleep(SETTLE_SECONDS)
            used[server.name].append(server.cpu_seconds() - before)
    for scraper in scrapers.values():
        scraper.close()
    return {
        server.name: {
            "spaced_p50_seconds": median(took[server.name]),
            "spaced_cpu_seconds": median(used[server.name]),
        }
        for server in running
    }


def _measure_burst(server: ServerProcess, kind: str, scrapes: int, idle_ratio: float) -> Figures:
    """Time consecutive scrapes, over one kept connection where the server allows it, or over a new one each."""
    scraper = BenchmarkScraper(server.address, compressed=kind != "plain")

    def scrape_new_connection() -> bytes:
        scraper.close()
        return scraper.scrape()

    before, begun = server.cpu_seconds(), time.monotonic()
    took = time_scrapes(scraper.scrape if kind == "kept" else scrape_new_connection, scrapes)
    time.sleep(SETTLE_SECONDS)
    used = server.cpu_seconds() - before - idle_ratio * (time.monotonic() - begun)
    scraper.close()
    return {
        f"{kind}_p50_seconds": median(took),
        f"{kind}_p90_seconds": percentile(took, 0.90),
        f"{kind}_p99_seconds": percentile(took, 0.99),
        f"{kind}_cpu_seconds": used / scrapes,
    }


def _measure_concurrent(server: ServerProcess, plan: MeasurementPlan) -> Figures:
    took, failures = scrape_concurrently(server.address, plan.scrapers, plan.scrapes_per_scraper)
    return {
        "concurrent_p50_seconds": median(took),
        "concurrent_p99_seconds": percentile(took, 0.99),
        "concurrent_failures": failures,
    }


def _state(server: ServerProcess) -> Figures:
    lines = fetch_page(server.address).splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    return {
        "rss_bytes": server.rss_bytes(),
        "threads": server.threads(),
        "page_bytes": len(scrape_once(server.address)),
        "series": sum(bool(line) and not line.startswith("#") for line in lines),
        "gpu_families": sum(family.startswith("gpu_") and "exporter" not in family for family in families),
    }


def ratios(figures: Mapping[str, Figures], peer: str) -> Figures:
    """Return the peer's figures as multiples of ours (above 1: ours is smaller), without those where ours is 0."""
    ours = figures[OURS]
    return {figure: value / ours[figure] for figure, value in figures[peer].items() if ours[figure]}


def goals(figures: Mapping[str, Figures]) -> list[Goal]:
    nvitop, node = ratios(figures, NVITOP), ratios(figures, NODE)

    def times(text: str, ratio: float, least: float, stretch: bool = False) -> Goal:
        return Goal(text, ratio >= least, f"{ratio:.2f}x", stretch)

    found = []
    for kind, title in KINDS.items():
        p50, cpu = f"{kind}_p50_seconds", f"{kind}_cpu_seconds"
        found += [
            times(f"{title}: p50 at least 3x faster than {NVITOP}", nvitop[p50], 3),
            times(f"{title}: p50 at least 2.5x faster than {NODE}", node[p50], 2.5),
            times(
                f"{title}: p50 at least 2x faster than {NODE} in each round", figures[OURS][f"{p50}_times_lowest"], 2
            ),
            times(f"{title}: p50 at least 4x faster than {NVITOP}", nvitop[p50], 4, stretch=True),
            times(f"{title}: CPU at least 6x less than {NVITOP}", nvitop[cpu], 6, stretch=True),
        ]
    return [
        *found,
        Goal(
            f"{MeasurementPlan.scrapers} scrapers at once: none fails",
            not figures[OURS]["concurrent_failures"],
            f"{figures[OURS]['concurrent_failures']:.0f} failed",
        ),
        times(
            f"{MeasurementPlan.scrapers} scrapers at once: p99 at most {NODE}'s",
            node["concurrent_p99_seconds"],
            1,
            stretch=True,
        ),
        times(f"CPU without scrapes: at most half of {NVITOP}'s", nvitop["idle_cpu_ratio"], 2),
        times(f"resident memory: at most {NVITOP}'s", nvitop["rss_bytes"], 1),
    ]


def versions() -> dict[str, str]:
    reported = subprocess.run([node_exporter(), "--version"], capture_output=True, text=True, check=True)
    packages = ("gpu-advisor", "nvitop-exporter", "nvitop", "nvidia-ml-py", "prometheus-client")
    return {
        **{package: importlib.metadata.version(package) for package in packages},
        NODE: (reported.stdout or reported.stderr).splitlines()[0].removeprefix("node_exporter, version "),
    }


def _render_table(figures: Mapping[str, Figures]) -> str:
    columns = [figures[name] for name in (OURS, NVITOP, NODE)]
    times = [ratios(figures, peer) for peer in (NVITOP, NODE)]
    rows = [["", OURS, NVITOP, NODE, f"{NVITOP} / ours", f"{NODE} / ours"]]
    for line in RESULT_LINES:
        cells = [f"{line.scale * column[line.figure]:.{line.digits}f}" for column in columns]
        shown = [f"{ratio[line.figure]:.2f}x" if line.figure in ratio else "" for ratio in times]
        rows.append([line.title, *cells, *shown])
    return table(rows)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exporter", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=MeasurementPlan.rounds, help="default: %(default)s")
    parser.add_argument("--scrapes", type=int, default=MeasurementPlan.scrapes, help="in a block; default: %(default)s")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).with_name("results"),
        help="folder of exporter.json; default: results/ beside this file",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
