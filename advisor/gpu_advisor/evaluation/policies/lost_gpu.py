"""Lost GPU: paid for, and of no use until somebody acts. All GPUs of a node at once are one fault of the node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.lost import HARDWARE_REASONS, faulty_nodes, is_lost
from gpu_advisor.evaluation.policies.gpu_commands import drain_node
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Recommendation, Scope, Waste
from gpu_advisor.evaluation.signals import GPU_UP_HIGHEST
from gpu_advisor.settings import Settings

KIND = "lost_gpu"


def recommend(facts: Facts, _settings: Settings, pool: Pool, /) -> Iterator[Recommendation]:
    """One recommendation for each lost GPU, and one for each faulty node, from the pool of its first GPU."""
    if not any(is_lost(facts, gpu) for gpu in pool.devices):
        return  # nearly always: what follows looks at the whole fleet, once per pool
    faulty = faulty_nodes(facts)
    first = {gpu.node: gpu.uuid for gpu in reversed(facts.gpus)}
    for gpu in pool.devices:
        if not is_lost(facts, gpu):
            continue
        if gpu.node not in faulty:
            yield _recommendation(facts, gpu.scope, (gpu,), str(gpu.scope))
        elif first[gpu.node] == gpu.uuid:
            gpus = tuple(each for each in facts.gpus if each.node == gpu.node)
            yield _recommendation(facts, Scope("node", gpu.node), gpus, f"all {len(gpus)} GPUs of {gpu.node}")


def _recommendation(facts: Facts, scope: Scope, gpus: Sequence[Gpu], subject: str) -> Recommendation:
    reasons = sorted({HARDWARE_REASONS[facts.down_reasons[gpu.uuid]] for gpu in gpus})
    node = gpus[0].node
    whole = scope.kind == "node"
    remedy = f"drain {node} and power-cycle it"
    why = f"The driver of {node} reports: {' or '.join(reasons)}"
    why += ", for all of its GPUs: look at what they share." if whole else "."
    return Recommendation(
        kind=KIND,
        direction="change",
        scope=scope,
        severity="critical",
        summary=f"{subject} {'are' if whole else 'is'} lost: {remedy}",
        current=len(gpus),
        recommended=0,
        unit="lost GPUs",
        diagnosis="lost_node" if whole else "lost_gpu",
        explanation=why,
        confidence="high",
        evidence=(facts.evidence(GPU_UP_HIGHEST, tuple(gpu.uuid for gpu in gpus), 1.0),),
        rejected=(
            Alternative("wait", "a GPU that left the bus does not come back by itself"),
            Alternative("reset the GPU", "the driver cannot reach it: only a reboot or a power cycle can"),
        ),
        actions=tuple(_actions(facts, gpus)),
        gpus=tuple(gpu.uuid for gpu in gpus),
        nodes=(node,),
        waste=(Waste(),),
        of_several="" if whole else f"are lost: {remedy}",
    )


def _actions(facts: Facts, gpus: Sequence[Gpu]) -> Iterator[Action]:
    yield from drain_node(facts, gpus[0], "gpu lost")
    yield run_command("nvidia-bug-report.sh", node=gpus[0].node, note="before the reboot, for the vendor")
    yield from notes("power the node off and on: a warm reboot may leave the GPU lost")
    for gpu in gpus:
        yield from notes(f"if it stays lost, return it: {gpu.name or 'GPU'}, index {gpu.index or '?'}, {gpu.uuid}")
