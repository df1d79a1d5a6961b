"""Identity rows: what several series of one GPU share, and what keeps two apart."""

from __future__ import annotations

import pytest
from gpu_advisor.sources.exporters.detection import CanonicalRows, GpuInventory, merge_identities
from gpu_advisor.sources.exporters.identity_rows import RowReader
from gpu_advisor.sources.exporters.mapping import ExporterMapping
from gpu_advisor.sources.exporters.mapping_files import mappings

from tests.unit.advisor.builders import labels

DCGM = next(each for each in mappings() if each.name == "dcgm-exporter")
TARGET = {"job": "dcgm", "instance": "a:9400", "Hostname": "n", "modelName": "H100"}


@pytest.mark.parametrize("mapping", mappings(), ids=lambda mapping: mapping.name)
def test_a_row_is_the_same_whatever_was_read_before(mapping: ExporterMapping) -> None:
    series = [
        labels(UUID=uuid, uuid=uuid, gpu=gpu, pod=pod, cluster=cluster, **TARGET)
        for uuid in ("GPU-1", "GPU-2", "")
        for gpu in ("0", "N/A")
        for pod in ("p", "q")
        for cluster in ("east", "west")
    ]
    together = RowReader(mapping, "cluster").read(series)
    assert together == [RowReader(mapping, "cluster").read([each])[0] for each in series]
    assert [row["cluster"] for row in together] == [dict(each)["cluster"] for each in series]


def test_series_of_several_pods_have_one_row() -> None:
    def of_pods(*pods: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        return {DCGM.name: {labels(UUID="GPU-1", gpu="0", pod=pod, **TARGET): 1.0 for pod in pods}}

    canonical = CanonicalRows()
    present = merge_identities([DCGM], of_pods("now"), canonical)
    recent = merge_identities([DCGM], of_pods("now", "before", "long ago"), canonical)
    assert (len(present), len(recent)) == (1, 1)
    assert list(GpuInventory(present, recent).rows) == list(present)
    former = merge_identities([DCGM], {DCGM.name: {labels(UUID="GPU-2", gpu="1", **TARGET): 1.0}}, canonical)
    assert [row["uuid"] for row in GpuInventory(present, recent).with_former(former).recent] == ["GPU-1", "GPU-2"]
