"""Each exporter's page against values worked out by hand; recorded pages, where a folder of them is given.

pytest tests/unit/sources/test_exporter_pages.py --exporter-pages FOLDER
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.embedded.openmetrics_import import with_target_labels
from gpu_advisor.sources.exporters.exposition_check import (
    MappedPage,
    MappedThing,
    Page,
    apply_mappings,
    unused_metrics,
)
from gpu_advisor.sources.exporters.mapping_files import mappings
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.sources.exporter_pages import PAGES, TARGET, PageGpu
from tests.unit.sources.recorded_pages import RECORDED_PAGES, RecordedGpu


def page_of(text: str, target: dict[str, str]) -> Page:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[with_target_labels(sample.labels, target)] = sample.value
    return found


def mapped(text: str, target: dict[str, str]) -> MappedPage:
    [found] = apply_mappings(mappings(), page_of(text, target))
    return found


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", PAGES)
def test_identity_utilization_and_memory(name: str) -> None:
    page = PAGES[name]
    found = mapped(page.text, page.target)
    assert found.mapping.name == page.mapping
    assert found.unidentified == 0
    got = {}
    for thing in found.things:
        values = [thing.values.get(name) for name in ("gpu_utilization", "gpu_memory_used", "gpu_memory_total")]
        labels = [thing.identity.get(name, "") for name in ("nodename", "index", "parent_uuid")]
        got[thing.identity["uuid"]] = (*values, thing.values.get("gpu_power"), *labels)
    assert got == {gpu.uuid: _wanted(gpu) for gpu in page.gpus}
    assert set(page.missing) <= set(found.missing)
    names = {thing.identity["uuid"]: thing.identity.get("name") for thing in found.things}
    assert {gpu.uuid: names[gpu.uuid] for gpu in page.gpus if gpu.name} == {
        gpu.uuid: gpu.name for gpu in page.gpus if gpu.name
    }


def _wanted(gpu: PageGpu) -> tuple[object, ...]:
    values = (gpu.utilization, gpu.memory_used, gpu.memory_total, gpu.watts)
    return (*map(near, values), gpu.node, gpu.index, gpu.parent)


@pytest.mark.parametrize("name", PAGES)
def test_gpus_of_two_targets_stay_apart(name: str) -> None:
    """The same page from two hosts that give their GPUs no identifier of their own: none is merged."""
    page = PAGES[name]
    first, second = (mapped(page.text, {**page.target, "instance": instance}) for instance in ("a:1", "b:1"))
    both = [{thing.identity["uuid"] for thing in found.things} for found in (first, second)]
    assert [len(each) for each in both] == [len(page.gpus)] * 2
    indirect = {uuid for uuid in both[0] if uuid.startswith("a:1")}
    assert len(both[0] | both[1]) == len(page.gpus) + len(indirect)


def recorded_pages(config: pytest.Config) -> list[Path]:
    folder = config.getoption("--exporter-pages")
    return sorted(Path(folder).glob("*.prom")) if folder else []


def test_recorded_pages(request: pytest.FixtureRequest) -> None:
    """Of any page: each GPU once, ratios within 0 and 1, sizes that are, and slices with their board."""
    pages = recorded_pages(request.config)
    if not pages:
        pytest.skip("give a folder of pages with --exporter-pages")
    unread = []
    for file in pages:
        page = page_of(file.read_text(), TARGET)
        found = apply_mappings(mappings(), page)
        if page and not found:
            unread.append(file.name)
        for each in found:
            names = [thing.identity[each.mapping.by[0]] for thing in each.things]
            assert len(set(names)) == len(names) > 0, file
            assert each.unidentified == 0, file
            for thing in each.things:
                for quantity in ("gpu_utilization", "gpu_memory_used", "gpu_sm_activity", "gpu_tensor_activity"):
                    assert 0 <= thing.values.get(quantity, 0) <= 1, (file, quantity)
                for quantity, low, high in (("gpu_memory_total", 1e9, 1e12), ("gpu_power", 1, 2000)):
                    assert low <= thing.values.get(quantity, low) <= high, (file, quantity)
                assert not [q for q, value in thing.values.items() if math.isinf(value) or value > 1e13], file
                assert ("parent_uuid" in thing.identity) == ("mig_profile" in thing.identity), file
    print(f"{len(pages)} pages; without a mapping: {', '.join(unread) or 'none'}")


def test_recorded_pages_by_hand(request: pytest.FixtureRequest) -> None:
    """Utilization, memory and node of each GPU, against values worked out by hand."""
    pages = [file for file in recorded_pages(request.config) if file.stem in RECORDED_PAGES]
    if not pages:
        pytest.skip("give a folder of pages with --exporter-pages")
    for file in pages:
        wanted = RECORDED_PAGES[file.stem]
        found = apply_mappings(mappings(), page_of(file.read_text(), TARGET))
        if wanted is None:
            assert found == (), file
            continue
        [page] = found
        assert sorted(map(_recorded, page.things)) == sorted(map(_by_hand, wanted)), file


def _recorded(thing: MappedThing) -> tuple[float, float, str]:
    """Rounded, so that they can be compared in any order; -1 for no value."""
    utilization, memory = (thing.values.get(quantity, -1.0) for quantity in ("gpu_utilization", "gpu_memory_used"))
    return round(utilization, 9), round(memory, 9), thing.identity.get("nodename", "")


def _by_hand(gpu: RecordedGpu) -> tuple[float, float, str]:
    memory = gpu.used / gpu.total if gpu.used is not None and gpu.total else -1.0
    return (round(-1.0 if gpu.utilization is None else gpu.utilization, 9), round(memory, 9), gpu.node)


def test_metrics_that_no_mapping_reads_are_listed() -> None:
    text = PAGES["dcgm"].text + 'DCGM_FI_DEV_FAN_SPEED{UUID="GPU-6d5c"} 1\nprocess_cpu_seconds_total 3\n'
    page = page_of(text, TARGET)
    assert unused_metrics(apply_mappings(mappings(), page), page) == ("DCGM_FI_DEV_FAN_SPEED",)
