"""Failing GPU: fatal errors or unrepairable memory. Prometheus rules alert on these; this policy says what to do."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.node_commands import drain_node
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Projection, Recommendation
from gpu_advisor.evaluation.signals import FATAL_ERRORS, ROW_REMAP_FAILED, ROW_REMAP_PENDING, Signal
from gpu_advisor.settings import Settings

KIND = "failing_gpu"

#: Signal, threshold, meaning and remedy, worst first. An increase over a window is extrapolated: 0.5 means one.
FAILURE_SIGNALS: tuple[tuple[Signal, float, str, str], ...] = (
    (ROW_REMAP_FAILED, 1.0, "could not remap a faulty memory row", "replace the GPU"),
    (FATAL_ERRORS, 0.5, "reported a fatal error (Xid)", "drain the node and reset the GPU"),
    (ROW_REMAP_PENDING, 1.0, "needs a reset to remap faulty memory rows", "reset the GPU after its job ends"),
)


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation]:  # noqa: ARG001
    for gpu in pool.devices:
        for signal, threshold, what, remedy in FAILURE_SIGNALS:
            if (facts.value(signal, gpu.uuid) or 0.0) >= threshold:
                yield _recommendation(facts, gpu, signal, threshold, what, remedy)
                break


def _recommendation(facts: Facts, gpu: Gpu, signal: Signal, threshold: float, what: str, remedy: str) -> Recommendation:
    return Recommendation(
        kind=KIND,
        direction="change",
        scope=gpu.scope,
        severity="warning" if signal is ROW_REMAP_PENDING else "critical",
        summary=f"{gpu.scope} {what}: {remedy}",
        current=1,
        recommended=0,
        unit="affected GPUs",
        diagnosis="failing_hardware",
        explanation=f"The GPU {what}.",
        confidence="high",
        projection=Projection(),
        evidence=(facts.evidence(signal, (gpu.uuid,), threshold),),
        rejected=(Alternative("keep using it", "results may be wrong, or the job may crash"),),
        actions=(
            *drain_node(gpu, "gpu"),
            *_reset(facts, gpu),
            *notes("if the error returns: replace the GPU"),
        ),
        gpus=(gpu.uuid,),
        nodes=(gpu.node,),
    )


def _reset(facts: Facts, gpu: Gpu) -> Iterator[Action]:
    if gpu.vendor == "nvidia":
        label = facts.uuid_label(gpu.uuid)
        if names_one("gpu", label):
            reset = ("nvidia-smi", "--gpu-reset", "-i", label)
            yield run_command(*reset, node=gpu.node, note="once no process uses it")
        yield run_command("nvidia-bug-report.sh", node=gpu.node, note="for the vendor")
