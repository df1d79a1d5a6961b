"""Replay one trace with every scaling policy."""

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
    trace: Trace,
    pool: SimulatedPool,
    gpu: GpuLimits,
    evaluation: EvaluationSettings,
    advisor: AdvisorPolicy | None = None,
) -> dict[str, ReplayResult]:
    """Results by policy, the advisor's first. Of `gpu`, only the thresholds are used; `pool` has the limits.

    `advisor` is a new policy; without one, it is that of the settings.
    """
    advisor = advisor or advisor_policy(trace, pool, gpu, evaluation)
    first = trace.demand[0] or 0.0
    policies = {f"hpa_{target * 100:.0f}": HpaPolicy(target) for target in HPA_TARGETS}
    return {
        "advisor": replay(trace, advisor, pool),
        "static": replay(trace, StaticPolicy(pool.max), replace(pool, start=pool.max)),
        **{name: replay(trace, policy, pool) for name, policy in policies.items()},
        "threshold_85_60": replay(trace, ThresholdPolicy(0.85, 0.60), pool),
        "oracle": replay(
            trace,
            OraclePolicy(trace.demand, trace.interval_seconds),
            replace(pool, start=max(pool.min, min(pool.max, oracle_replicas(first))), start_delay_seconds=0),
        ),
    }


def advisor_policy(
    trace: Trace, pool: SimulatedPool, gpu: GpuLimits, evaluation: EvaluationSettings, target_ratio: float | None = None
) -> AdvisorPolicy:
    """The advisor under the given settings, at the trace's interval. `target_ratio` is the SLO, if there is one."""
    limits = ScalingLimits(
        min=pool.min,
        max=pool.max,
        scale_up_ratio=gpu.scale_up_threshold / 100,
        scale_down_ratio=gpu.scale_down_threshold / 100,
        start_delay_seconds=pool.start_delay_seconds,
    )
    return AdvisorPolicy(limits, evaluation.model_copy(update={"step_seconds": trace.interval_seconds}), target_ratio)
