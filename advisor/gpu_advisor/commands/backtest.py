"""`gpu-advisor backtest`: replays recorded demand through the advisor's scaling policy and others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path

import click
from pydantic import ValidationError

from gpu_advisor.backtest.baselines import oracle_replicas
from gpu_advisor.backtest.compare import advisor_policy, compare_policies
from gpu_advisor.backtest.recorded_demand import find_serving_pool, read_recorded_demand
from gpu_advisor.backtest.replay import ReplayResult, SimulatedPool
from gpu_advisor.backtest.trace import Trace, TraceError, read_csv
from gpu_advisor.commands import common_options, output
from gpu_advisor.documents.slo import pool_slo
from gpu_advisor.evaluation.scaling.headroom import TunedHeadroom
from gpu_advisor.evaluation.scaling.headroom_text import describe_headroom
from gpu_advisor.runtime.wiring import one_shot_source
from gpu_advisor.settings import EvaluationSettings, PoolSettings, Settings, load_settings
from gpu_advisor.settings.slo import SloSettings
from gpu_advisor.sources.base import SourceError


def _unserved_ratio(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else SloSettings.model_validate({"unserved": text}).unserved_ratio
    except ValidationError as error:
        raise click.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


@click.command("backtest")
@click.option(
    "--trace", type=click.Path(dir_okay=False, path_type=Path),
    help="CSV with the header timestamp_seconds,demand_gpus: demand in GPUs from that time on.",
)  # fmt: skip
@click.option("--pool", metavar="NAME", help="Instead of a file: a serving pool of --config, from its Prometheus.")
@click.option("--since", default="24h", show_default=True, metavar="DURATION", callback=common_options.parse_duration,
              help="With --pool.")  # fmt: skip
@click.option(
    "--interval", type=click.IntRange(1, 86400), default=60, show_default=True, help="Seconds.", metavar="SECONDS"
)
@click.option(
    "--start-delay", type=click.IntRange(0, 86400),
    help="Seconds until a new replica serves.  [default: the pool's start_delay_seconds, or 120]",
    metavar="SECONDS",
)  # fmt: skip
@click.option("--start", type=click.IntRange(0), default=2, show_default=True, help="Initial replicas.", metavar="N")
@click.option(
    "--min", "min_", type=click.IntRange(0), help="Minimum replicas.  [default: resources.gpu.min]", metavar="N"
)
@click.option(
    "--max", "max_", type=click.IntRange(1),
    help="Maximum replicas.  [default: resources.gpu.max, else what the highest demand needs]",
    metavar="N",
)  # fmt: skip
@click.option(
    "--unserved", metavar="PERCENT", callback=_unserved_ratio,
    help="Tune the headroom to this SLO, as in 0.2%.  [default: the pool's slo.unserved]",
)  # fmt: skip
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings (YAML).")
@common_options.output_format("table", "json", "csv", name="form", description="json is an object of policies.")
def command(
    trace: Path | None,
    pool: str | None,
    since: int,
    interval: int,
    start_delay: int | None,
    start: int,
    min_: int | None,
    max_: int | None,
    unserved: float | None,
    config: Path | None,
    form: str,
) -> None:
    """Replay demand through the advisor's scaling policy and others.

    The policies see the utilization min(1, demand / ready replicas), not the demand. They decide at the end of each
    interval. A new replica is billed at once and serves after the start delay; a released one is billed to the
    end of the interval.
    Demand above capacity is unserved, and not carried over. With an SLO, the advisor tunes its headroom to it by
    replaying its history so far, once there is an hour of it.

    \b
    gpu_hours         billed
    unserved_ratio    share of the demand above the capacity
    time_under_ratio  share of the intervals with unserved demand
    actions           changes of the number of replicas
    reversals         changes in the opposite direction of the previous one

    \b
    Examples:
      gpu-advisor backtest --trace day.csv --start 2 --min 1 --max 114
      gpu-advisor backtest --trace day.csv --max 114 --unserved 0.2%
      gpu-advisor backtest --config advisor.yml --pool chat --since 24h
    """
    if (trace is None) == (pool is None):
        raise click.UsageError("give either --trace FILE, or --config FILE and --pool NAME")
    settings = load_settings(config) if config else Settings()
    try:
        chosen = find_serving_pool(settings, pool) if pool else PoolSettings(name="trace")
        demand = read_csv(trace, interval) if trace else _read_trace(settings, chosen, since, interval)
    except TraceError as error:
        raise click.UsageError(str(error)) from error
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    gpu = settings.gpu_limits(chosen)
    fewest, most = gpu.replica_limits(chosen.gpus_per_replica)
    if gpu.max is None:
        most = max(start, fewest, oracle_replicas(max(filter(None, demand.demand), default=0.0)))
    fleet = _simulated_pool(
        start,
        fewest if min_ is None else min_,
        most if max_ is None else max_,
        chosen.start_delay_seconds if start_delay is None else start_delay,
    )
    evaluation = _evaluation_settings(settings, chosen)
    advisor = advisor_policy(demand, fleet, gpu, evaluation, chosen.unserved_ratio if unserved is None else unserved)
    found = compare_policies(demand, fleet, gpu, evaluation, advisor)
    size = chosen.gpus_per_replica
    tuned = advisor.headroom if isinstance(advisor.headroom, TunedHeadroom) else None
    _PRINTERS[form]({name: replace(each, gpu_hours=each.gpu_hours * size) for name, each in found.items()}, tuned, size)


def _simulated_pool(start: int, fewest: int, most: int, start_delay: int) -> SimulatedPool:
    """Raises UsageError."""
    if not fewest <= start <= most:
        raise click.UsageError(
            f"--start ({start}) must lie between --min ({fewest}) and --max ({most}): change one of them"
        )
    return SimulatedPool(start=start, min=fewest, max=most, start_delay_seconds=start_delay)


def _evaluation_settings(settings: Settings, pool: PoolSettings) -> EvaluationSettings:
    """With the pool's own headroom, if it has one."""
    if pool.headroom_deviations is None:
        return settings.evaluation
    return settings.evaluation.model_copy(update={"headroom_deviations": pool.headroom_deviations})


