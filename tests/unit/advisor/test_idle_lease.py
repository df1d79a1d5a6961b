"""Idle GPUs of a lease: reported to the lessee, and not given back by anybody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.owners import GpuOwner, Lease
from gpu_advisor.notify.metrics import MetricsExposition
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import SourceStatus, View

from tests.unit.advisor.builders import AT, ExporterTarget, FakeSource, GpuSpec, facts

SETTINGS = Settings.model_validate({"resources": {"gpu": {"min": 0, "max": 8}}})
LEASE = Lease("l1", AT - 9000, AT + 600)
CARDS = [GpuSpec(f"g{n}", 0.0 if n < 3 else 0.9, index=str(n)) for n in range(4)]
TWO_OF_THREE = {"g1": LEASE, "g2": LEASE, "g3": LEASE}


def advised(leases: dict[str, Lease]) -> dict[str, tuple[str, ...]]:
    return {each.kind: each.gpus for each in decide(facts(CARDS, SETTINGS, leases=leases), SETTINGS).recommendations}


@pytest.mark.parametrize(
    ("leases", "expected"),
    [
        ({}, {"idle_reclaim": ("g0", "g1", "g2")}),
        (TWO_OF_THREE, {"idle_reclaim": ("g0",), "idle_lease": ("g1", "g2")}),
        ({"g3": LEASE}, {"idle_reclaim": ("g0", "g1", "g2")}),  # it is busy
        ({"g0": LEASE._replace(made=AT - 60)}, {"idle_reclaim": ("g1", "g2")}),  # not yet
    ],
)
def test_the_lessee_is_asked(leases: dict[str, Lease], expected: dict[str, tuple[str, ...]]) -> None:
    assert advised(leases) == expected


def test_a_hung_job_on_a_lease_is_the_lessees() -> None:
    owner = GpuOwner(job="77", user="ada", kind="slurm", started=AT - 9000)
    known = facts(CARDS, SETTINGS, leases=TWO_OF_THREE, owners={"g1": (owner,)})
    known = replace(known, values={**known.values, "training_stepping": {"g1": 0.0}})
    (advice,) = (each for each in decide(known, SETTINGS).recommendations if each.kind == "idle_lease")
    assert advice.gpus == ("g1", "g2")
    assert (advice.current, advice.recommended) == (3, 1)  # the lessee works on the third
    assert advice.apply[0].startswith("# ask job 77 of ada first")
    assert advice.apply[1].startswith("gpu-advisor allocate --release l1 ")
    assert not [line for line in advice.apply if "scancel" in line]


def test_leases_on_gpus_that_are_listed_without_uuid() -> None:
    source = FakeSource([ExporterTarget("a:1", [GpuSpec("g0", 0.0), GpuSpec("g1", 0.0, index="1")])])
    leases = {"node-a/1": LEASE, "elsewhere/0": LEASE}
    assert evaluate(source, SETTINGS, AT, leases=leases).facts.leases == {"g1": LEASE, "elsewhere/0": LEASE}


def test_metrics_of_leases() -> None:
    evaluation = decide(facts(CARDS, SETTINGS, leases=TWO_OF_THREE), SETTINGS)
    view = View("c", SourceStatus("fake", "memory", True), evaluation)
    text = MetricsExposition().render(view, ()).decode()
    for line in ("gpu_advisor_leases 1.0", 'gpu_advisor_lease_gpus{lease="l1"} 3.0',
                 'gpu_advisor_lease_idle_gpus{lease="l1"} 2.0'):  # fmt: skip
        assert line in text.splitlines()
    assert 'gpu_advisor_lease_expires_timestamp_seconds{lease="l1"} 1.8000006e+09' in text
