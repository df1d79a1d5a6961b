"""The what-if form: fields for settings, the values entered, and how the recommendations would differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from pydantic import BaseModel

from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.what_if import WhatIfComparison
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View

SettingPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FormField:
    """A numeric setting. `name` is the query parameter, `path` the setting's path in the configuration.

    `high` limits the slider only: larger values can be typed. `current` is None if the setting is not set; `estimate`
    is what is assumed then.
    """

    name: str
    label: str
    unit: str
    path: SettingPath
    current: float | None
    low: float
    high: float
    step: float = 1
    entered: str = ""
    problem: str = ""
    estimate: GpuPrice | None = None

    @property
    def display_value(self) -> str:
        present = "" if self.current is None else f"{self.current:g}"
        return (self.entered if _number(self.entered) is not None else "") if self.entered else present


@dataclass(frozen=True, slots=True)
class FieldGroup:
    title: str
    fields: tuple[FormField, ...]


@dataclass(frozen=True, slots=True)
class RecommendationChange:
    """A recommendation that remains, with another number."""

    now: Recommendation
    then: Recommendation


@dataclass(frozen=True, slots=True)
class RecommendationDiff:
    begins: tuple[Recommendation, ...]
    ends: tuple[Recommendation, ...]
    changes: tuple[RecommendationChange, ...]
    unchanged_count: int


#: In `resources.gpu` and in pools: key, label, unit, and the slider's range and step.
_GPU_FIELDS: tuple[tuple[str, str, str, float, float, float], ...] = (
    ("target_utilization", "target GPU utilization", "%", 50, 100, 1),
    ("scale_up_threshold", "scale up above", "%", 10, 100, 1),
    ("scale_down_threshold", "scale down below", "%", 5, 100, 1),
    ("min", "minimum GPUs per pool", "GPUs", 0, 64, 1),
    ("max", "maximum GPUs per pool", "GPUs", 1, 128, 1),
)
_RESOURCE_FIELDS: tuple[tuple[SettingPath, str, str, float, float, float], ...] = (
    (("memory", "target_usage"), "target GPU memory usage", "%", 10, 100, 1),
    (("memory", "tolerance"), "GPU memory tolerance (±)", "points", 0, 50, 1),
    (("cpu", "target_usage"), "target CPU usage", "%", 10, 100, 1),
    (("cpu", "tolerance"), "CPU tolerance (±)", "points", 0, 50, 1),
)


def form_fields(settings: Settings, models: Mapping[str, GpuPrice | None]) -> list[FieldGroup]:
    """The form for these settings, with a price field for each of the GPU `models`, which have their present prices."""
    resources = settings.resources
    targets = [*_limits("gpu", ("resources", "gpu"), resources.gpu)]
    for path, label, unit, low, high, step in _RESOURCE_FIELDS:
        present = getattr(getattr(resources, path[0]), path[1])
        targets.append(FormField(".".join(path), label, unit, ("resources", *path), present, low, high, step))
    found = [FieldGroup("Targets and limits", tuple(targets))]
    for number, pool in enumerate(settings.pools):
        path, name = ("pools", pool.name), f"pool{number}"
        size = FormField(
            f"{name}.group", "GPUs per replica", "GPUs", (*path, "gpus_per_replica"), pool.gpus_per_replica, 1, 16
        )
        limits = _limits(name, (*path, "gpu"), settings.gpu_limits(pool))
        found.append(FieldGroup(f"Pool {pool.name}", (*limits, size)))
    return [*found, FieldGroup("Cost", tuple(_cost_fields(settings, models)))]


def _limits(name: str, path: SettingPath, limits: BaseModel) -> Iterator[FormField]:
    for key, label, unit, low, high, step in _GPU_FIELDS:
        yield FormField(f"{name}.{key}", label, unit, (*path, key), getattr(limits, key), low, high, step)


def _cost_fields(settings: Settings, models: Mapping[str, GpuPrice | None]) -> Iterator[FormField]:
    cost = settings.cost
    per_hour = f"{cost.currency} per hour"
    yield FormField("budget", "budget", per_hour, ("cost", "budget_per_hour"), cost.budget_per_hour, 0, 200, 0.5)
    names = sorted({*models, *cost.gpu_price_per_hour} - {""})
    for number, model in enumerate(names):
        path = ("cost", "gpu_price_per_hour", model)
        price, present = cost.gpu_price_per_hour.get(model), models.get(model)
        estimate = present if present and present.estimated else None
        yield FormField(f"price{number}", f"price of {model}", per_hour, path, price, 0, 10, 0.05, estimate=estimate)


def fill_form(form: Sequence[FieldGroup], given: Mapping[str, str]) -> list[FieldGroup]:
    """The form with the values entered, and a problem at each field whose value is not a number."""
    return [FieldGroup(group.title, tuple(_fill_field(field, given.get(field.name, "")) for field in group.fields))
            for group in form]  # fmt: skip


def _fill_field(field: FormField, text: str) -> FormField:
    text = text.strip()[:32]
    problem = "" if not text or _number(text) is not None else f"{text!r} is not a number: use e.g. 85 or 0.5"
    return _with(field, text, problem)


def _with(field: FormField, given: str, problem: str) -> FormField:
    return replace(field, entered=given, problem=problem)


def setting_overrides(form: Sequence[FieldGroup]) -> dict[str, Any]:
    """The changed settings, nested as in the configuration."""
    found: dict[str, Any] = {}
    for field in (field for group in form for field in group.fields):
        number = _number(field.entered) if field.entered else None
        if number is None or number == field.current:
            continue
        inner = found
        for key in field.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[field.path[-1]] = int(number) if number == int(number) else number
    return found


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def attach_problems(
    form: Sequence[FieldGroup], problems: Sequence[tuple[tuple[str | int, ...], str]]
) -> tuple[list[FieldGroup], list[str]]:
    """The form with problems at their fields, and the problems without a field of their own."""
    by_path = dict(problems)
    marked = [
        FieldGroup(group.title, tuple(_with(field, field.entered, by_path.pop(field.path, field.problem))
                                 for field in group.fields))
        for group in form
    ]  # fmt: skip
    return marked, [f"{'.'.join(map(str, path))}: {words}" for path, words in by_path.items()]


def difference(found: WhatIfComparison) -> RecommendationDiff:
    now, then = found.current_advice, found.changed_advice
    both = [id_ for id_ in then if id_ in now]
    changed = [id_ for id_ in both if now[id_].recommended != then[id_].recommended]
    return RecommendationDiff(
        tuple(each for id_, each in then.items() if id_ not in now),
        tuple(each for id_, each in now.items() if id_ not in then),
        tuple(RecommendationChange(now[id_], then[id_]) for id_ in changed),
        len(both) - len(changed),
    )


def gpu_models(view: View) -> Mapping[str, GpuPrice | None]:
    """The models of the fleet with their prices; None if unknown."""
    if view.evaluation is None:
        return {}
    prices = view.evaluation.model_prices
    return {gpu.name: prices.get(gpu.name) for gpu in view.evaluation.facts.gpus}
