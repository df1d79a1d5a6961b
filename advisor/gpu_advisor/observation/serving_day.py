"""The last day's demand of inference servers: headroom is tuned by replaying it.

Completed steps never change, so each is read once: the day before the regular history at the first evaluation, in one
query for a few kinds of servers, and later only what the regular history has anyway. Losing the cache costs a query, no
decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpu_advisor.evaluation.scaling.headroom import READ_SECONDS
from gpu_advisor.evaluation.serving.facts import DemandSample, GroupKey

#: By group, oldest step first.
Demands = Mapping[GroupKey, tuple[DemandSample, ...]]


@dataclass(slots=True)
class ServingDayCache:
    """Completed steps of these kinds of servers, all from `_first` to `_until` (Unix time). For one thread."""

    _kinds: frozenset[str] = frozenset()
    _step: int = 0
    _first: float = 0.0
    _until: float = 0.0
    _demands: Demands = field(default_factory=dict)

    def extend(
        self,
        recent: Demands,
        read: Callable[[float, float], Demands],
        kinds: frozenset[str],
        first: float,
        last: float,
        step: int,
    ) -> Demands:
        """The demand of the last day: `recent` is that from `first` to `last`, and `read` returns that of other steps.

        An hour more than a day is kept: a tuning uses the day before the last whole hour. Raises what `read` raises.
        """
        wanted, before = min(first, last - READ_SECONDS // step * step), first - step
        is_known = (self._kinds, self._step) == (kinds, step) and self._first <= wanted and self._until >= before
        older = self._demands if is_known else read(wanted, before) if wanted <= before else {}
        self._demands = {
            key: (
                *(each for each in older.get(key, ()) if wanted <= each.at <= before),
                *recent.get(key, ()),
            )
            for key in older.keys() | recent.keys()
        }
        self._kinds, self._step, self._first, self._until = kinds, step, wanted, last
        return self._demands
