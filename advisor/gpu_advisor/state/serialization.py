"""What the ledger keeps as text: recommendations, promises and outcomes, put down and read back whole."""

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
    """A dataclass as JSON. A recommendation's queries go in as text."""
    if isinstance(value, Recommendation):
        evidence = tuple(replace(each, written=each.promql, expression=None) for each in value.evidence)
        value = replace(value, evidence=evidence)
    shape: Any = type(value)
    return _type_adapter(shape).dump_json(value).decode()


def deserialize(kind: type[T], text: str) -> T | None:
    """The value, or None for text that another version of the advisor put down in another shape."""
    shape: Any = kind
    try:
        value: T = _type_adapter(shape).validate_json(text)
    except ValidationError as error:
        log.info("a %s in the ledger is of another shape (%d errors): left out", kind.__name__, error.error_count())
        return None
    return value
