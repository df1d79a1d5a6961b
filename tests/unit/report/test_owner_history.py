"""Who had a GPU in a step: several owners, nobody, and unknown."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.promql.expressions import Labels, selectors_of
from gpu_advisor.report.owner_history import OWNERS, owners_by_step
from gpu_advisor.report.series import PART_LABEL

ANN, BOB = GpuOwner(user="ann", kind="process"), GpuOwner("ml", "train", kind="kubernetes")


def row(part: str, **labels: str) -> Labels:
    return tuple(sorted({PART_LABEL: part, **labels}.items()))


def of_ann(uuid: str = "GPU-0") -> Labels:
    return row("owner", uuid=uuid, owner_user="ann", owner_kind="process")


def of_bob() -> Labels:
    return row("owner", uuid="GPU-0", owner_namespace="ml", owner_pod="train", owner_kind="kubernetes")


@pytest.mark.parametrize(
    ("rows", "owners", "known"),
    [
        ({}, {}, set()),
        ({of_ann(): [0, 1]}, {"GPU-0": {0: {ANN}, 1: {ANN}}}, {0, 1}),
        ({of_ann(): [0, 1], of_bob(): [1, 2]}, {"GPU-0": {0: {ANN}, 1: {ANN, BOB}, 2: {BOB}}}, {0, 1, 2}),
        ({of_ann(): [0], of_ann("GPU-1"): [0]}, {"GPU-0": {0: {ANN}}, "GPU-1": {0: {ANN}}}, {0}),
        # A source that works: nobody has the GPUs. A row without a name is nobody either.
        ({row("owner_source", source="kubelet", state="ok"): [0, 1]}, {}, {0, 1}),
        ({row("owner", uuid="GPU-0", owner_kind="process"): [3]}, {}, {3}),
    ],
)
def test_owners_by_step(
    rows: Mapping[Labels, list[int]], owners: dict[str, dict[int, set[GpuOwner]]], known: set[int]
) -> None:
    found, steps = owners_by_step(
        {labels: dict.fromkeys(indices, 1.0) for labels, indices in rows.items()}, lambda labels: labels["uuid"]
    )
    expected: object = (owners, known)
    assert (found, steps) == expected


def test_only_sources_that_work_know_that_nobody_has_a_gpu() -> None:
    """States of the exporter: absent, no_permission, no_host_pids and failed know nothing."""
    [source] = [each for each in selectors_of(OWNERS) if each.metric == "gpu_exporter_owner_source_info"]
    assert [(each.label, each.op, each.value) for each in source.matchers] == [("state", "=~", "ok|stale")]
