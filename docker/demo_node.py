"""A simulated node of `--profile demo`: writes its history for Prometheus, then runs the exporter.

    demo_node.py FOLDER EXPORTER-ARGUMENT...

Without history, recommendations on idle GPUs would take half an hour. The history is written to FOLDER/NODE.om in the
OpenMetrics format; the service `demo-past`, which is another user of the group that owns FOLDER, imports it.

Two of the simulated jobs report their steps, as with the training monitor: in the history, and every five seconds
through the exporter's textfile directory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpu_exporter.devices.simulated import COUNTER_START_SECONDS, parse_fleet

HISTORY_SECONDS, STEP_SECONDS, REPORT_SECONDS = 3600, 15, 5
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

#: Jobs with the training monitor: a healthy one, and one that waits for its data. Samples per rank and second.
REPORTING = {"train": 1050.0, "data-bound": 450.0}
#: Of the time in which a GPU runs no kernels, the share in which its job waits for data.
WAIT_RATIO = 0.9


def add_target_labels(line: str, target: str) -> str:
    """An OpenMetrics line with `target`, the labels that Prometheus adds to all series of a target."""
    name = NAME.match(line)
    if not name:
        return line  # a comment
    rest = line[name.end() :]
    return f"{name[0]}{{{target},{rest[1:]}" if rest.startswith("{") else f"{name[0]}{{{target}}}{rest}"


def job_reports(arguments: Sequence[str], at: float) -> dict[str, list[str]]:
    """Lines of each family that the reporting jobs of the simulated fleet have at a time (Unix time)."""
    values = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    found: dict[str, list[str]] = {}
    ranks: dict[str, int] = {}
    for gpu in parse_fleet(values.get("simulate", ""), int(values.get("simulate.seed", 0))):
        job, elapsed = gpu.scenario.job, at - COUNTER_START_SECONDS
        if job in REPORTING:
            rank = ranks[job] = ranks.get(job, -1) + 1
            labels = f'{{uuid="{gpu.identity.uuid}",training_job="{job}",rank="{rank}"}}'
            wait = WAIT_RATIO * (elapsed - gpu.busy_seconds(at))
            for name, value in (
                ("training_step_seconds_total", elapsed),
                ("training_data_wait_seconds_total", wait),
                ("training_samples_total", REPORTING[job] * elapsed),
            ):
                found.setdefault(name, []).append(f"{name}{labels} {value:.3f}")
    return found


def past_reports(arguments: Sequence[str], end: float) -> Iterator[str]:
    """The reports of the history, as OpenMetrics with timestamps."""
    for at in range(int(end) - HISTORY_SECONDS, int(end), STEP_SECONDS):
        for lines in job_reports(arguments, at).values():
            yield from (f"{line} {at}\n" for line in lines)


def report(arguments: Sequence[str], folder: Path) -> None:
    """Write the reports until the container ends."""
    while found := job_reports(arguments, time.time()):
        page = "".join(
            f"# HELP {name} {name} of the demo.\n# TYPE {name} counter\n" + "".join(f"{line}\n" for line in lines)
            for name, lines in found.items()
        )
        (folder / "demo.prom.new").write_text(page)
        os.replace(folder / "demo.prom.new", folder / "demo.prom")
        time.sleep(REPORT_SECONDS)


def write_history(folder: Path, history: Path, arguments: Sequence[str]) -> None:
    target = f'job="gpu-exporter",instance="{history.stem}:9816"'
    unfinished = history.with_suffix(".unfinished")
    command = ["gpu-exporter", *arguments, "--simulate.history", f"{HISTORY_SECONDS}s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child, unfinished.open("w") as out:
        for line in child.stdout or ():
            if not line.startswith("# EOF"):
                out.write(add_target_labels(line, target))
        out.writelines(add_target_labels(line, target) for line in past_reports(arguments, time.time()))
        out.write("# EOF\n")
    if child.returncode:
        sys.exit(child.returncode)
    folder.chmod(0o750)
    unfinished.chmod(0o640)
    unfinished.rename(history)


def main(folder: Path, arguments: list[str]) -> None:
    history = folder / f"{os.uname().nodename}.om"
    if not history.exists():
        write_history(folder, history, arguments)
    if job_reports(arguments, time.time()):
        jobs = Path("/tmp/jobs")
        jobs.mkdir(exist_ok=True)
        if os.fork() == 0:
            report(arguments, jobs)
        arguments = [*arguments, f"--collector.textfile.directory={jobs}"]
    os.execvp("gpu-exporter", ["gpu-exporter", *arguments])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
