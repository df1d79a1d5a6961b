"""The demand of a pool as a data source recorded it: its GPUs' work, step by step.

What was above the pool's size then is not in it: utilization ends at 100 %. A replay of it is therefore kind to every
policy where the pool was short of capacity at that time.
"""

from __future__ import annotations

from gpu_advisor.backtest.trace import Trace, TraceError
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.sources.base import Source


def find_serving_pool(settings: Settings, name: str) -> PoolSettings:
    """The serving pool of that name. Raises TraceError."""
    found = next((pool for pool in settings.pools if pool.name == name), None)
    serving = ", ".join(pool.name for pool in settings.pools if pool.kind == "serving")
    if found is None or found.kind != "serving":
        raise TraceError(f"no serving pool {name!r} in the settings: there is {serving or 'none; name one in pools:'}")
    return found


def read_recorded_demand(
    source: Source, settings: Settings, pool: PoolSettings, since: int, interval: int, at: float
) -> Trace:
    """Demand of the last `since` seconds before `at`, in replicas' worth of work. Raises TraceError and SourceError."""
    windows = {"history_seconds": since, "step_seconds": interval}
    evaluation = settings.evaluation.model_copy(update=windows)
    trails = evaluate(source, settings.model_copy(update={"evaluation": evaluation}), at).facts.pool_histories
    last = at // interval * interval
    work = {point.at: point.busy / pool.gpus_per_replica for point in trails.get(pool.name, ())}
    times = [last - interval * ago for ago in range(since // interval - 1, -1, -1)]
    seen = [time for time in times if time in work]
    if not seen:
        raise TraceError(
            f"nothing is recorded of pool {pool.name} in the last {since} s: see `gpu-advisor check` for whether its "
            "GPUs are there, and give a shorter --since"
        )
    return Trace(interval, tuple(work.get(time) for time in times if time >= seen[0]))
