"""`gpu-advisor allocate`: GPUs from the advisor that gives them out, and back again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import requests

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.gpu_request import split_count_and_type
from gpu_advisor.commands import output
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
@click.option("--memory-gb", type=click.FloatRange(0, min_open=True), help="Least memory of each GPU.")
@click.option("--distributed", is_flag=True, help="May be spread over several nodes, the same number on each.")
@click.option("--cpu-fallback", is_flag=True, help="Where no GPU can be had: an allocation without GPUs.")
@click.option("--lease", "lease_seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="How long it holds without renewal.  [default: the service's own]")  # fmt: skip
@click.option("--token", metavar="TEXT", help="The same token gives the same allocation: repeat a call at will.")
@click.option("--dry-run", is_flag=True, help="Only say what could be had.")
@click.option("--list", "list_", is_flag=True, help="All allocations.")
@click.option("--nodes", is_flag=True, help="The nodes, and what is free on them.")
@click.option("--renew", metavar="ID", help="Keep an allocation longer, for --lease from now.")
@click.option("--release", metavar="ID", help="Give its GPUs back.")
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--ca-file", type=click.Path(dir_okay=False), help="Trust this certificate (PEM).")
@click.option("--token-file", type=click.Path(dir_okay=False, path_type=Path), help="Bearer token for --advisor.")
@click.option("--advisor", metavar="URL", default=DEFAULT_ADVISOR, show_default=True, help="Who gives out GPUs.")
def command(
    gpus: str, memory_gb: float | None, distributed: bool, cpu_fallback: bool, lease_seconds: float | None,
    token: str | None, dry_run: bool, list_: bool, nodes: bool, renew: str | None, release: str | None,
    format_: output.Format, ca_file: str | None, token_file: Path | None, advisor: str,
) -> None:  # fmt: skip
    """Lease GPUs, the best-fitting ones, until they are released or the lease runs out.

    GPUS in the spelling you have: A100, 2xA100-80GB, V100, 'nvidia.com/gpu: 2', 4x40GB.

    \b
      gpu-advisor allocate 2xA100-80GB --lease 7200
      gpu-advisor allocate --list
      gpu-advisor allocate --renew ID --lease 7200
      gpu-advisor allocate --release ID

    A lease that is not renewed in time is over, and its GPUs are given to others: so a job that died keeps none.

    Exit code 3: such GPUs are here, but not free now.
    """
    actions = [name for name, given in (("GPUS", gpus), ("--list", list_), ("--nodes", nodes), ("--renew", renew),
                                       ("--release", release)) if given]  # fmt: skip
    if len(actions) != 1:
        raise click.UsageError(
            f"say one of GPUS, --list, --nodes, --renew ID and --release ID, not {len(actions)} of them"
        )
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


class _AllocationClient:
    """The advisor that gives out GPUs. Raises CommandError."""

    def __init__(self, client: AdvisorHttpClient) -> None:
        self._client = client

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self._client.address.rstrip('/')}{API_PREFIX}{path}"
        given = {} if body is None else {"json": body}
        answer, found = self._client.fetch(method, url, **given)
        if answer.status in (requests.codes.ok, requests.codes.no_content):
            return found
        told = found if isinstance(found, dict) else {}
        lines = [str(told.get("detail", f"{url} answers {answer.status}")), *map(str, told.get("reasons", ()))]
        kind = NoCapacityError if answer.status == requests.codes.conflict else CommandError
        raise kind("\n  ".join(map(one_line, lines)))


def _body(gpus: str, memory_gb: float | None) -> dict[str, Any]:
    """GPUS as fields. What types there are is the service's to say."""
    try:
        count, kind = split_count_and_type(gpus)
    except InvalidRequestError as error:
        raise click.UsageError(str(error)) from error
    return {"gpu_count": count, "gpu_type": kind, "memory_gb": memory_gb}


def _show(allocations: Sequence[dict[str, Any]], format_: output.Format) -> None:
    """One row for each node of each allocation; as JSON all that is known."""
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
    _show_columns(COLUMNS, rows, format_, "No allocation.")


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
    _show_columns(NODE_COLUMNS, rows, format_, "No node.")


def _show_validation(verdict: dict[str, Any], format_: output.Format) -> None:
    """What a request would get. Raises NoCapacityError or CommandError where that is nothing."""
    if format_ == "json":
        output.show_json(verdict)
    elif verdict["available_now"]:
        _show_columns(
            ("node", "gpus"),
            [{"node": n["node_name"], "gpus": ",".join(map(str, n["gpu_indices"]))} for n in verdict["nodes"]],
            format_, "",
        )  # fmt: skip
    if not verdict["available_now"]:
        lines = "\n  ".join(map(one_line, (verdict["message"], *verdict["reasons"])))
        raise NoCapacityError(lines) if verdict["valid"] else CommandError(lines)


def _show_columns(names: Sequence[str], rows: Sequence[dict[str, Any]], format_: output.Format, empty: str) -> None:
    if format_ == "csv":
        output.show_csv(names, [[row[name] for name in names] for row in rows])
        return
    output.show_table(names, [[_cell(row[name]) for name in names] for row in rows], empty)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))
