"""Failing GPU: fatal errors, or memory that could not be mended. Prometheus alerts on it; here is what to do."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Projection, Recommendation
from gpu_advisor.evaluation.signals import FATAL_ERRORS, ROW_REMAP_FAILED, ROW_REMAP_PENDING, Signal
from gpu_advisor.settings import Settings

KIND = "failing_gpu"

#: Signals, from which value on, what it means, what to do; the worst first. A count over a window is extrapolated, so
#: half of one is one.
FAILURE_SIGNALS: tuple[tuple[Signal, float, str, str], ...] = (
    (ROW_REMAP_FAILED, 1.0, "could not replace a faulty memory row", "have the GPU replaced"),
    (FATAL_ERRORS, 0.5, "reported an error after which it cannot be trusted", "drain the node and reset the GPU"),
    (ROW_REMAP_PENDING, 1.0, "waits for a reset to replace faulty memory", "reset the GPU when its job is over"),
)


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation]:  # noqa: ARG001
    for gpu in pool.gpus:
        for signal, least, what, remedy in FAILURE_SIGNALS:
            if (facts.value(signal, gpu.uuid) or 0.0) >= least:
                yield _recommendation(facts, gpu, signal, least, what, remedy)
                break


def _recommendation(facts: Facts, gpu: Gpu, signal: Signal, least: float, what: str, remedy: str) -> Recommendation:
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
        evidence=(facts.evidence(signal, (gpu.uuid,), least),),
        rejected=(Alternative("go on", "what it computes from now on may be wrong, or the job may die"),),
        actions=(
            run_command("kubectl", "cordon", gpu.node, node=gpu.node, note="then drain it; on Slurm instead:"),
            run_command("scontrol", "update", f"nodename={gpu.node}", "state=drain", "reason=gpu", node=gpu.node),
            run_command("nvidia-smi", "--gpu-reset", "-i", "INDEX", node=gpu.node, note="when no process uses it"),
            *notes("if the error returns: nvidia-bug-report.sh, and have the GPU replaced"),
        ),
        gpus=(gpu.uuid,),
        nodes=(gpu.node,),
    )
