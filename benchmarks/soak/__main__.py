"""Do exporter and advisor leak, or lose anything, under faults?

    python -m benchmarks.soak --minutes 60

The exporter reads a simulated NVML with 8 GPUs, which are lost, hang, are reloaded, and so on; the advisor reads it
through a Prometheus, sends to an Alertmanager, and leases GPUs. Four scrapers, probes of the advisor and clients that
lease run all the time, while the Prometheus is killed, the Alertmanager flaps, the disk of both is full, and 200 slow
clients come to each. In the end both are killed, and must know what they knew. As root it runs in a mount namespace of
its own, in which the disk is a small tmpfs; else the disk is never full. Exits with 1 if a goal is missed, with 2 if
the run failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.allocation_clients import PATH
from benchmarks.common import RESULTS, Goal, missed_goals, percentile, write
from benchmarks.soak.gpu_faults import CALM_SECONDS as GPU_CALM_SECONDS
from benchmarks.soak.gpu_faults import GPUS, FaultyMachine
from benchmarks.soak.load import Load, lease_violations
from benchmarks.soak.processes import NotReadyError
from benchmarks.soak.samples import WARM_UP_SHARE, ProcessSample, growth, sample
from benchmarks.soak.samples import goals as growth_goals
from benchmarks.soak.stack import Stack, running
from benchmarks.soak.stack_faults import CALM_SECONDS, stack_faults
from benchmarks.soak.state import advisor_state, exporter_page, knowledge, known_gpus, lost, missing_alerts
from benchmarks.soak.static_server import static_server
from tests.simulated_nvml.build import NoCompilerError

SAMPLE_SECONDS = 10.0
MIN_MINUTES = 5.0
RECOVERY_SECONDS = 60.0
SLOW_SECONDS = 1.0
IN_NAMESPACE = "GPU_ADVISOR_SOAK_IN_NAMESPACE"


@dataclass
class Run:
    """What happened."""

    samples: dict[str, list[ProcessSample]] = field(default_factory=lambda: {"exporter": [], "advisor": []})
    gpu_faults: Counter[str] = field(default_factory=Counter)
    stack_faults: Counter[str] = field(default_factory=Counter)
    recovered: int = 0
    problems: list[str] = field(default_factory=list)
    """What was lost, doubled or not recovered from."""

    log_bytes: dict[str, int] = field(default_factory=dict)
    lease_requests: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    _enter_namespace()
    try:
        with tempfile.TemporaryDirectory() as folder, static_server() as static:
            run, load = soak(Path(folder), static, 60 * options.minutes, options.seed)
    except (NotReadyError, NoCompilerError) as error:
        print(f"benchmarks.soak: {error}", file=sys.stderr)
        return 2
    against = goals(run, load)
    print("\n".join(map(str, against)))
    print("\n".join(run.problems[:20]))
    path = write("soak", _document(run, load, against, options), options.results)
    print(f"\nwritten: {path}")
    return 1 if missed_goals(against) else 0


def _enter_namespace() -> None:
    """Run again where a mount is gone with this process."""
    unshare = shutil.which("unshare")
    if os.geteuid() or unshare is None or os.environ.get(IN_NAMESPACE):
        return
    command = [unshare, "--mount", "--propagation", "private"]
    if subprocess.run([*command, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        return
    os.environ[IN_NAMESPACE] = "1"
    os.execv(unshare, [*command, sys.executable, "-m", "benchmarks.soak", *sys.argv[1:]])


def soak(folder: Path, static: tuple[str, int], seconds: float, seed: int) -> tuple[Run, Load]:
    run, stop = Run(), threading.Event()
    machine = FaultyMachine(folder, seed)
    with running(folder, machine.path) as stack:
        load = Load(stack, static)
        begun = time.monotonic()
        threads = [
            threading.Thread(target=_inject_gpu_faults, args=(machine, stop)),
            threading.Thread(target=_inject_stack_faults, args=(stack, seed, stop, run)),
        ]
        load.start()
        for thread in threads:
            thread.start()
        try:
            at = WARM_UP_SHARE * seconds
            while at <= seconds and all(program.runs for program in stack.under_test.values()):
                stop.wait(max(0.0, begun + at - time.monotonic()))
                for name, program in stack.under_test.items():
                    run.samples[name].append(sample(program.pid, at))
                at += SAMPLE_SECONDS
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            load.stop()
        run.gpu_faults = machine.caused
        run.problems += [f"the {name} ended" for name, program in stack.under_test.items() if not program.runs]
        if not run.problems:
            _compare_across_kills(stack, run)
        history = load.lease_history()
        run.lease_requests = len(history)
        run.problems += [*load.lease_failures, *lease_violations(history)]
        run.log_bytes = {name: program.log.stat().st_size for name, program in stack.under_test.items()}
    return run, load


def _inject_gpu_faults(machine: FaultyMachine, stop: threading.Event) -> None:
    while not stop.is_set():
        fault = machine.next_fault()
        stop.wait(fault.seconds)
        machine.heal()
        stop.wait(GPU_CALM_SECONDS)


def _inject_stack_faults(stack: Stack, seed: int, stop: threading.Event, run: Run) -> None:
    for fault in stack_faults(stack, seed, run.stack_faults):
        try:
            fault.during(stack, stop, fault.seconds)
        except NotReadyError as error:
            run.problems.append(str(error))
        if problem := _recover(stack):
            run.problems.append(f"after {fault.name}: {problem}")
        else:
            run.recovered += 1
        if stop.wait(CALM_SECONDS):
            return


def _recover(stack: Stack) -> str:
    """Wait until the fault no longer shows in anything; else where it does."""

    def remaining() -> str:
        state = advisor_state(stack)
        if not state.healthy:
            return "the advisor's source or Alertmanager is down, or its view is stale"
        if missing := missing_alerts(stack, state):
            return f"no alerts of {', '.join(sorted(missing))}"
        uuids = known_gpus(exporter_page(stack))
        if len(uuids) != GPUS or len(set(uuids)) != GPUS:
            return f"the exporter knows {len(uuids)} GPUs instead of {GPUS}"
        return ""

    return _poll(remaining)


def _poll(remaining: Callable[[], str]) -> str:
    """What remains after RECOVERY_SECONDS; empty as soon as nothing does."""
    deadline, found = time.monotonic() + RECOVERY_SECONDS, ""
    while time.monotonic() < deadline:
        try:
            found = remaining()
        except OSError as error:
            found = str(error)
        if not found:
            return ""
        time.sleep(1)
    return found


def _compare_across_kills(stack: Stack, run: Run) -> None:
    """Kill exporter and advisor: what they knew, they know again."""
    made = [stack.advisor.request("POST", f"{PATH}/allocate", {"gpu_count": 1, "lease_seconds": 600}) for _ in range(3)]
    run.problems += [f"no GPU is leased in the end: {body!r}" for status, body in made if status != http.client.OK]
    leases = {json.loads(body)["id"] for status, body in made if status == http.client.OK}
    if problem := _recover(stack):
        run.problems.append(f"in the end: {problem}")
        return
    before = knowledge(stack)
    for program in stack.under_test.values():
        program.kill()
        program.start()
    if problem := _recover(stack):
        run.problems.append(f"after both were killed: {problem}")
        return
    run.problems += lost(before, knowledge(stack), leases)


def goals(run: Run, load: Load) -> list[Goal]:
    found: list[Goal] = []
    for name, samples in run.samples.items():
        found += growth_goals(name, growth(samples), run.log_bytes.get(name, 0))
    for what, log in (("scrape of the exporter", load.scrapes), ("probe of the advisor", load.probes)):
        count = len(log.seconds) + log.failures.total()
        found.append(Goal(f"no {what} failed", not log.failures, f"{log.failures.total()} of {count}"))
        limit = load.static_scrapes.slowest + SLOW_SECONDS
        found.append(
            Goal(
                f"no {what} took {SLOW_SECONDS:.0f} s longer than the slowest answer of a static server",
                log.slowest < limit,
                f"{log.slowest:.2f} s, static {load.static_scrapes.slowest:.2f} s",
            )
        )
    faults = run.stack_faults.total()
    found.append(
        Goal("nothing lost, nothing doubled", not run.problems, f"{len(run.problems)} in {run.lease_requests} requests")
    )
    found.append(Goal("recovered from each fault", run.recovered == faults, f"{run.recovered} of {faults}"))
    found.append(Goal("the disk was full", "disk full" in run.stack_faults, f"{run.stack_faults['disk full']} times"))
    return found


def _document(run: Run, load: Load, against: list[Goal], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "minutes": options.minutes,
        "seed": options.seed,
        "gpu_faults": dict(run.gpu_faults),
        "stack_faults": dict(run.stack_faults),
        "growth": {name: asdict(growth(samples)) for name, samples in run.samples.items()},
        "log_bytes": run.log_bytes,
        "requests": {
            name: {
                "answered": len(log.seconds),
                "failures": dict(log.failures),
                "p50_seconds": round(percentile(log.seconds, 0.5), 4),
                "p99_seconds": round(percentile(log.seconds, 0.99), 4),
                "max_seconds": round(log.slowest, 4),
            }
            for name, log in (
                ("scrapes", load.scrapes),
                ("static server", load.static_scrapes),
                ("probes of the advisor", load.probes),
            )
        },
        "lease_requests": run.lease_requests,
        "problems": run.problems,
        "goals": [vars(goal) for goal in against],
        "samples": {name: [list(asdict(each).values()) for each in samples] for name, samples in run.samples.items()},
    }  # fmt: skip


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    def minutes(text: str) -> float:
        value = float(text)
        if value < MIN_MINUTES:
            raise argparse.ArgumentTypeError(f"a run of less than {MIN_MINUTES:.0f} minutes shows no leak")
        return value

    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=minutes, default=60.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the faults; default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of soak.json; default: %(default)s")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
