"""From a cause to a recommendation: which setting or number of replicas, and what that would do. Pure.

Rules that hold for all: a limit grows at most twofold at a time; a change of the KV cache's type changes answers, and
the text warns of it; GPU memory is never given to a server whose GPU others use as well; sizes of tensor parallelism
divide the number of attention heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpu_advisor.evaluation.actions import Action, configure_server, notes
from gpu_advisor.evaluation.recommendation import Alternative, Confidence, Projection, Severity
from gpu_advisor.evaluation.serving.attention_heads import tensor_parallel_rule
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis
from gpu_advisor.evaluation.serving.projection import LoadChange, project

#: The part of an objective that advice plans for: the rest is for what varies.
PLANNED_RATIO = 0.9

#: GPU memory that stays free beside a server (ratio), and the step in which its share grows.
HIGHEST_MEMORY_UTILIZATION = 0.95

CHANGES_ANSWERS = "a KV cache in 8 bits halves its bytes and changes answers a little: compare their quality first"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How settings of this server are given. `shared`: other processes use its GPUs; None if unknown.

    A flag may come with its value, where the setting has another name or value in this server: `--quant-policy=8`."""

    title: str
    flags: Mapping[str, str]
    helm: Mapping[str, str]
    shared: bool | None

    def name_of(self, setting: str) -> str:
        """The flag without its dashes, or the setting in words where this server has none."""
        return self.flags.get(setting, setting.replace("_", " ")).partition("=")[0].lstrip("-")

    def configure(
        self, target: str, setting: str, value: bool | int | float | str, note: str = ""
    ) -> tuple[Action, ...]:
        """The flag of this server, with the chart's value beside; a note if it has no such flag."""
        given, path = self.flags.get(setting), self.helm.get(setting)
        helm = f"Helm: {path}: {value}" if path else ""
        text = "; ".join(part for part in (helm, note) if part)
        if given is None:
            return notes(f"{setting.replace('_', ' ')}: {value}" + (f"; {text}" if text else ""))
        flag, _, own = given.partition("=")
        value = own or value
        if flag.startswith("-"):
            return (configure_server(target, {flag: value}, text),)
        return notes(f"{flag}: {value}" + (f"; {text}" if text else ""))

    def multiply(
        self, target: str, setting: str, factor: float, present: float | None, note: str = ""
    ) -> tuple[Action, ...]:
        """A multiple of the present value; in words where that is not known, because a number could be less than it."""
        if present:
            return self.configure(target, setting, round(factor * present), note)
        multiple = "half of" if factor == 0.5 else "twice" if factor == 2 else f"{factor:g} times"
        return notes(f"{self.name_of(setting)}: {multiple} the present value" + (f"; {note}" if note else ""))


@dataclass(frozen=True, slots=True)
class Advice:
    """What a recommendation says of a cause."""

    summary: str
    current: float
    recommended: float
    unit: str
    signals: tuple[str, ...]
    actions: tuple[Action, ...]
    rejected: tuple[Alternative, ...] = ()
    projection: Projection = field(default_factory=Projection)
    severity: Severity = "warning"
    confidence: Confidence = "high"
    note: str = ""


def tensor_parallel(found: GroupDiagnosis) -> str:
    return tensor_parallel_rule(found.group.model)


def gpus_of_replica(found: GroupDiagnosis) -> int | None:
    """The GPUs that compute each step of the pressed replica together; None if unknown, or if engines share it."""
    replica = found.pressed.replica
    engines = sum(1 for each in found.group.replicas if each.instance == replica.instance)
    return len(replica.gpus) or None if engines == 1 else None


def value_of(found: GroupDiagnosis, signal: str) -> float | None:
    return found.pressed.value(signal)


def prompt_ratio(found: GroupDiagnosis) -> float | None:
    prompt, output = value_of(found, "prompt_tokens"), value_of(found, "output_tokens")
    return prompt / output if prompt is not None and output else None


def span_of_loads(found: GroupDiagnosis) -> float:
    loads = [each.concurrency for each in found.group.points if each.concurrency > 0]
    return max(loads) / min(loads) if loads else 1.0


def project_load(found: GroupDiagnosis, target: float) -> Projection:
    running = value_of(found, "running") or 0.0
    if running <= 0:
        return Projection()
    change = LoadChange(
        running,
        target,
        value_of(found, "itl_mean"),
        prompt_ratio(found),
        value_of(found, "waiting") or 0.0,
        value_of(found, "request_rate") or 0.0,
    )
    return project(found.group.curve, span_of_loads(found), change)


def project_latency(found: GroupDiagnosis, target: float) -> Projection:
    """With `target` requests running on each replica, of another number of replicas or other routing: seconds between
    tokens. Throughput is the demand, and the queue is for other replicas."""
    intervals = project_load(found, target).intervals
    return Projection(intervals={name: ends for name, ends in intervals.items() if name == "itl_seconds"})


def is_extrapolated(found: GroupDiagnosis, target: float) -> bool:
    return found.group.curve is None or target > found.group.curve.seen
