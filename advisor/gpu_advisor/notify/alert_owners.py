"""Which owners, and so which teams, the alert of a recommendation goes to. Pure.

Their labels route an alert: they come from other people's names, so they have no character that would need quotes in a
matcher or a template, and there are few of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.recommendation import Recommendation, stable_id

#: Recommendations that the owner of the GPUs acts on; the others (hardware, the size of a pool) are the operator's.
OWNER_KINDS = frozenset(
    {
        "batch_size", "communication", "data_loading", "hung_job", "idle_lease", "idle_reclaim", "memory_saving",
        "mixed_precision", "profiling", "smaller_gpu", "straggler",
    }
)  # fmt: skip

#: At most this many owners of one recommendation have an alert of their own: those there longest, as newer ones come
#: and go. The others share one.
MAX_OWNERS = 50

MAX_LABEL_LENGTH = 128
_NEEDS_QUOTES = re.compile(r"[^A-Za-z0-9_./:@+=-]")


class OwnerAlert(NamedTuple):
    """The alert of one owner of a recommendation. `key` is part of its id; without an owner, all are empty."""

    key: str
    labels: Mapping[str, str]
    title: str
    gpus: tuple[str, ...]


def alerts_by_owner(of: Recommendation, owners: Mapping[str, Sequence[GpuOwner]]) -> tuple[OwnerAlert, ...]:
    """One for each owner, and one without for the GPUs that have none. `owners` are by GPU."""
    if of.kind not in OWNER_KINDS:
        return (OwnerAlert("", {}, "", of.gpus),)
    every = {owner.identity: owner for uuid in of.gpus for owner in owners.get(uuid, ())}
    oldest = sorted(every.values(), key=lambda owner: (owner.started is None, owner.started or 0.0, str(owner)))
    own = {owner.identity for owner in oldest[:MAX_OWNERS]}
    found: dict[tuple[tuple[str, str], ...], tuple[GpuOwner | None, dict[str, None]]] = {}
    for uuid in of.gpus:
        for owner in owners.get(uuid, ()) or (None,):
            shown = owner if owner is not None and owner.identity in own else None
            labels = () if shown is None else tuple(owner_labels(shown).items())
            found.setdefault(labels, (shown, {}))[1][uuid] = None
    if not found:
        return (OwnerAlert("", {}, "", ()),)
    return tuple(
        OwnerAlert(stable_id(value for _, value in labels) if labels else "", dict(labels), str(owner or ""), (*gpus,))
        for labels, (owner, gpus) in sorted(found.items())
    )


def owner_labels(owner: GpuOwner) -> dict[str, str]:
    """`namespace`, `team` and `owner`, without those that are unknown: Alertmanager drops empty labels.

    Of a fleet in several clusters also `cluster`, its own rather than the advisor's.
    """
    named = {"namespace": owner.namespace, "team": owner.team, "owner": _name(owner), "cluster": owner.cluster}
    return {label: label_text(text) for label, text in named.items() if text}


def _name(owner: GpuOwner) -> str:
    kinds = (("pod", owner.pod), ("job", owner.job), ("unit", owner.unit), ("container", owner.container),
             ("user", owner.user))  # fmt: skip
    return next((f"{kind}/{name}" for kind, name in kinds if name), "")


def label_text(text: str) -> str:
    """Text that is safe in a matcher and a template: other characters become `_`, a long one is cut.

    What was changed ends with a hash, so that two names stay two.
    """
    safe = _NEEDS_QUOTES.sub("_", text)
    if safe == text and len(text) <= MAX_LABEL_LENGTH:
        return text
    return f"{safe[: MAX_LABEL_LENGTH - 9]}-{stable_id((text,))[:8]}"
