"""The demand of a pool as recorded by a data source: its GPUs' work, step by step.

Demand beyond the pool's size then is missing: utilization ends at 100 %. So a replay favors every policy wherever the
pool was short of capacity.
"""

from __future__ import annotations

from gpu_advisor.backtest.trace import Trace, TraceError
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.sources.base import Source


def find_serving_pool(settings: Settings, name: str) -> PoolSettings:
    """The serving pool of that name. Raises TraceError."""
    found = next((pool for pool in settings.pools if pool.name == name), None)
    if found is None or found.kind != "serving":
        serving = [pool.name for pool in settings.pools if pool.kind == "serving"]
        fix = hint(name, serving) or "; there is none: add one under pools"
        raise TraceError(f"--pool {name!r}: no such serving pool in the settings{fix}")
    return found


def read_recorded_demand(
    source: Source, settings: Settings, pool: PoolSettings, since: int, interval: int, at: float
) -> Trace:
    """Demand of the last `since` seconds before `at`, in replicas' worth of work. Raises TraceError and SourceError."""
    windows = {"history_seconds": since, "step_seconds": interval}
    evaluation = settings.evaluation.model_copy(update=windows)
    histories = evaluate(source, settings.model_copy(update={"evaluation": evaluation}), at).facts.pool_histories
    last = at // interval * interval
    work = {point.at: point.busy / pool.gpus_per_replica for point in histories.get(pool.name, ())}
    times = [last - interval * ago for ago in range(since // interval - 1, -1, -1)]
    recorded = [time for time in times if time in work]
    if not recorded:
        raise TraceError(
            f"no data of pool {pool.name} in the last {since} s: check its GPUs with `gpu-advisor check`, or give a "
            "shorter --since"
        )
    return Trace(interval, tuple(work.get(time) for time in times if time >= recorded[0]))
