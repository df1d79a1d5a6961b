"""`gpu-advisor allocate`: lease GPUs from a running advisor, renew and release them; or request them from Slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import requests

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import split_count_and_type
from gpu_advisor.allocation.slurm.backend import SlurmBackend
from gpu_advisor.allocation.slurm.sbatch import JobOptions
from gpu_advisor.commands import common_options, output, slurm_allocation
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.http_client import DEFAULT_ADVISOR, AdvisorHttpClient, read_token
from gpu_advisor.rendering.escaping import one_line

API_PREFIX = "/api/v1/gpu"
EXIT_NO_CAPACITY = 3

NODE_COLUMNS = ("node", "type", "memory_gb", "free", "gpus", "utilization")
COLUMNS = ("id", "node", "gpus", "type", "memory_gb", "expires")


class NoCapacityError(CommandError):
    exit_code = EXIT_NO_CAPACITY


@click.command("allocate")
@click.argument("gpus", default="")
@click.argument("job_command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--memory-gb", type=click.FloatRange(0, min_open=True), help="Minimum memory of each GPU.", metavar="GB")
@click.option("--distributed", is_flag=True, help="Allow several nodes, with the same number of GPUs on each.")
@click.option("--cpu-fallback", is_flag=True, help="If no GPU is available, return an allocation without GPUs.")
@click.option("--lease", "lease_seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="Duration without renewal.  [default: the service's]")  # fmt: skip
@click.option(
    "--idempotency-key",
    "--token",
    "token",
    metavar="KEY",
    help="The same key returns the same allocation: a retry leases nothing twice.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be allocated.")
@click.option("--list", "list_", is_flag=True, help="List allocations.")
@click.option("--nodes", is_flag=True, help="List nodes and their free GPUs.")
@click.option("--renew", metavar="ID", help="Extend an allocation to --lease seconds from now.")
@click.option("--release", metavar="ID", help="Release an allocation's GPUs.")
@click.option("--backend", type=click.Choice(["advisor", "slurm"]), default="advisor", show_default=True,
              help="Lease from an advisor, or request from Slurm, which schedules: prints an sbatch line.")  # fmt: skip
@click.option("--submit", is_flag=True, help="Slurm: submit COMMAND, or a batch script, instead of printing the line.")
@click.option("--partition", default="", metavar="NAME", help="Slurm: the job's partitions.  [default: those that fit]")
@click.option("--account", default="", metavar="NAME", help="Slurm: the account to charge.")
@click.option("--job-name", default="", metavar="NAME", help="Slurm: the job's name.")
@common_options.output_format("table", "json", "csv")
@common_options.ca_file
@common_options.token_file
@click.option("--advisor", metavar="URL", default=DEFAULT_ADVISOR, show_default=True, help="The running advisor.")
def command(
    gpus: str, job_command: tuple[str, ...], memory_gb: float | None, distributed: bool, cpu_fallback: bool,
    lease_seconds: float | None, token: str | None, dry_run: bool, list_: bool, nodes: bool, renew: str | None,
    release: str | None, backend: str, submit: bool, partition: str, account: str, job_name: str,
    format_: output.Format, ca_file: str | None, token_file: Path | None, advisor: str,
) -> None:  # fmt: skip
    """Lease GPUs (best fit) until they are released or the lease expires.

    GPUS in any of these spellings: A100, 2xA100-80GB, V100, 'nvidia.com/gpu: 2', 4x40GB.

    \b
      gpu-advisor allocate 2xA100-80GB --lease 7200
      gpu-advisor allocate --list
      gpu-advisor allocate --renew ID --lease 7200
      gpu-advisor allocate --release ID

    A lease that is not renewed in time expires, and its GPUs become available: a job that died keeps none.

    With --backend slurm, Slurm schedules, and there are no leases: the same request becomes an sbatch line (--lease is
    the time limit), --submit submits it, --list shows the state of such jobs, and --release cancels one.

    \b
      gpu-advisor allocate 2xA100-80GB --backend slurm --lease 7200
      gpu-advisor allocate 2xA100-80GB --backend slurm --submit -- python train.py

    Exit code 3: matching GPUs exist, but are not free now.
    """
    actions = _given({"GPUS": gpus, "--list": list_, "--nodes": nodes, "--renew": renew, "--release": release})
    if len(actions) != 1:
        raise click.UsageError(
            f"give exactly one of GPUS, --list, --nodes, --renew ID and --release ID, not {len(actions)}"
        )
    if backend == "slurm":
        wanted = slurm_allocation.SlurmRequest(
            gpus, memory_gb, distributed, cpu_fallback, lease_seconds, partition,
            JobOptions(job_name, account, token or ""), job_command,
        )  # fmt: skip
        _ask_slurm(wanted, submit, dry_run, list_, nodes, renew, release, format_)
        return
    of_slurm = {"COMMAND": job_command, "--submit": submit, "--partition": partition, "--account": account,
                "--job-name": job_name}  # fmt: skip
    if slurm_only := _given(of_slurm):
        raise click.UsageError(f"{slurm_only[0]} is for --backend slurm")
    allocations_api = _AllocationClient(AdvisorHttpClient(advisor, read_token(token_file), ca_file))
    until = {} if lease_seconds is None else {"lease_seconds": lease_seconds}
    if release is not None:
        allocations_api.ask("DELETE", f"/allocations/{quote(release, safe='')}")
        click.echo(f"{release} is released", err=True)
    elif renew is not None:
        _show([allocations_api.ask("POST", f"/allocations/{quote(renew, safe='')}/renew", until)], format_)
    elif list_:
        _show(allocations_api.ask("GET", "/allocations")["allocations"], format_)
    elif nodes:
        _show_nodes(allocations_api.ask("GET", "/nodes")["nodes"], format_)
    else:
        body = {**_body(gpus, memory_gb), "distributed_training": distributed, "cpu_fallback": cpu_fallback}
        if dry_run:
            _show_validation(allocations_api.ask("POST", "/validate", body), format_)
        else:
            named = {} if token is None else {"client_token": token}
            _show([allocations_api.ask("POST", "/allocate", {**body, **until, **named})], format_)


def _given(options: Mapping[str, object]) -> list[str]:
    """The names of the options that have a value."""
    return [name for name, value in options.items() if value]


def _ask_slurm(
    wanted: slurm_allocation.SlurmRequest, submit: bool, dry_run: bool, list_: bool, nodes: bool, renew: str | None,
    release: str | None, format_: output.Format,
) -> None:  # fmt: skip
    slurm = SlurmBackend()
    if renew is not None:
        raise click.UsageError(
            "Slurm's jobs are not renewed: ask for enough time with --lease, or an administrator for more"
        )
    if release is not None:
        slurm_allocation.cancel_job(release, slurm)
    elif list_:
        slurm_allocation.show_jobs(format_, slurm)
    elif nodes:
        slurm_allocation.show_nodes(format_, slurm)
    else:
        if submit and not wanted.command:
            raise click.UsageError("--submit needs what the job runs, after --: -- python train.py, or a batch script")
        slurm_allocation.request_job(wanted, submit, dry_run, format_, slurm)


class _AllocationClient:
    """The allocation API of an advisor. Raises CommandError."""

    def __init__(self, client: AdvisorHttpClient) -> None:
        self._client = client

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self._client.address.rstrip('/')}{API_PREFIX}{path}"
        options = {} if body is None else {"json": body}
        response, document = self._client.fetch(method, url, **options)
        if response.status in (requests.codes.ok, requests.codes.no_content):
            return document
        problem = document if isinstance(document, dict) else {}
        lines = [str(problem.get("detail", f"{url} returned {response.status}")), *map(str, problem.get("reasons", ()))]
        kind = NoCapacityError if response.status == requests.codes.conflict else CommandError
        raise kind("\n  ".join(map(one_line, lines)))


def _body(gpus: str, memory_gb: float | None) -> dict[str, Any]:
    """GPUS as fields of the request. The service validates the type."""
    try:
        count, kind = split_count_and_type(gpus)
    except InvalidRequestError as error:
        raise click.UsageError(str(error)) from error
    return {"gpu_count": count, "gpu_type": kind, "memory_gb": memory_gb}


def _show(allocations: Sequence[dict[str, Any]], format_: output.Format) -> None:
    """One row per node of each allocation; as JSON, the full documents."""
    if format_ == "json":
        output.show_json(allocations)
        return
    rows = [
        {
            "id": each["id"], "node": share["node_name"], "gpus": ",".join(map(str, share["gpu_indices"])),
            "type": each["gpu_type"], "memory_gb": each["memory_per_gpu"], "expires": each["expires"],
        }
        for each in allocations
        for share in each["nodes"] or [{"node_name": "", "gpu_indices": ()}]
    ]  # fmt: skip
    output.show_columns(COLUMNS, rows, format_, "No allocations.")


def _show_nodes(nodes: Sequence[dict[str, Any]], format_: output.Format) -> None:
    if format_ == "json":
        output.show_json(nodes)
        return
    rows = [
        {
            "node": each["node_name"], "type": each["gpu_type"], "memory_gb": each["memory_per_gpu"],
            "free": each["available_gpus"], "gpus": each["total_gpus"],
            "utilization": each["utilization"] if format_ == "csv" else output.format_ratio(each["utilization"]),
        }
        for each in nodes
    ]  # fmt: skip
    output.show_columns(NODE_COLUMNS, rows, format_, "No nodes.")


def _show_validation(result: dict[str, Any], format_: output.Format) -> None:
    """The GPUs that a request would get. Raises NoCapacityError or CommandError if there are none."""
    if format_ == "json":
        output.show_json(result)
    elif result["available_now"]:
        output.show_columns(
            ("node", "gpus"),
            [{"node": n["node_name"], "gpus": ",".join(map(str, n["gpu_indices"]))} for n in result["nodes"]],
            format_, "",
        )  # fmt: skip
    if not result["available_now"]:
        lines = "\n  ".join(map(one_line, (result["message"], *result["reasons"])))
        raise NoCapacityError(lines) if result["valid"] else CommandError(lines)
