"""`gpu-advisor autoscale`: the desired replicas of each serving pool; --apply scales a workload on Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from gpu_advisor.commands import advisor_client, output
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.evaluation.scaling.hpa import ScaleStep, plan_scale_step
from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.rendering.escaping import one_line

if TYPE_CHECKING:
    from gpu_advisor.documents import schema

COLUMNS = ("pool", "replicas", "desired", "action", "why")


@click.command("autoscale")
@click.option("--pool", help="This pool only; required with --apply if there are several.", metavar="NAME")
@click.option("--min-gpus", type=click.IntRange(0), help="Override the pool's gpu.min.", metavar="N")
@click.option("--max-gpus", type=click.IntRange(1), help="Override the pool's gpu.max.", metavar="N")
@click.option(
    "--apply/--dry-run", "apply_", default=False, show_default=True, help="Scale on Kubernetes, or only print."
)
@click.option("--workload", metavar="KIND/NAME", help="Workload to scale: deployment/NAME or statefulset/NAME.")
@click.option(
    "--namespace", "-n", default="default", show_default=True, metavar="NAME", help="Namespace of the workload."
)
@click.option("--context", help="Kubeconfig context.  [default: the current one, or in-cluster]", metavar="NAME")
@output.options("a pool should be scaled, 4 if data is insufficient")
@advisor_client.options
def command(
    pool: str | None, min_gpus: int | None, max_gpus: int | None, apply_: bool, workload: str | None, namespace: str,
    context: str | None, format_: output.Format, exit_code: bool, source: advisor_client.DataSource,
) -> int:  # fmt: skip
    """Print the desired replicas of each serving pool, or apply them to Kubernetes.

    \b
      gpu-advisor autoscale --min-gpus 1 --max-gpus 8
      gpu-advisor autoscale --pool chat --apply \\
          --workload deployment/chat -n serving

    --apply never acts on simulated, stale or missing data, nor if the workload's replicas differ from those observed.
    Do not apply it to a workload that an HPA or KEDA scales.

    Exit codes with --exit-code: 3 if a pool should be scaled, 4 if data is insufficient.
    """
    if apply_ != bool(workload):
        raise click.UsageError("--apply and --workload KIND/NAME go together")
    client = advisor_client.connect(source)
    limits = {name: value for name, value in (("min", min_gpus), ("max", max_gpus)) if value is not None}
    answer = client.what_if({})
    pools = _serving_pools(answer, pool)
    if limits:
        answer = client.what_if({"pools": {each["name"]: {"gpu": limits} for each in pools}})
        pools = _serving_pools(answer, pool)
    old = output.warn_if_stale(answer)
    if apply_:
        if len(pools) != 1:
            raise click.UsageError(f"--workload needs one --pool of {', '.join(p['name'] for p in pools)}")
        _require_current_data(answer)
        return _apply(pools[0], workload or "", namespace, context)
    _show(answer, pools, format_)
    if old:
        return 1
    if exit_code and any(_needs_resize(each) for each in pools):
        return output.EXIT_ACTION_NEEDED
    return output.EXIT_INSUFFICIENT_DATA if exit_code and any(each["desired_then"] is None for each in pools) else 0


def _serving_pools(answer: schema.WhatIf, pool: str | None) -> list[schema.WhatIfPool]:
    """All serving pools, or the one named `pool`. Raises CommandError."""
    known = [each for each in answer["pools"] if each["sized"] and pool in (None, each["name"])]
    if known:
        return known
    names = [each["name"] for each in answer["pools"] if each["sized"]]
    if pool is not None and names:
        raise CommandError(f"--pool {pool!r}: no such serving pool{hint(pool, names)}")
    raise CommandError(
        "no serving pools: configure one, e.g. pools: [{name: chat, kind: serving, match: {node: 'inference-.*'}}], "
        "and pass the file with --config, or query an advisor that has it"
    )


def _needs_resize(pool: schema.WhatIfPool) -> bool:
    return pool["desired_then"] is not None and pool["desired_then"] != pool["replicas"]


def _rows(answer: schema.WhatIf, pools: Sequence[schema.WhatIfPool]) -> list[dict[str, Any]]:
    summaries = {
        each["scope"]["name"]: each["summary"]
        for each in answer["then"]
        if each["scope"]["kind"] == "pool" and each["unit"] == "replicas"
    }
    rows = []
    for pool in pools:
        desired, replicas = pool["desired_then"], pool["replicas"]
        if desired is None:
            action, why = "none", pool["cannot_tell"]
        elif desired == replicas:
            action, why = "none", "already at the desired number"
        else:
            action, why = "grow" if desired > replicas else "shrink", summaries.get(pool["name"], "")
        rows.append(dict(zip(COLUMNS, (pool["name"], replicas, desired, action, why), strict=True)))
    return rows


def _show(answer: schema.WhatIf, pools: Sequence[schema.WhatIfPool], format_: output.Format) -> None:
    rows = _rows(answer, pools)
    if format_ == "json":
        output.show_json(
            {"at": answer["at"], "stale": answer["stale"], "simulated": answer["simulated"], "pools": rows}
        )
    elif format_ == "csv":
        output.show_csv(COLUMNS, [list(row.values()) for row in rows])
    else:
        cells = [["-" if cell is None else one_line(str(cell)) for cell in row.values()] for row in rows]
        output.show_table(COLUMNS, cells, "No pool.")


def _require_current_data(answer: schema.WhatIf) -> None:
    if answer["simulated"]:
        raise CommandError("--apply refused: the fleet is simulated")
    if answer["at"] is None or answer["stale"]:
        raise CommandError("--apply refused: the data is stale; check the data source")


def _apply(pool: schema.WhatIfPool, workload: str, namespace: str, context: str | None) -> int:
    from gpu_advisor.commands.kubernetes_scale import KubernetesScaleError, KubernetesWorkload

    if pool["desired_then"] is None:
        click.echo(f"{pool['name']}: unchanged: {one_line(pool['cannot_tell'])}", err=True)
        return output.EXIT_INSUFFICIENT_DATA
    try:
        target = KubernetesWorkload.connect(workload, namespace, context)
        scale = target.read()
        decision: ScaleStep = plan_scale_step(pool["desired_then"], pool["replicas"], scale.replicas)
        if decision.replicas is not None:
            target.resize(scale, decision.replicas)
    except KubernetesScaleError as error:
        raise CommandError(str(error)) from error
    action_text = "unchanged" if decision.replicas is None else "scaled"
    click.echo(f"{namespace}/{workload}: {action_text}: {decision.why}", err=decision.blocked)
    return output.EXIT_INSUFFICIENT_DATA if decision.blocked else 0
