"""Who had a GPU in a step: several owners, nobody, and unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, selectors_of
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.history_reader import read_history
from gpu_advisor.report.owner_history import OWNERS, IdentitySeries, merged, owners_by_step, pods_by_step
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.series import PART_LABEL
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.exporters.detection import TargetKey

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


TARGET = TargetKey("dcgm", "10.0.0.1:9400", "")
ASR, OWN = GpuOwner("speech", "asr", "main", kind="kubernetes"), "dcgm-exporter-x2x"
#: Labels of one series each, as three setups of Prometheus have them.
RENAMED = {"exported_namespace": "speech", "exported_pod": "asr", "exported_container": "main", "pod": OWN}
HONOURED = {"namespace": "speech", "pod": "asr", "container": "main"}
EXPORTERS_OWN = {"namespace": "monitoring", "pod": OWN, "container": "exporter"}


def series_of(labels: Mapping[str, str], *steps: int, gpu: str = "GPU-0", own: bool = False) -> IdentitySeries:
    return IdentitySeries(gpu, labels, TARGET, frozenset(steps), own)


@pytest.mark.parametrize(
    ("rows", "own_pods", "owners", "known"),
    [
        ([], {}, {}, {}),
        ([series_of(RENAMED, 0, 1)], {}, {0: {ASR}, 1: {ASR}}, {0, 1}),
        ([series_of(HONOURED, 0)], {TARGET: {OWN}}, {0: {ASR}}, {0}),
        # Idle in step 1: the series has the exporter's own pod, or none. Nobody has the GPU, and that is known.
        ([series_of(HONOURED, 0), series_of(EXPORTERS_OWN, 1)], {TARGET: {OWN}}, {0: {ASR}}, {0, 1}),
        ([series_of(RENAMED, 0), series_of({}, 1)], {}, {0: {ASR}}, {0, 1}),
        # An exporter that maps no pods knows nothing of owners.
        ([series_of({}, 0, 1)], {}, {}, set()),
        ([series_of(EXPORTERS_OWN, 0, 1)], {TARGET: {OWN}}, {}, set()),
        # Whose pod it is could not be read.
        ([series_of(HONOURED, 0)], None, {}, set()),
        # Where workloads' pods are renamed, the label pod is the exporter's own.
        ([series_of(EXPORTERS_OWN, 0), series_of(RENAMED, 1)], None, {1: {ASR}}, {0, 1}),
        # gpu-exporter's own series have its pod, too.
        ([series_of(HONOURED, 0, own=True)], {}, {}, set()),
        # Two pods share the GPU.
        (
            [series_of(RENAMED, 0), series_of({"exported_pod": "tts"}, 0)],
            {},
            {0: {ASR, GpuOwner(pod="tts", kind="kubernetes")}},
            {0},
        ),
    ],
)
def test_pods_by_step(
    rows: list[IdentitySeries],
    own_pods: Mapping[TargetKey, set[str]] | None,
    owners: dict[int, set[GpuOwner]],
    known: set[int],
) -> None:
    found, steps = pods_by_step(rows, own_pods)
    expected: object = owners
    assert found.get("GPU-0", {}) == expected
    assert steps.get("GPU-0", frozenset()) == frozenset(known)


def test_that_nobody_has_a_gpu_is_known_only_where_its_job_shows_pods() -> None:
    elsewhere = IdentitySeries("GPU-9", {}, TargetKey("bare-metal", "b:9400", ""), frozenset({0}))
    _, steps = pods_by_step([series_of(RENAMED, 0), series_of({}, 0, gpu="GPU-1"), elsewhere], {})
    assert steps == {"GPU-0": {0}, "GPU-1": {0}}


def test_gpu_exporters_owners_win_step_by_step() -> None:
    ann, bob = frozenset({ANN}), frozenset({BOB})
    assert merged({"GPU-0": {0: ann}}, {"GPU-0": {0: bob, 1: bob}, "GPU-1": {0: bob}}) == {
        "GPU-0": {0: ann, 1: bob},
        "GPU-1": {0: bob},
    }


END = 1_795_003_200
HOUR = 3600


def dcgm_lines(setup: str) -> Iterator[str]:
    """Two GPUs, one with a pod in the last two of four hours, another never."""
    for at in range(END - 4 * HOUR, END + 1, 60):
        own = f'instance="10.0.0.1:9400",job="dcgm",pod="{OWN}",namespace="monitoring"'
        yield f"up{{{own}}} 1 {at}\n"
        for number in (0, 1):
            labels = f'UUID="GPU-{number}",gpu="{number}",modelName="NVIDIA H100",Hostname="a"'
            used = number == 0 and at > END - 2 * HOUR
            target = 'instance="10.0.0.1:9400",job="dcgm"'
            if setup == "renamed":
                target = own
                if used:
                    labels += ',exported_pod="asr",exported_namespace="speech",exported_container="main"'
            elif used:
                target += ',pod="asr",namespace="speech",container="main"'
            elif setup == "honoured":
                target = own
            yield f"DCGM_FI_DEV_GPU_UTIL{{{labels},{target}}} {90 * used} {at}\n"


class Counting:
    """A source's range; `refused`: the query for the exporters' own pods."""

    def __init__(self, source: EmbeddedSource, refused: bool = False) -> None:
        self.source, self.refused = source, refused
        self.queries = self.own_pods = 0

    def __call__(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.queries += 1
        of_own_pods = isinstance(expression, Selector) and expression.metric == "up"
        self.own_pods += of_own_pods
        if self.refused and of_own_pods:
            raise SourceError(SourceErrorKind.BAD_RESPONSE, "refused by the test")
        return self.source.range(expression, start, end, step)


@pytest.fixture(scope="module", params=["renamed", "honoured", "bare"])
def dcgm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, History]]:
    """Pods under exported_*; under pod, with the exporter's own on free GPUs; and with none on free GPUs."""
    found = History(tmp_path_factory.mktemp(request.param) / "history.db")
    import_openmetrics(found, dcgm_lines(request.param), "", "")
    yield request.param, found
    found.close()


def read(history: History, refused: bool = False) -> tuple[FleetHistory, Counting]:
    source = EmbeddedSource(history)
    ask = Counting(source, refused)
    return read_history(ask, ReportPeriod(END, 1800, 8), source.samples), ask


def test_a_source_with_dcgm_alone_has_owners(dcgm: tuple[str, History]) -> None:
    setup, history = dcgm
    found, ask = read(history)
    assert set(found.owners) == {"GPU-0"}
    assert found.owners["GPU-0"] == dict.fromkeys((4, 5, 6, 7), frozenset({ASR}))
    assert found.owner_steps == {uuid: frozenset(range(8)) for uuid in ("GPU-0", "GPU-1")}
    assert ask.queries <= found.queries <= 13
    assert ask.own_pods == (setup != "renamed")


def test_they_are_the_owners_of_the_advice(dcgm: tuple[str, History]) -> None:
    _, history = dcgm
    now = evaluate(EmbeddedSource(history), Settings(), END).facts.owners
    found, _ = read(history)
    assert {uuid: {each.identity for each in owners} for uuid, owners in now.items()} == {
        uuid: steps[7] for uuid, steps in found.owners.items()
    }


def test_without_the_exporters_own_pods_only_renamed_labels_are_believed(dcgm: tuple[str, History]) -> None:
    setup, history = dcgm
    found, _ = read(history, refused=True)
    assert set(found.owners) == ({"GPU-0"} if setup == "renamed" else set())
    assert bool(found.unavailable) == (setup != "renamed")
