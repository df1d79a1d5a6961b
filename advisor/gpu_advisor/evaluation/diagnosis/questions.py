"""What to ask for where no diagnosis is possible: candidate causes -> the one cheapest input that splits them.

Pure data and one function. Rows are tried from the top: the first whose conditions hold, if only within their dead
bands, and whose input is missing but available, is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpu_advisor.evaluation.diagnosis.conditions import Condition, Features, Truth, above, any_of, below
from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES, HEALTHY, UNKNOWN
from gpu_advisor.evaluation.diagnosis.diagnose import GpuDiagnosis
from gpu_advisor.evaluation.diagnosis.inputs import INPUTS, Input, Source

#: Words of observations that agree with the number of GPUs.
_SINGULAR = {
    "are": "is", "draw": "draws", "need": "needs", "run": "runs", "serve": "serves", "their": "its", "they": "it",
    "work": "works",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """`observation` is what is known, `causes` the diagnoses that may explain it, `inputs` what splits them, the
    cheapest first."""

    observation: str
    causes: tuple[str, ...]
    conditions: tuple[Condition, ...]
    inputs: tuple[str, ...]

    def observed_on(self, count: int) -> str:
        """The observation, as the predicate of so many GPUs."""
        if count != 1:
            return self.observation
        return re.sub(r"\w+", lambda word: _SINGULAR.get(word[0], word[0]), self.observation)


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question about one GPU, with the input that would settle it and the cheapest way to get it."""

    question: Question
    input: Input
    source: Source

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of recommendation that may follow from the answer."""
        return tuple(dict.fromkeys(kind for cause in self.question.causes for kind in DIAGNOSES[cause].kinds))


_LOW_CLOCK = any_of(below("clock", 0.88, 0.92), below("clock_of_peers", 0.88, 0.92))
_RUNS = above("utilization", 0.30, 0.26)
_BUSY = above("utilization", 0.80, 0.75)
_PARTLY_BUSY = below("utilization", 0.80, 0.85)
_TRAINS = above("trains", 1.0, 0.0)
_SERVES = above("serves", 1.0, 0.0)
_MAY_TRAIN = above("may_train", 1.0, 0.0)

#: For GPUs without a diagnosis.
QUESTIONS: tuple[Question, ...] = (
    Question("run at low clocks", ("throttled_thermal", "throttled_power", "straggler"), (_LOW_CLOCK, _RUNS),
             ("throttle_reasons",)),
    Question("run at low clocks, and the driver gives no reason", ("straggler", "throttled_power"), (_LOW_CLOCK, _RUNS),
             ("owner",)),
    Question("need little of their memory and time, if they serve", ("wrong_instance_size",),
             (_SERVES, below("utilization", 0.22, 0.26)), ("day_history",)),
    Question("are idle between kernels, which is normal if they serve",
             ("data_bound", "small_batch", "memory_bound", "wrong_instance_size"), (_PARTLY_BUSY,), ("pool_kind",)),
    Question("are idle between kernels", ("data_bound", "small_batch", "memory_bound"), (_PARTLY_BUSY, _TRAINS),
             ("job_report", "sm_activity", "kernel_profile")),
    Question("always run a kernel and are hot, but draw little power", ("throttled_thermal", "throttled_power"),
             (_BUSY, above("temperature", 72, 68), below("busy_power_at_least", 0.68, 0.72)), ("throttle_reasons",)),
    Question("always run a kernel, but draw little power",
             ("communication_bound", "throttled_power", "busy_but_empty", "small_batch", "straggler"),
             (_BUSY, below("busy_power_at_least", 0.68, 0.72)), ("sm_activity", "kernel_profile")),
    Question("always run a kernel, and nothing shows how much of the GPU works",
             ("communication_bound", "throttled_power", "busy_but_empty", "small_batch", "straggler"),
             (_BUSY,), ("sm_activity", "power", "kernel_profile")),
)  # fmt: skip

#: For GPUs that are well used as far as power and job reports show.
SECONDARY_QUESTIONS: tuple[Question, ...] = (
    Question("work at full load, but draw less power than busy tensor cores would", ("full_precision",),
             (below("busy_power_at_least", 0.83, 0.87), _BUSY, _MAY_TRAIN), ("sm_activity", "kernel_profile")),
)  # fmt: skip


def open_question(outcome: GpuDiagnosis) -> OpenQuestion | None:
    """What to ask about a GPU that has no diagnosis, or is healthy as far as its signals show; None: nothing.

    Where a cause is within its dead band, only what decides on that cause is asked.
    """
    if not outcome.observed:
        return None
    if outcome.name == UNKNOWN:
        asked = _first(QUESTIONS, outcome)
        undecided = set(outcome.borderline) - {HEALTHY}
        return asked if asked and (not undecided or undecided & set(asked.question.causes)) else None
    if outcome.name == HEALTHY and not outcome.secondary_rows:
        return _first(SECONDARY_QUESTIONS, outcome)
    return None


def _first(questions: tuple[Question, ...], outcome: GpuDiagnosis) -> OpenQuestion | None:
    for question in questions:
        if not _hold(question.conditions, outcome.features):
            continue
        for name in question.inputs:
            wanted = INPUTS[name]
            source = wanted.source(outcome.gpu)
            if source is not None and _is_missing(wanted, outcome.features):
                return OpenQuestion(question, wanted, source)
    return None


def _hold(conditions: tuple[Condition, ...], features: Features) -> bool:
    return all(condition.truth(features) in (Truth.YES, Truth.BORDERLINE) for condition in conditions)


def _is_missing(wanted: Input, features: Features) -> bool:
    """Whether the input would add anything: none of its features is known."""
    return all(features[name] is None for name in wanted.features)
