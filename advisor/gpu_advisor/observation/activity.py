"""The activity of idle GPUs over the last day, step by step: one range query, of the candidates only."""

from __future__ import annotations

from collections.abc import Mapping

from gpu_advisor.evaluation.diagnosis.idle import idle_window_covered
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.serving.recommend import joined_pools
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_UTILIZATION
from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries, restrict_to_values
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source, SourceError

#: Activity is looked at in steps of this length (seconds), over a day of up to this many GPUs. Of more, over less time,
#: so that as many samples are read; but never over less than this.
STEP_SECONDS = 300
DAY_SECONDS, GPUS_OF_A_DAY, MIN_HISTORY_SECONDS = 24 * 3600, 500, 4 * 3600

#: At most this many GPUs; of further ones the activity counts as unread, and they are left to their owners.
MAX_GPUS = 10_000

#: A uuid has some 40 characters, and an expression may have several lists of them.
GPUS_PER_SHORT_QUERY = 100


def idle_candidates(facts: Facts, settings: Settings) -> tuple[str, ...]:
    """GPUs of training and unspecified pools that look idle over a window with enough data."""
    limit, coverages = settings.evaluation.idle_utilization / 100, facts.column(IDLE_COVERAGE)
    idle = {
        uuid
        for uuid, used in facts.column(IDLE_UTILIZATION).items()
        if used < limit and idle_window_covered(facts, coverages.get(uuid))
    }
    # Slices as well: a board in MIG mode is known by them, and is in no pool.
    looked_at = [gpu for gpu in facts.gpus if gpu.uuid in idle or gpu.parent in idle]
    return tuple(
        gpu.uuid
        for pool in assign_pools(looked_at, settings.pools, joined_pools(facts.serving, settings.pools))
        if pool.settings.kind != "serving"
        for gpu in pool.gpus
        if gpu.up and gpu.uuid in idle
    )


def read_activity(
    source: Source, utilization: Expression, labels_of: Mapping[str, str], at: float
) -> dict[str, TimeSeries] | None:
    """Utilization by GPU and step, oldest first; `utilization` is over one step. One query, or one for every
    GPUS_PER_SHORT_QUERY GPUs of a source that refuses it: VictoriaMetrics limits a query to 16 KiB by default.

    `labels_of` are the uuid labels of the GPUs, by key.

    None if the source refuses this query. Raises SourceError if it fails.
    """
    last = at // STEP_SECONDS * STEP_SECONDS
    names: dict[str, list[str]] = {}
    for name, label in list(labels_of.items())[:MAX_GPUS]:
        names.setdefault(label, []).append(name)
    values = tuple(sorted(names))
    start = last - _history_seconds(len(values)) + STEP_SECONDS
    pieces = [values[first : first + GPUS_PER_SHORT_QUERY] for first in range(0, len(values), GPUS_PER_SHORT_QUERY)]
    for parts in ([values], pieces) if len(pieces) > 1 else ([values],):
        found: dict[Labels, TimeSeries] = {}
        newest: dict[Labels, float] = {}
        try:
            for part in parts:
                expression = restrict_to_values(utilization, "uuid", part)
                found |= source.range(expression, start, last, STEP_SECONDS)
                # The step that is under way.
                newest |= source.instant({"": expression}, at)[""]
            break
        except SourceError as error:
            if not error.is_of_query:
                raise
    else:
        return None
    steps: dict[str, TimeSeries] = {}
    for labels, series in found.items():
        each = dict(labels)
        for name in names.get(each.get("uuid", ""), ()):
            steps[name] = series
    for labels, value in newest.items():
        for name in names.get(dict(labels).get("uuid", ""), ()):
            if at > last:
                steps[name] = (*steps.get(name, ()), (at, value))
    return steps


def _history_seconds(gpus: int) -> int:
    wanted = DAY_SECONDS * GPUS_OF_A_DAY // max(gpus, GPUS_OF_A_DAY)
    return max(MIN_HISTORY_SECONDS, wanted) // STEP_SECONDS * STEP_SECONDS
