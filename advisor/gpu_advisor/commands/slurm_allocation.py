"""`gpu-advisor allocate --backend slurm`: sbatch lines instead of leases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import click

from gpu_advisor.allocation.errors import AllocationError, InsufficientCapacityError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest, parse_request
from gpu_advisor.allocation.slurm.backend import SlurmBackend, shell_line
from gpu_advisor.allocation.slurm.cluster_nodes import SlurmCluster
from gpu_advisor.allocation.slurm.job_plan import build_job_plan
from gpu_advisor.allocation.slurm.sbatch import JobOptions
from gpu_advisor.commands import output
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.rendering.escaping import one_line

JOB_COLUMNS = ("id", "state", "reason", "nodes", "node_list", "gres", "time_left", "starts", "token", "name")
NODE_COLUMNS = ("node", "type", "gres", "memory_gb", "free", "gpus", "partitions", "unavailable")


@dataclass(frozen=True)
class SlurmRequest:
    """What to request, in addition to the GPUs as text."""

    gpus: str
    memory_gb: float | None
    distributed: bool
    cpu_fallback: bool
    time_limit_seconds: float | None
    partition: str
    options: JobOptions
    command: tuple[str, ...]


def request_job(
    wanted: SlurmRequest, submit: bool, dry_run: bool, format_: output.Format, backend: SlurmBackend
) -> None:
    """Print the sbatch line, or submit the job."""
    with _as_command_error():
        cluster = backend.cluster()
        request = _parse(wanted, cluster)
        plan = build_job_plan(request, cluster, wanted.partition, wanted.time_limit_seconds)
        line = shell_line(backend.command_line(plan, request, wanted.options, wanted.command))
        document: dict[str, object] = {**asdict(plan), "command": line}
        if submit and not dry_run:
            job = backend.submit(plan, request, wanted.options, wanted.command)
            document |= {"id": job.id, "created": job.created}
    if format_ == "json":
        output.show_json(document)
    elif "id" in document:
        click.echo(document["id"])
        click.echo(f"{line}{'' if document['created'] else ' (submitted before, with this token)'}", err=True)
    else:
        click.echo(line)
    if dry_run:
        click.echo("\n".join(map(one_line, plan.reasons)), err=True)
    if not plan.fits_now:
        click.echo("the GPUs are not free now: the job will wait in the queue", err=True)


def show_jobs(format_: output.Format, backend: SlurmBackend) -> None:
    with _as_command_error():
        jobs = backend.jobs()
    if format_ == "json":
        output.show_json([asdict(job) for job in jobs])
    else:
        output.show_columns(JOB_COLUMNS, [asdict(job) for job in jobs], format_, "No jobs.")


def show_nodes(format_: output.Format, backend: SlurmBackend) -> None:
    with _as_command_error():
        cluster = backend.cluster()
    rows = [dict(zip(NODE_COLUMNS, row, strict=True)) for row in _node_rows(cluster)]
    if format_ == "json":
        output.show_json(rows)
    else:
        output.show_columns(NODE_COLUMNS, rows, format_, "No nodes with GPUs.")


def cancel_job(job: str, backend: SlurmBackend) -> None:
    with _as_command_error():
        backend.cancel(job)
    click.echo(f"job {job} is cancelled", err=True)


def _parse(wanted: SlurmRequest, cluster: SlurmCluster) -> GpuRequest:
    types = frozenset(gpus.gpu_type for gpus in cluster.gpus if gpus.gpu_type)
    request = parse_request(wanted.gpus, types)
    sizes = [size for size in (request.memory_gb, wanted.memory_gb) if size is not None]
    return replace(
        request, memory_gb=max(sizes, default=None), distributed_training=wanted.distributed,
        cpu_fallback=wanted.cpu_fallback,
    )  # fmt: skip


def _node_rows(cluster: SlurmCluster) -> Iterator[list[object]]:
    for gpus in cluster.gpus:
        yield [
            gpus.node, gpus.gpu_type, f"gpu:{gpus.gres_type}" if gpus.gres_type else "gpu", gpus.memory_gb, gpus.free,
            gpus.count, ",".join(sorted(gpus.partitions)), gpus.unavailable_reason,
        ]  # fmt: skip


@contextmanager
def _as_command_error() -> Iterator[None]:
    try:
        yield
    except (UnsatisfiableRequestError, InsufficientCapacityError) as error:
        raise CommandError("\n  ".join(map(one_line, (str(error), *error.reasons)))) from error
    except AllocationError as error:
        raise CommandError(one_line(str(error))) from error