def _read_trace(settings: Settings, pool: PoolSettings, since: int, interval: int) -> Trace:
    source = one_shot_source(settings)
    try:
        return read_recorded_demand(source, settings, pool, since, interval, time.time())
    finally:
        source.close()


def _print_json(found: Mapping[str, ReplayResult], tuned: TunedHeadroom | None, gpus_per_replica: int) -> None:
    body: dict[str, dict[str, object]] = {name: asdict(outcome) for name, outcome in found.items()}
    if tuned:
        body["advisor"]["slo"] = pool_slo(tuned, gpus_per_replica)
    output.show_json(body)


def _print_csv(found: Mapping[str, ReplayResult], _tuned: TunedHeadroom | None, _gpus_per_replica: int) -> None:
    rows = [{"policy": name, **asdict(outcome)} for name, outcome in found.items()]
    output.show_documents_csv(("policy", *(field.name for field in fields(ReplayResult))), rows)


def _print_table(found: Mapping[str, ReplayResult], tuned: TunedHeadroom | None, gpus_per_replica: int) -> None:
    rows = [
        (name, f"{of.gpu_hours:.1f}", f"{of.unserved_ratio:.2%}", f"{of.time_under_ratio:.1%}", f"{of.actions}",
         f"{of.reversals}")
        for name, of in found.items()
    ]  # fmt: skip
    output.show_table(("policy", "GPU-hours", "unserved", "time under", "changes", "reversals"), rows, "")
    if tuned:
        click.echo(f"At the end of the replay: {describe_headroom(tuned, gpus_per_replica)}")


_PRINTERS = {"json": _print_json, "csv": _print_csv, "table": _print_table}
