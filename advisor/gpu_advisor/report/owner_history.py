"""Who used each GPU in each step of a period, from gpu-exporter's series. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.observation.owners import owner_of_row
from gpu_advisor.promql.expressions import ConstantLabel, Labels, Matcher, Selector, union
from gpu_advisor.report import series

#: The owners of a GPU by index of a step.
OwnersByStep = Mapping[int, frozenset[GpuOwner]]

_OWNER, _OWNER_SOURCE = "owner", "owner_source"

#: Owners, and the exporter's working sources of owners: while there is one, a GPU without an owner has none.
OWNERS = union(
    ConstantLabel(Selector("gpu_owner_info"), series.PART_LABEL, _OWNER),
    ConstantLabel(
        Selector("gpu_exporter_owner_source_info", matchers=(Matcher("state", "=~", "ok|stale"),)),
        series.PART_LABEL,
        _OWNER_SOURCE,
    ),
)


def owners_by_step(
    rows: Mapping[Labels, Mapping[int, float]], key: Callable[[Mapping[str, str]], str]
) -> tuple[dict[str, OwnersByStep], frozenset[int]]:
    """By `key` of a row, the GPU's, and the steps in which owners are known."""
    found: dict[str, dict[int, frozenset[GpuOwner]]] = {}
    known: set[int] = set()
    for labels, steps in rows.items():
        each = dict(labels)
        known.update(steps)
        owner = owner_of_row(each) if each[series.PART_LABEL] == _OWNER else None
        if owner is not None:
            of_gpu = found.setdefault(key(each), {})
            for index in steps:
                of_gpu[index] = of_gpu.get(index, frozenset()) | {owner}
    return dict(found), frozenset(known)
