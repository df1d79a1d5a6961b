"""Whether what GPUs do now may be compared with what they did when a recommendation was made. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.recommendation import Scope

#: Kinds that are about how one piece of work runs: of other work on the same GPUs, a better value shows nothing.
WORK_KINDS = frozenset(
    {
        "batch_size", "communication", "data_loading", "hung_job", "memory_saving", "mixed_precision", "profiling",
        "straggler",
    }
)  # fmt: skip

#: What Kubernetes appends to the names of pods: an ordinal, or random letters of an alphabet without vowels, after a
#: hash of the template (https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go).
_LETTERS = "[bcdfghjklmnpqrstvwxz2456789]"
_POD_SUFFIX = re.compile(rf"((-{_LETTERS}{{1,10}})?-{_LETTERS}{{5}}|-[0-9]+)\Z")


def work_on(gpus: Iterable[str], facts: Facts) -> frozenset[str]:
    """What runs on these GPUs, by names that stay when it is restarted: the job that reports, else the owner."""
    found: set[str] = set()
    for uuid in gpus:
        reported = facts.reported_jobs.get(uuid)
        found |= {f"job {reported}"} if reported else {_lasting_name(owner) for owner in facts.owners.get(uuid, ())}
    return frozenset(found)


def _lasting_name(owner: GpuOwner) -> str:
    if not owner.pod:
        return str(owner.workload)
    return str(replace(owner.workload, pod=_POD_SUFFIX.sub("", owner.pod)))


def explain_incomparable(kind: str, scope: Scope, gpus: Sequence[str], work: Iterable[str], facts: Facts) -> str | None:
    """Why it may not; None if it may. `work` is what ran on the GPUs then; empty if unknown."""
    present = {gpu.uuid for gpu in facts.gpus}
    missing = sum(1 for uuid in gpus if uuid not in present)
    if missing:
        return f"{missing} of its {len(gpus)} GPUs were released or replaced"
    if scope.lease and all(each.id != scope.lease for each in facts.leases.values()):
        return "the lease has ended: its GPUs are free for others"
    before = frozenset(work)
    if kind in WORK_KINDS and before and before.isdisjoint(now := work_on(gpus, facts)):
        return "other work runs on its GPUs now" if now else "its work no longer runs on its GPUs"
    return None
