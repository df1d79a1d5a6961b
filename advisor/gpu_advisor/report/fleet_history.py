"""The history of a fleet in one period, as data: what reports are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.promql.expressions import Expression
from gpu_advisor.report.owner_history import OwnersByStep
from gpu_advisor.report.period import ReportPeriod

#: Values by index of a step.
Steps = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class FleetHistory:
    """The data of a period.

    `gpus` are all observed at any time, `observed_spans` the first and last step of each, `observed_steps` all its
    steps. `values` are by part of series.py and by uuid, `cpu` by node. `owners` are by uuid and step, without their
    teams; in steps other than `owner_steps`, by uuid, nobody knows whether there were any. `expressions` are the
    queries of the parts; `unavailable` says why something is missing.
    """

    period: ReportPeriod
    gpus: tuple[Gpu, ...] = ()
    observed_spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    observed_steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Steps]] = field(default_factory=dict)
    cpu: Mapping[str, Steps] = field(default_factory=dict)
    owners: Mapping[str, OwnersByStep] = field(default_factory=dict)
    owner_steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    expressions: Mapping[str, Expression] = field(default_factory=dict)
    recorded: bool = False
    unavailable: tuple[str, ...] = ()
    queries: int = 0

    @property
    def any_owner_steps(self) -> frozenset[int]:
        """Steps in which the owners of some GPU are known."""
        return frozenset[int]().union(*self.owner_steps.values())

    def of(self, part: str, uuid: str) -> Steps:
        return self.values.get(part, {}).get(uuid, {})
