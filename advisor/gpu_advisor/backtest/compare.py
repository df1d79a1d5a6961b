"""One trace through every policy."""

from __future__ import annotations

from dataclasses import replace

from gpu_advisor.backtest.advisor_policy import AdvisorPolicy
from gpu_advisor.backtest.baselines import HpaPolicy, OraclePolicy, StaticPolicy, ThresholdPolicy, oracle_replicas
from gpu_advisor.backtest.replay import ReplayResult, SimulatedPool, replay
from gpu_advisor.backtest.trace import Trace
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits
from gpu_advisor.settings import EvaluationSettings, GpuLimits

HPA_TARGETS = (0.9, 0.7, 0.5)


def compare_policies(
    trace: Trace, fleet: SimulatedPool, gpu: GpuLimits, evaluation: EvaluationSettings
) -> dict[str, ReplayResult]:
    """Outcomes by policy, the advisor's first. Of `gpu` only the thresholds are used: limits are the fleet's."""
    first = trace.demand[0] or 0.0
    policies = {f"hpa_{target * 100:.0f}": HpaPolicy(target) for target in HPA_TARGETS}
    return {
        "advisor": replay(trace, advisor_policy(trace, fleet, gpu, evaluation), fleet),
        "static": replay(trace, StaticPolicy(fleet.max), replace(fleet, start=fleet.max)),
        **{name: replay(trace, policy, fleet) for name, policy in policies.items()},
        "threshold_85_60": replay(trace, ThresholdPolicy(0.85, 0.60), fleet),
        "oracle": replay(
            trace,
            OraclePolicy(trace.demand, trace.interval_seconds),
            replace(fleet, start=max(fleet.min, min(fleet.max, oracle_replicas(first))), start_delay_seconds=0),
        ),
    }


def advisor_policy(trace: Trace, fleet: SimulatedPool, gpu: GpuLimits, evaluation: EvaluationSettings) -> AdvisorPolicy:
    """The advisor with the settings' own values, at the trace's interval."""
    limits = ScalingLimits(
        min=fleet.min,
        max=fleet.max,
        scale_up_ratio=gpu.scale_up_threshold / 100,
        scale_down_ratio=gpu.scale_down_threshold / 100,
        start_delay_seconds=fleet.start_delay_seconds,
    )
    return AdvisorPolicy(limits, evaluation.model_copy(update={"step_seconds": trace.interval_seconds}))
