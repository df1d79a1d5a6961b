"""One trace through every policy."""

from __future__ import annotations

from dataclasses import replace

from gpu_advisor.backtest.advisor import Advisor
from gpu_advisor.backtest.baselines import Hpa, Oracle, Static, Threshold, needed
from gpu_advisor.backtest.replay import Fleet, Outcome, replay
from gpu_advisor.backtest.trace import Trace
from gpu_advisor.evaluation.scaling.size import Limits
from gpu_advisor.settings import Evaluation, GpuLimits

HPA_TARGETS = (0.9, 0.7, 0.5)


def compare(trace: Trace, fleet: Fleet, gpu: GpuLimits, evaluation: Evaluation) -> dict[str, Outcome]:
    """Outcomes by policy, the advisor's first. Of `gpu` only the thresholds are used: limits are the fleet's."""
    first = trace.demand[0] or 0.0
    policies = {f"hpa_{target * 100:.0f}": Hpa(target) for target in HPA_TARGETS}
    return {
        "advisor": replay(trace, advisor(trace, fleet, gpu, evaluation), fleet),
        "static": replay(trace, Static(fleet.max), replace(fleet, start=fleet.max)),
        **{name: replay(trace, policy, fleet) for name, policy in policies.items()},
        "threshold_85_60": replay(trace, Threshold(0.85, 0.60), fleet),
        "oracle": replay(
            trace,
            Oracle(trace.demand, trace.interval_seconds),
            replace(fleet, start=max(fleet.min, min(fleet.max, needed(first))), start_delay_seconds=0),
        ),
    }


def advisor(trace: Trace, fleet: Fleet, gpu: GpuLimits, evaluation: Evaluation) -> Advisor:
    """The advisor with the settings' own values, at the trace's interval."""
    limits = Limits(
        min=fleet.min,
        max=fleet.max,
        up=gpu.scale_up_threshold / 100,
        down=gpu.scale_down_threshold / 100,
        start_delay_seconds=fleet.start_delay_seconds,
    )
    return Advisor(limits, evaluation.model_copy(update={"step_seconds": trace.interval_seconds}))
