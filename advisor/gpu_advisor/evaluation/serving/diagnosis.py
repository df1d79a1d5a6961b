"""What holds a group of replicas back: the rows of the decision table that hold, and those that almost do. Pure.

A state is found where the last window and the one before it show it: both are read at each evaluation, so that a burst
of a minute is no advice, and a restart of the advisor changes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.diagnosis.conditions import Condition, ThresholdCondition, Truth, UnlessCondition
from gpu_advisor.evaluation.serving.decision_table import CAUSES, ROWS, CauseRow, ServingCause
from gpu_advisor.evaluation.serving.features import Features, group_features
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.loads import ReplicaLoad


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A cause that a single condition keeps from being found. `why` says which, with its numbers."""

    cause: ServingCause
    why: str


@dataclass(frozen=True, slots=True)
class GroupDiagnosis:
    """`pressed` is the replica that misses objectives most, or has the longest queue. `pending` are causes that only
    the last window shows."""

    group: ServingGroup
    objectives: Objectives
    features: Features
    pressed: ReplicaLoad
    causes: tuple[ServingCause, ...]
    near_misses: tuple[NearMiss, ...]
    pending: tuple[ServingCause, ...] = ()


def diagnose_group(group: ServingGroup, objectives: Objectives) -> GroupDiagnosis:
    """The last window's diagnosis, with the causes of it that the window before shows, too."""
    found = diagnose_window(group, objectives)
    if not any(each.lasts for each in found.causes):
        return found
    before = group.before()
    shown = () if before is None else diagnose_window(before, objectives).causes
    lasting = tuple(each for each in found.causes if not each.lasts or each in shown)
    return replace(found, causes=lasting, pending=tuple(each for each in found.causes if each not in lasting))


def diagnose_window(group: ServingGroup, objectives: Objectives) -> GroupDiagnosis:
    """The diagnosis of the last window alone."""
    features, pressed = group_features(group, objectives)
    found = {row.cause for row in ROWS if all(each.truth(features) is Truth.YES for each in row.conditions)}
    near: dict[str, NearMiss] = {}
    for row in ROWS:
        why = None if row.cause in found else _near_miss(row, features)
        if why is not None:
            near.setdefault(row.cause, NearMiss(CAUSES[row.cause], why))
    causes = tuple(cause for name, cause in CAUSES.items() if name in found and cause.within not in found)
    return GroupDiagnosis(group, objectives, features, pressed, causes, tuple(near.values()))


def _near_miss(row: CauseRow, features: Features) -> str | None:
    """The only condition that does not hold, as text; None if there are more, or data is missing."""
    unmet = [(each, truth) for each in row.conditions if (truth := each.truth(features)) is not Truth.YES]
    if len(unmet) != 1 or unmet[0][1] is Truth.MISSING or len(row.conditions) < 3:
        return None
    return " or ".join(_describe(unmet[0][0], features))


def _describe(condition: Condition, features: Features) -> Iterator[str]:
    negated = isinstance(condition, UnlessCondition)
    for part in condition.parts():
        value = features[part.feature]
        if value is not None:
            yield f"{part.feature.replace('_', ' ')} {value:.3g}, {_needed(part, negated)}"


def _needed(part: ThresholdCondition, negated: bool) -> str:
    above = (part.side == "above") != negated
    limit = part.fails_from if negated else part.holds_from
    return f"threshold {'' if above else 'at most '}{limit:g}"
