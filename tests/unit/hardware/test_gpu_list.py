"""The one list of GPU types: what planner, allocator, catalogue and simulator make of a name."""

from __future__ import annotations

import pytest
from gpu_advisor.allocation.gpu_request import parse_request
from gpu_advisor.cost.catalogue import builtin_catalogue
from gpu_advisor.cost.offers import parse_gpu
from gpu_advisor.hardware.cluster_spec import parse_cluster
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_table import GPU_SPECS
from gpu_advisor.hardware.gpu_types import GIB, nominal_gb, parse_gpu_type


@pytest.mark.parametrize("name", sorted(GPU_SPECS))
def test_every_type_is_known_to_planner_allocator_and_catalogue(name: str) -> None:
    spec = GPU_SPECS[name]
    cluster = parse_cluster(f"2x{name}-{spec.sizes[-1]}GB")
    assert cluster.gpu_type == parse_request(name).gpu_type == parse_gpu(name).name == name
    assert cluster.gpus * cluster.memory_bytes == 2 * spec.sizes[-1] * GIB
    if spec.generation == "gaudi":
        return  # its driver reports a part number
    assert parse_gpu_type(spec.driver_name.replace("{gib}", str(spec.sizes[0]))).name == name


@pytest.mark.parametrize(
    ("text", "gpu_type", "gpus", "gib", "card_ratio"),
    [
        ("A10G", "A10G", 1, 24, 1),
        ("4xA10G", "A10G", 4, 24, 1),
        ("1xT4G", "T4G", 1, 16, 1),
        ("8xMI250X", "MI250X", 16, 64, 0.5),  # two dies a card
        ("1xMI250X-64GB", "MI250X", 1, 64, 0.5),
        ("NVIDIA GH200 480GB", "GH200", 1, 96, 1),  # 480 GB are the host's
        ("GH200-144GB", "GH200", 1, 144, 1),
        ("8xB200", "B200", 8, 180, 1),
        ("4xGB200", "GB200", 4, 186, 1),
        ("8xH20", "H20", 8, 96, 1),
        ("8xMI300X", "MI300X", 8, 192, 1),
        ("8xMI355X", "MI355X", 8, 288, 1),
        ("2xH100 NVL", "H100", 2, 94, 1),
        ("0.5xA10", "A10", 1, 12, 0.5),
        ("1/6xA10", "A10", 1, 4, 1 / 6),
        ("1xA10-4GB", "A10", 1, 4, 1 / 6),
        ("2xA100-3g.20gb", "A100", 2, 20, 0.5),
        ("7xH100 MIG 1g.10gb", "H100", 7, 10, 0.125),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000", 1, 96, 1),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000ADA", 1, 48, 1),
    ],
)
def test_cards_and_parts_of_cards(text: str, gpu_type: str, gpus: int, gib: float, card_ratio: float) -> None:
    found = parse_cluster(text)
    assert (found.gpu_type, found.gpus) == (gpu_type, gpus)
    assert found.memory_bytes / GIB == pytest.approx(gib)
    assert found.card_ratio == pytest.approx(card_ratio, abs=0.001)


@pytest.mark.parametrize("text", ["0xA10", "1/0xA10", "2.5xA10", "1xA10-0.1GB"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(PlanError):
        parse_cluster(text)


@pytest.mark.parametrize(
    ("name", "reported_gib", "nominal"),
    [("L4", 22.35, 24), ("GB200", 192, 186), ("B200", 179.06, 180), ("B300", 262.5, 270), ("T4", 15, 16),
     ("H100", 79.6, 80), ("H100", 93.6, 94), ("A10", 4, 4.0), ("UNKNOWN", 17.3, 17.3)],
)  # fmt: skip
def test_one_figure_a_card_whatever_is_reported(name: str, reported_gib: float, nominal: float) -> None:
    assert nominal_gb(name, reported_gib * GIB) == nominal


def test_the_catalogue_has_one_figure_a_card() -> None:
    for offer in builtin_catalogue().offers:
        if offer.gpu_type in GPU_SPECS:
            assert offer.gpu_memory_gib in GPU_SPECS[offer.gpu_type].sizes, offer
