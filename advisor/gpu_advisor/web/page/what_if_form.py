"""The what-if form: fields for settings, the values entered, and how the recommendations would differ."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
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

    `high` limits the slider only: larger values can be typed. `current` is None if the setting is not set. What applies
    then is the `estimate`, or, in a pool that `inherits`, the value of `resources.gpu` as entered: `inherited`.
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
    inherits: bool = False
    inherited: float | None = None

    @property
    def display_value(self) -> str:
        present = "" if self.current is None else f"{self.current:g}"
        return (self.entered if _number(self.entered) is not None else "") if self.entered else present

    @property
    def effective(self) -> float | None:
        """The value entered, else the one that is set."""
        entered = _number(self.entered)
        return self.current if entered is None else entered

    @property
    def placeholder(self) -> str:
        """What applies while nothing is entered."""
        if self.estimate:
            return f"{self.estimate.amount:.2f}"
        return "" if self.inherited is None else f"{self.inherited:g}"

    @property
    def note(self) -> str:
        """Where the value comes from, or what it replaces."""
        if self.inherits:
            value = "none" if self.inherited is None else self._with_unit(self.inherited)
            return f"instead of {value}, inherited" if self.entered else f"inherited: {value}"
        if self.estimate and not self.entered:
            price = self.estimate
            return f"list price {price.amount:.2f} {price.currency} of {price.newest}, an estimate"
        if self.current is not None and self.effective != self.current:
            return f"now {self._with_unit(self.current)}"
        return ""

    def _with_unit(self, value: float) -> str:
        return f"{value:g}\N{NO-BREAK SPACE}{self.unit}"


@dataclass(frozen=True, slots=True)
class FieldGroup:
    title: str
    fields: tuple[FormField, ...]


@dataclass(frozen=True, slots=True)
class RecommendationChange:
    """A recommendation that remains, with another number."""

    now: Recommendation
    then: Recommendation

    @property
    def text(self) -> str:
        """`keeps 2 GPUs instead of 0`"""
        verb = "keeps " if self.then.direction == "down" else ""
        return f"{verb}{self.then.recommended:.0f} {self.then.unit} instead of {self.now.recommended:.0f}"


@dataclass(frozen=True, slots=True)
class RecommendationDiff:
    begins: tuple[Recommendation, ...]
    ends: tuple[Recommendation, ...]
    changes: tuple[RecommendationChange, ...]
    unchanged_count: int
    snoozed_count: int

    @property
    def counts(self) -> str:
        """`14 unchanged, 1 changed, 1 snoozed`: each recommendation counts once, a snoozed one as snoozed."""
        found = [(self.unchanged_count, "unchanged"), (len(self.changes), "changed"), (len(self.begins), "added"),
                 (len(self.ends), "removed"), (self.snoozed_count, "snoozed")]  # fmt: skip
        return ", ".join(f"{count:,} {word}" for count, word in found if count)


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
        limits = _limits(name, (*path, "gpu"), pool.gpu)
        found.append(FieldGroup(f"Pool {pool.name}", (*limits, size)))
    return [*found, FieldGroup("Cost", tuple(_cost_fields(settings, models)))]


def _limits(name: str, path: SettingPath, limits: BaseModel | None) -> Iterator[FormField]:
    """Without limits of its own, a pool inherits those of `resources.gpu`."""
    for key, label, unit, low, high, step in _GPU_FIELDS:
        current = getattr(limits, key, None)
        yield FormField(f"{name}.{key}", label, unit, (*path, key), current, low, high, step, inherits=limits is None)


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
    filled = [FieldGroup(group.title, tuple(_fill_field(field, given.get(field.name, "")) for field in group.fields))
              for group in form]  # fmt: skip
    values = {field.path: field.effective for group in filled for field in group.fields}
    return [FieldGroup(group.title, tuple(_inherit(field, values) for field in group.fields)) for group in filled]


def _inherit(field: FormField, values: Mapping[SettingPath, float | None]) -> FormField:
    return replace(field, inherited=values[("resources", "gpu", field.path[-1])]) if field.inherits else field


def _fill_field(field: FormField, text: str) -> FormField:
    text = text.strip()[:32]
    problem = "" if not text or _number(text) is not None else f"{text!r} is not a number: use e.g. 85 or 0.5"
    return _with(field, text, problem)


def _with(field: FormField, given: str, problem: str) -> FormField:
    return replace(field, entered=given, problem=problem)


def setting_overrides(form: Sequence[FieldGroup]) -> dict[str, Any]:
    """The changed settings, nested as in the configuration. In a pool that inherits, every value entered is a change:
    the value that it equals today may change with `resources.gpu`."""
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
    """The form with problems at their fields, and the problems without a field of their own, in the form's words."""
    at_fields: dict[tuple[str | int, ...], list[str]] = {}
    for path, words in problems:
        at_fields.setdefault(path, []).append(words)
    marked = [FieldGroup(group.title, tuple(_with(field, field.entered, "; ".join(at_fields.get(field.path, ())) or
                                                  field.problem) for field in group.fields))
              for group in form]  # fmt: skip
    paths = {field.path for group in form for field in group.fields}
    return marked, [_in_words_of_form(form, path, words) for path, words in problems if path not in paths]


def _in_words_of_form(form: Sequence[FieldGroup], path: tuple[str | int, ...], words: str) -> str:
    """`Pool chat: "minimum GPUs per pool" (9) is above ...`: labels instead of keys, the title instead of the path."""
    concerned = {group.title: [field for field in group.fields if field.path[: len(path)] == path] for group in form}
    titles = [title for title, fields in concerned.items() if fields]
    labels = {field.path[-1]: field.label for fields in concerned.values() for field in fields}
    if labels:
        keys = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
        pattern = rf"(?<![\w.])(?:gpu\.)?({keys})(?![\w.])(?= \(| at least | and gpu\.| of the pool)"
        words = re.sub(pattern, lambda found: f'"{labels[found[1]]}"', words)
    if len(titles) == 1:
        return f"{titles[0]}: {words}"
    return words if titles else f"{'.'.join(map(str, path))}: {words}"


def difference(found: WhatIfComparison, snoozed: Container[str] = ()) -> RecommendationDiff:
    """`snoozed` are ids of recommendations that are not compared: nobody acts on them now."""
    now = {id_: each for id_, each in found.current_advice.items() if id_ not in snoozed}
    then = {id_: each for id_, each in found.changed_advice.items() if id_ not in snoozed}
    both = [id_ for id_ in then if id_ in now]
    changed = [id_ for id_ in both if now[id_].recommended != then[id_].recommended]
    return RecommendationDiff(
        tuple(each for id_, each in then.items() if id_ not in now),
        tuple(each for id_, each in now.items() if id_ not in then),
        tuple(RecommendationChange(now[id_], then[id_]) for id_ in changed),
        len(both) - len(changed),
        len(found.current_advice) - len(now),
    )


def gpu_models(view: View) -> Mapping[str, GpuPrice | None]:
    """The models of the fleet with their prices; None if unknown."""
    if view.evaluation is None:
        return {}
    prices = view.evaluation.model_prices
    return {gpu.name: prices.get(gpu.name) for gpu in view.evaluation.facts.gpus}
