"""One job from end to end: plan, cost, allocate, set up, train, recommend, report.

README.md beside this file shows how to run it, and what each step does.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests
from gpu_advisor.allocation.frameworks import SetupOptions
from gpu_advisor.allocation.manager import (
    LeaseLostError,
    Session,
    TrainingGPUConfig,
    get_gpu_resource_manager,
    gpu_resources,
    validate_gpu_requirements,
)

#: Tokens per second of an A100 with a model of 1.3 billion parameters: 6 operations per parameter and token
#: (Kaplan et al., 2020, section 2.1, https://arxiv.org/abs/2001.08361) at 40 % of 312 TFLOPS, a little less than the 44
#: to 52 % of Narayanan et al., 2021 (https://arxiv.org/abs/2104.04473). Measure yours with `gpu-advisor probe`.
TOKENS_PER_SECOND = round(0.4 * 312e12 / (6 * 1.3e9))
TOKENS = "2e9"

TRAIN = Path(__file__).parents[1] / "train" / "train.py"


def print_step(title: str) -> None:
    print(f"\n== {title}", flush=True)


def run_advisor(*arguments: str) -> Any:
    """Run a `gpu-advisor` command and return its JSON output."""
    print("$ gpu-advisor", *arguments, flush=True)
    command = [sys.executable, "-m", "gpu_advisor", *arguments, "--format", "json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def find_plan() -> dict[str, Any]:
    """The best plan for a model of 1.3 billion parameters on one GPU."""
    answer = run_advisor(
        "plan", "--params", "1.3b", "--gpus", "1xA100-80GB", "--global-batch", "64", "--sequence", "2048"
    )
    plan: dict[str, Any] = answer["plans"][0]
    layout = plan["layout"]
    print(
        f"fits: micro-batch {layout['micro_batch']} x {layout['accumulation']} accumulation steps, in "
        f"{plan['total_bytes'] / 2**30:.0f} GiB ({plan['used_ratio']:.0%} of the GPU)"
    )
    return plan


def print_price() -> None:
    """Print the cheapest cloud instance for the job."""
    answer = run_advisor("cost", "--tokens", TOKENS, "--rate", f"A100-80GB={TOKENS_PER_SECOND}", "--gpu", "A100-80GB")
    best = answer["best"]
    print(
        f"cheapest: {best['instance_type']} in {best['region']}, {best['hours']:.1f} hours, {best['cost']:.2f} dollars "
        f"(price of {best['dated']})"
    )


def run_training(session: Session, plan: dict[str, Any], jobs: str, epochs: int) -> None:
    """Train a small model in place of the large one, so that it runs anywhere, with the allocation's settings."""
    options = {
        "job": "one-job",
        "directory": jobs,
        "epochs": epochs,
        "at-least-seconds": 20,  # so that its steps fill the window of 20
        "batch-size": plan["layout"]["global_batch"],
        "uuid": session.allocation.uuids[0],
        "report-seconds": 1,
    }
    script = shlex.join([str(TRAIN), *(f"--{name}={value}" for name, value in options.items())])
    [node] = session.pytorch(SetupOptions(script=script)).nodes
    print(*(f"{name}={value}" for name, value in node.environment.items()), node.command, flush=True)
    program, *arguments = shlex.split(node.command)
    command = [sys.executable if program == "python" else program, *arguments]
    with subprocess.Popen(command, env={**os.environ, **node.environment}) as child:
        while child.poll() is None:
            try:
                session.check()  # stop training when the lease is lost
            except LeaseLostError:
                child.terminate()
                raise
            time.sleep(0.2)
    if child.returncode:
        raise SystemExit(f"training exited with code {child.returncode}")


def wait_for_recommendations(address: str, uuids: tuple[str, ...], within_seconds: float) -> list[dict[str, Any]]:
    """Wait for recommendations for these GPUs; empty after the timeout."""
    until = time.monotonic() + within_seconds
    while True:
        answer = requests.get(f"{address}/recommendations", timeout=10).json()
        found = [each for each in answer["recommendations"] if set(each["gpus"]) & set(uuids)]
        if found or time.monotonic() > until:
            return found
        time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advisor", default="http://127.0.0.1:9817", metavar="URL")
    parser.add_argument("--jobs", required=True, help="the folder for job metrics that `gpu-advisor up` prints")
    parser.add_argument("--report", type=Path, default=Path("report.html"), metavar="FILE")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--advice-within", type=float, default=60, metavar="SECONDS")
    arguments = parser.parse_args()

    print_step("Plan: parallel layout and memory")
    plan = find_plan()
    print_step("Cost: cheapest instance")
    print_price()

    print_step("Allocate: lease a free GPU while the job runs")
    service = get_gpu_resource_manager(arguments.advisor)
    config = TrainingGPUConfig(gpu_type="A100", memory_gb=plan["total_bytes"] / 1e9, lease_seconds=120)
    print(validate_gpu_requirements(config, service)["message"])
    with gpu_resources(config, service) as session:
        leased = session.allocation
        print(f"{leased.id}: {', '.join(leased.uuids)} on {', '.join(leased.node_names)}")
        print("because", "; ".join(leased.reasons))
        print_step("Set up and train")
        run_training(session, plan, arguments.jobs, arguments.epochs)
        print_step("Recommendations for its GPU")
        for advice in wait_for_recommendations(arguments.advisor, leased.uuids, arguments.advice_within):
            print(f"{advice['severity']}: {advice['summary']}")
            print(*(f"    {line}" for line in advice["apply"]), sep="\n")

    print_step("Report")
    command = ["report", "--advisor", arguments.advisor, "--since", "1h", "--output", str(arguments.report)]
    print("$ gpu-advisor", *command, flush=True)
    subprocess.run([sys.executable, "-m", "gpu_advisor", *command], check=True)
    hours = run_advisor("report", "--advisor", arguments.advisor, "--since", "1h")["groups"][0]["gpu_hours"]
    print(f"of {hours['observed']:.2f} GPU-hours {hours['unused']:.2f} were unused; more in {arguments.report}")


if __name__ == "__main__":
    main()
