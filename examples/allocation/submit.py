"""Submits a Job with the requested GPUs to Kubernetes, and follows its status.

    python examples/allocation/submit.py --gpus 2xA100-80GB --namespace team --queue team-queue job.yaml
    python examples/allocation/submit.py --gpus 2xA100-80GB --patch

The same --token finds the same Job: a retry submits nothing twice.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import yaml
from gpu_advisor.allocation.errors import AllocationError
from gpu_advisor.allocation.gpu_request import parse_request
from gpu_advisor.allocation.kubernetes.backend import KubernetesBackend


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", required=True, help="such as 2xA100-80GB or 'nvidia.com/gpu: 2'")
    parser.add_argument("--distributed", action="store_true", help="allow several pods")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--context", help="kubeconfig context (default: the current one)")
    parser.add_argument("--queue", default="", help="LocalQueue of Kueue")
    parser.add_argument("--token", default="", help="idempotency token of this Job (default: a new one)")
    parser.add_argument("--container", default="", help="container that gets the GPUs, if there are several")
    parser.add_argument("--patch", action="store_true", help="only print the pod patch")
    parser.add_argument(
        "--follow", type=float, default=0.0, metavar="SECONDS", help="how long to follow the Job's status"
    )
    parser.add_argument("--release", action="store_true", help="delete the Job of this --token")
    parser.add_argument("job", nargs="?", type=Path, help="YAML file of a Job")
    arguments = parser.parse_args()
    if not arguments.patch and arguments.job is None:
        parser.error("name the file of a Job, or use --patch")
    if arguments.release and not arguments.token:
        parser.error("--release needs the --token of the Job")
    try:
        request = replace(parse_request(arguments.gpus), distributed_training=arguments.distributed)
        backend = KubernetesBackend.connect(arguments.namespace, arguments.context)
        if arguments.patch:
            print(yaml.safe_dump(backend.patch(request, arguments.container or "main"), sort_keys=False), end="")
            return 0
        template = yaml.safe_load(arguments.job.read_text(encoding="utf-8"))
        if arguments.release:
            there = backend.find(template, arguments.token)
            print("deleted" if there and backend.release(there) else "not found")
            return 0
        token = arguments.token or uuid.uuid4().hex
        job = backend.submit(request, template, token, container=arguments.container, queue=arguments.queue)
        what = "submitted" if job.created else "already exists"
        print(f"{job.namespace}/{job.name} {what}, token {token}", flush=True)
        for state in backend.follow(job, arguments.follow) if arguments.follow else ():
            print(f"{state.phase} {state.why}".strip(), flush=True)
    except (AllocationError, OSError, yaml.YAMLError) as error:
        sys.exit("\n  ".join((str(error), *getattr(error, "reasons", ()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
