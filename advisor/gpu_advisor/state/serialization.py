"""Dataclasses to JSON text and back, for the ledger: recommendations, alerts, outcomes."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gpu_advisor.evaluation.recommendation import Recommendation

log = logging.getLogger(__name__)

T = TypeVar("T")


@cache
def _type_adapter(kind: Hashable) -> TypeAdapter[Any]:
    known: Any = kind
    return TypeAdapter(known)


def serialize(value: Any) -> str:
    """A dataclass as JSON. A recommendation's queries are stored as PromQL text."""
    if isinstance(value, Recommendation):
        evidence = tuple(replace(each, written=each.promql, expression=None) for each in value.evidence)
        value = replace(value, evidence=evidence)
    kind: Any = type(value)
    return _type_adapter(kind).dump_json(value).decode()


def deserialize(kind: type[T], text: str) -> T | None:
    """The value, or None (and a warning) for text that this version of the advisor cannot read."""
    hashable: Any = kind
    try:
        value: T = _type_adapter(hashable).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        log.warning(
            "dropped a %s from the ledger, written by another version or damaged: %s: %s",
            kind.__name__, ".".join(map(str, first["loc"])) or "the text", first["msg"],
        )  # fmt: skip
        return None
    return value
