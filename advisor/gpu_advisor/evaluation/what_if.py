"""What-if: recommendations under other settings over the same facts. Pure; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.rendering.did_you_mean import hint
from gpu_advisor.settings import CostSettings, GpuLimits, PoolSettings, ResourceSettings, Settings


class WhatIfError(Exception):
    """The changed settings are invalid. `problems` are (path to the value, what is wrong and how to fix it)."""

    def __init__(self, problems: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, path)) or 'the body'}: {text}" for path, text in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class WhatIfComparison:
    """Evaluations and recommendations by id, under the current and the changed settings."""

    current: Evaluation
    changed: Evaluation
    current_advice: Mapping[str, Recommendation]
    changed_advice: Mapping[str, Recommendation]


def compare_settings(evaluation: Evaluation, settings: Settings, other: Settings) -> WhatIfComparison:
    current, changed = decide(evaluation.facts, settings), decide(evaluation.facts, other)
    return WhatIfComparison(current, changed, _by_id(current, settings), _by_id(changed, settings))


def _by_id(evaluation: Evaluation, settings: Settings) -> dict[str, Recommendation]:
    return {each.id(settings.cluster): each for each in evaluation.recommendations}


#: What may change: the facts were read under the current settings.
CHANGEABLE_SECTIONS: tuple[str, ...] = ("resources", "cost", "pools")
CHANGEABLE_POOL_KEYS: tuple[str, ...] = ("gpu", "gpus_per_replica")


def apply_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with `changes` applied; all else stays. Raises WhatIfError."""
    unknown = sorted(set(changes) - set(CHANGEABLE_SECTIONS))
    if unknown:
        raise WhatIfError([((unknown[0],), f"cannot be changed here; choose from {', '.join(CHANGEABLE_SECTIONS)}")])
    problems: list[tuple[tuple[str | int, ...], str]] = []
    resources = _try(
        problems, _section, ResourceSettings, settings.resources, changes.get("resources", {}), ("resources",)
    )
    cost = _try(problems, _section, CostSettings, settings.cost, changes.get("cost", {}), ("cost",))
    inherited = (resources or settings.resources).gpu
    pools = _try(problems, _pools, settings, inherited, changes.get("pools", {}))
    if problems:
        raise WhatIfError(problems)
    parts = {name: getattr(settings, name) for name in Settings.model_fields}
    try:
        return Settings.model_validate({**parts, "resources": resources, "cost": cost, "pools": pools})
    except ValidationError as error:
        raise WhatIfError(_problems(error, ())) from error


M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def _try(problems: list[tuple[tuple[str | int, ...], str]], read: Callable[..., T], *arguments: Any) -> T | None:
    """What is read; None if it is invalid, with its problems added."""
    try:
        return read(*arguments)
    except WhatIfError as error:
        problems += error.problems
        return None


def _section(model: type[M], present: BaseModel, changes: Any, path: tuple[str, ...]) -> M:
    if not isinstance(changes, Mapping):
        raise WhatIfError([(path, "give an object with the keys to change")])
    try:
        return model.model_validate(_merge(present.model_dump(), changes))
    except ValidationError as error:
        raise WhatIfError(_problems(error, path)) from error


def _pools(settings: Settings, inherited: GpuLimits, changes: Any) -> list[PoolSettings]:
    if not isinstance(changes, Mapping):
        raise WhatIfError([(("pools",), "give an object: pool names, each with the keys to change")])
    names = [pool.name for pool in settings.pools]
    unknown = sorted(set(changes) - set(names))
    if unknown:
        fix = hint(unknown[0], names) or "; no pool is configured: change `resources` instead"
        raise WhatIfError([(("pools", unknown[0]), f"no such pool{fix}")])
    problems: list[tuple[tuple[str | int, ...], str]] = []
    found = [_try(problems, _pool, inherited, pool, changes.get(pool.name, {})) for pool in settings.pools]
    if problems:
        raise WhatIfError(problems)
    return [pool for pool in found if pool is not None]


def _pool(inherited: GpuLimits, pool: PoolSettings, change: Any) -> PoolSettings:
    """`inherited`: the limits of a pool without its own, as changed; a change to one of them leaves the others."""
    path = ("pools", pool.name)
    if not isinstance(change, Mapping):
        raise WhatIfError([(path, f"give an object with {' and '.join(CHANGEABLE_POOL_KEYS)}")])
    unknown = sorted(set(change) - set(CHANGEABLE_POOL_KEYS))
    if unknown:
        raise WhatIfError(
            [((*path, unknown[0]), f"cannot be changed here; choose from {', '.join(CHANGEABLE_POOL_KEYS)}")]
        )
    present = pool if pool.gpu or "gpu" not in change else pool.model_copy(update={"gpu": inherited})
    return _section(PoolSettings, present, change, path)


def _merge(present: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key; replace all else."""
    merged = dict(present)
    for key, value in changes.items():
        former = merged.get(key)
        merged[key] = _merge(former, value) if isinstance(former, Mapping) and isinstance(value, Mapping) else value
    return merged


def _problems(error: ValidationError, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], str]]:
    return [((*path, *each["loc"]), each["msg"].removeprefix("Value error, ")) for each in error.errors()]
