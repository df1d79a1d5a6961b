"""Leases GPUs for an unchanged script: starts one process per GPU, and terminates it if the lease is lost.

python examples/allocation/launch.py --gpus 2xA100-80GB train_ddp.py --epochs 3
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpu_advisor.allocation.errors import AllocationError
from gpu_advisor.allocation.frameworks import SetupOptions
from gpu_advisor.allocation.gpu_request import split_count_and_type
from gpu_advisor.allocation.manager import Session, TrainingGPUConfig, get_gpu_resource_manager, gpu_resources

TERMINATE_TIMEOUT_SECONDS = 30.0


def run(gpus: Session, script: list[str]) -> int:
    """The script's exit code; 1 if the lease was lost."""
    options = SetupOptions(script=shlex.join(script))
    settings = gpus.pytorch(options)
    if len(settings.nodes) > 1:
        lines = (f"{node.node_name}: {_shell_line(node.environment)} {node.command}" for node in settings.nodes)
        print("several nodes: run each node's command while this process keeps the lease", *lines, sep="\n", flush=True)
        gpus.lost.wait()
        return 1
    (node,) = settings.nodes
    print(f"{_shell_line(node.environment)} {node.command}", flush=True)
    python_directory = str(Path(sys.executable).parent)  # torchrun is next to this Python
    environment = {
        **os.environ,
        "PATH": f"{python_directory}{os.pathsep}{os.environ.get('PATH', '')}",
        **gpus.environment(options),
    }
    child = subprocess.Popen(shlex.split(node.command), env=environment)
    try:
        while child.poll() is None:
            if gpus.lost.wait(0.2):
                print(f"stopped: {gpus.lost_reason}", file=sys.stderr)
                return 1
        return child.returncode
    finally:
        _terminate(child)


def _terminate(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(TERMINATE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _shell_line(variables: Mapping[str, object]) -> str:
    return shlex.join(f"{name}={value}" for name, value in variables.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="1", help="such as 2xA100-80GB or 'nvidia.com/gpu: 2'")
    parser.add_argument("--cpu-fallback", action="store_true", help="run on the CPU if no GPU is available")
    parser.add_argument("--advisor", metavar="URL", help="the advisor to lease from (default: the one on this machine)")
    parser.add_argument("script", nargs=argparse.REMAINDER, help="the script and its arguments")
    arguments = parser.parse_args()
    if not arguments.script:
        parser.error("name the script to start")
    try:
        count, kind = split_count_and_type(arguments.gpus)
        config = TrainingGPUConfig(count, kind, cpu_fallback=arguments.cpu_fallback)
        with gpu_resources(config, get_gpu_resource_manager(arguments.advisor)) as gpus:
            return run(gpus, arguments.script)
    except AllocationError as error:
        sys.exit("\n  ".join((str(error), *getattr(error, "reasons", ()))))


if __name__ == "__main__":
    sys.exit(main())
