"""Why a signal has no value, as far as known, and how to fix it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Scope
from gpu_advisor.evaluation.signals import Signal

_NO_SAMPLE = "no sample in the window: too early, or the kernel or driver does not support it"


def explain_missing(
    facts: Facts, signal: Signal, scope: Scope, gpu: Gpu | None = None, several: str = ""
) -> Abstention:
    """`several`: the subject of the sentence where `gpu` is the first of several GPUs of the same reason, as in
    "8 of 8 GPUs".
    """
    found: tuple[Reason, str] | None = None
    if not facts.supports(signal):
        found = Reason.UNSUPPORTED, "no exporter publishes the metrics this needs"
    elif gpu is not None:
        found = next(_reasons(facts, signal, gpu, several), None)
    reason, message = found or (Reason.NO_DATA, _NO_SAMPLE)
    return Abstention(reason, signal.name, scope, message)


def explain_unknown_interval(facts: Facts) -> str:
    """Why there is a value and no coverage: an interval needs five gaps between the samples of the idle window."""
    longest = facts.evaluation.idle_window_seconds // 6
    return f"the scrape interval is not known yet: wait; if it is longer than {longest} s, scrape more often"


def _reasons(facts: Facts, signal: Signal, gpu: Gpu, several: str) -> Iterator[tuple[Reason, str]]:
    """Of one GPU, the first one first."""
    subject = several or str(gpu.scope)
    are, have, their = ("are", "have", "their") if several else ("is", "has", "its")
    if not facts.supports(signal, gpu):
        yield Reason.UNSUPPORTED, f"{gpu.exporter} does not publish the metrics this needs for {subject}"
    if gpu.uuid in facts.unresolved:
        yield (
            Reason.CONFLICTING,
            f"{subject} {have} several overlapping series of the same metric: scrape the exporter once, or drop the "
            "labels that differ",
        )
    implausible = facts.implausible_values.get(signal.name, {}).get(gpu.uuid)
    if implausible is not None:
        yield Reason.CONFLICTING, _explain_implausible(implausible, signal, gpu)
    if gpu.up is False:
        why = facts.down_reasons.get(gpu.uuid)
        known = f": {why}" if why else ": see gpu_down_info of the exporter for the reason"
        yield Reason.NO_DATA, f"{subject} {are} down{known}"
    if gpu.up is None:
        yield Reason.STALE, f"{subject} stopped reporting: check that {their} exporter is up"
    if gpu.mig_profile:
        what = "MIG slices" if several else f"a MIG slice ({gpu.mig_profile})"
        yield Reason.UNSUPPORTED, f"{subject} {are} {what}, for which {gpu.exporter} does not publish this"
    if any(other.parent and other.parent == gpu.uuid for other in facts.gpus):
        in_mig_mode = "in MIG mode: the slices have this, as far as their exporter publishes it"
        yield Reason.UNSUPPORTED, f"{subject} {are} {in_mig_mode}"


def _explain_implausible(value: float, signal: Signal, gpu: Gpu) -> str:
    shown = f"{value:.4g}" if signal.unit != "ratio" else f"{100 * value:.4g} %"
    exporter = gpu.exporter or "the exporter"
    return f"{exporter} reports {shown} for {signal.about} of {gpu.scope}, which is impossible: check that exporter"
