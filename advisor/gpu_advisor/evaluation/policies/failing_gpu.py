"""Failing GPU: fatal errors or unrepairable memory. Prometheus rules alert on these; this policy says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.lost import is_down_by_hardware, is_lost
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.gpu_commands import drain_node
from gpu_advisor.evaluation.policies.unseen_errors import FATAL_XIDS
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Recommendation
from gpu_advisor.evaluation.signals import FATAL_ERRORS, LAST_ERROR, ROW_REMAP_FAILED, ROW_REMAP_PENDING, Signal
from gpu_advisor.settings import Settings

KIND = "failing_gpu"


class Failure(NamedTuple):
    """A signal that shows a failure from `threshold` on. `why` is what follows from it, without the remedy.

    `what` and `remedy` are of one GPU, `of_several` the same words of several GPUs of a node.
    """

    signal: Signal
    threshold: float
    what: str
    remedy: str
    why: str
    of_several: tuple[str, str]


#: Worst first. An increase over a window is extrapolated: 0.5 means one. Of row remapping:
#: https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/
FAILURES: tuple[Failure, ...] = (
    Failure(ROW_REMAP_FAILED, 1.0, "could not remap a faulty memory row", "replace the GPU",
            "The fault stays in memory: a reset does not repair it.",
            ("could not remap a faulty memory row", "replace them")),
    Failure(FATAL_ERRORS, 0.5, "reported a fatal error", "drain the node and reset the GPU",
            "The GPU is not usable until it is reset, or its node rebooted.",
            ("reported a fatal error", "drain the node and reset them")),
    Failure(ROW_REMAP_PENDING, 1.0, "needs a reset to remap faulty memory rows", "reset the GPU after its job ends",
            "Rows are remapped at a reset only: until then, they stay in use, or their pages are offline.",
            ("need a reset to remap faulty memory rows", "reset them after their jobs end")),
)  # fmt: skip

#: Fatal Xids in words: https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
XID_MEANINGS: Mapping[int, str] = {
    46: "the GPU stopped processing",
    48: "double-bit ECC error",
    62: "internal microcontroller halt",
    64: "a row remapping could not be recorded",
    74: "NVLink error",
    79: "the GPU fell off the bus",
    95: "uncontained ECC error",
    109: "context switch timeout",
    110: "security fault",
    119: "GSP RPC timeout",
    120: "GSP error",
    140: "unrecovered ECC error",
}

#: Fatal Xids after which no reset reaches the GPU, by the same catalogue.
REBOOT_XIDS = frozenset({79})


def recommend(facts: Facts, _settings: Settings, pool: Pool, /) -> Iterator[Recommendation]:
    for gpu in pool.devices:
        if is_lost(facts, gpu):
            continue  # lost_gpu says what to do: no reset reaches it
        found = next((each for each in FAILURES if (facts.value(each.signal, gpu.uuid) or 0.0) >= each.threshold), None)
        if found is not None:
            yield _recommendation(facts, gpu, found)


def _fatal_xid(facts: Facts, gpu: Gpu) -> int | None:
    """The last Xid, where the exporter publishes it and it is a fatal one: others may follow a fatal one."""
    code = facts.value(LAST_ERROR, gpu.uuid)
    return int(code) if code is not None and int(code) in FATAL_XIDS else None


def _recommendation(facts: Facts, gpu: Gpu, failure: Failure) -> Recommendation:
    signal = failure.signal
    xid = _fatal_xid(facts, gpu) if signal is FATAL_ERRORS else None
    code = "" if xid is None else f" (Xid {xid})"
    reboot = xid in REBOOT_XIDS or is_down_by_hardware(facts, gpu)
    what_several, remedy_several = failure.of_several
    power_cycle = "drain the node and power-cycle it" if reboot else ""
    meaning = f"Xid {xid}: {XID_MEANINGS[xid]}. " if xid is not None and xid in XID_MEANINGS else ""
    return Recommendation(
        kind=KIND,
        direction="change",
        scope=gpu.scope,
        severity="warning" if signal is ROW_REMAP_PENDING else "critical",
        summary=f"{gpu.scope} {failure.what}{code}: {power_cycle or failure.remedy}",
        current=1,
        recommended=0,
        unit="affected GPUs",
        diagnosis="failing_hardware",
        explanation=f"{meaning}{failure.why}",
        confidence="high",
        evidence=(
            facts.evidence(signal, (gpu.uuid,), failure.threshold),
            *(() if xid is None else (facts.evidence(LAST_ERROR, (gpu.uuid,)),)),
        ),
        rejected=(Alternative("keep using it", "results may be wrong, or the job may crash"),),
        actions=(
            *drain_node(facts, gpu, "gpu"),
            *_reset(facts, gpu, reboot=reboot),
            *notes("if the error returns: replace the GPU"),
        ),
        gpus=(gpu.uuid,),
        nodes=(gpu.node,),
        of_several=f"{what_several}{code}: {power_cycle or remedy_several}",
    )


def _reset(facts: Facts, gpu: Gpu, *, reboot: bool) -> Iterator[Action]:
    if gpu.vendor == "nvidia":
        label = facts.uuid_label(gpu.uuid)
        if reboot:
            yield from notes("power the node off and on: a reset does not reach the GPU")
        elif names_one("gpu", label):
            reset = ("nvidia-smi", "--gpu-reset", "-i", label)
            yield run_command(*reset, node=gpu.node, note="once no process uses it")
        yield run_command("nvidia-bug-report.sh", node=gpu.node, note="for the vendor")
