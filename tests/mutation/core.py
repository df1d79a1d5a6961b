"""Which code is mutated, and which tests are run against it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_ADVISOR = ROOT / "advisor" / "gpu_advisor"
_EXPORTER = ROOT / "exporter" / "gpu_exporter"

#: What decides and computes: no clock and no files. Tables that are made at import are not mutated.
_CORE = {
    _ADVISOR: (
        "evaluation/**/*.py",
        "promql/*.py",
        "planning/*.py",
        "backtest/*.py",
        "hardware/gpu_types.py",
        "calibration/batch_size_advice.py",
        "calibration/contention.py",
        "calibration/memory_estimate.py",
        "calibration/memory_fit.py",
        "calibration/points.py",
        "calibration/prior.py",
        "calibration/throughput_fit.py",
        "cost/list_prices.py",
        "cost/offer_ranking.py",
        "cost/offer_throughput.py",
        "cost/offers.py",
        "cost/profile_rates.py",
        "allocation/gpu_request.py",
        "allocation/lease_table.py",
        "allocation/memory_strategy.py",
        "allocation/model.py",
        "allocation/placement.py",
        "documents/savings.py",
        "observation/compile.py",
        "observation/demand.py",
        "observation/identity.py",
        "report/comparison.py",
        "report/first_actions.py",
        "report/formatting.py",
        "report/line_charts.py",
        "report/observed_time.py",
        "report/owner_usage.py",
        "report/projection.py",
        "report/series.py",
        "report/usage.py",
        "sources/algebra.py",
        "sources/exporters/detection.py",
        "sources/exporters/dialect.py",
        "sources/matchers.py",
        "sources/prometheus/combined_queries.py",
        "sources/prometheus/fast_response_parser.py",
        "sources/query_plan.py",
        "sources/reductions.py",
        "state/active.py",
        "state/comparison.py",
        "state/measures.py",
        "state/outcomes.py",
        "state/sizes.py",
    ),
    _EXPORTER: ("devices/meters.py",),
}

#: The unit tests of that code. Tests of the API, the page and the commands run it too, but not to say what it computes;
#: tests that start threads or import PyTorch do not survive a fork.
TESTS = (
    *(
        f"tests/unit/advisor/test_{name}.py"
        for name in (
            "actions",
            "active",
            "advice_groups",
            "agreement",
            "autoscaling",
            "backtest",
            "backtest_policies",
            "calibrated_batch",
            "checks",
            "command_names",
            "demand_history",
            "demand_signals",
            "diagnosis",
            "features",
            "flapping",
            "gpu_day",
            "headroom",
            "headroom_of_windows",
            "identity",
            "idle_lease",
            "idle_owner",
            "lost",
            "measures",
            "mig",
            "money",
            "money_of_fleets",
            "outcomes",
            "outcomes_by_kind",
            "owner_actions",
            "owner_situations",
            "owners",
            "policies",
            "policies_diagnosed",
            "policy_advice",
            "policy_edges",
            "pool_size",
            "power_diagnosis",
            "releasable",
            "savings",
            "scale",
            "scale_faults",
            "screening",
            "settings",
            "setup_commands",
            "signals",
            "slo_pools",
            "team_usage",
            "unseen_errors",
            "waste",
            "what_if",
            "workload_kind",
        )
    ),
    *(
        f"tests/unit/allocation/test_{name}.py"
        for name in ("inventory", "lease_table", "leases", "memory_strategy", "placement", "requests")
    ),
    *(
        f"tests/unit/calibration/test_{name}.py"
        for name in ("contention", "finder", "fit", "fit_numbers", "points", "profile")
    ),
    *(f"tests/unit/cost/test_{name}.py" for name in ("catalogue", "choice", "profile_rates", "throughput")),
    "tests/unit/devices/test_meters.py",
    "tests/unit/optimizing",
    "tests/unit/planning",
    *(
        f"tests/unit/report/test_{name}.py"
        for name in (
            "comparison",
            "first_actions",
            "formatting",
            "line_charts",
            "projection",
            "renderings",
            "report_queries",
            "series",
            "usage",
        )
    ),
    *(
        f"tests/unit/serving/test_{name}.py"
        for name in (
            "advice",
            "autoscalers",
            "backtest_outcomes",
            "extrapolation",
            "fewer_replicas",
            "gpus_of_replicas",
            "group_features",
            "groups_of_replicas",
            "kinds_of_pools",
            "latency_objectives",
            "mappings",
            "missed_load",
            "missed_requests",
            "pools_of_servers",
            "roles_and_unread_servers",
            "settings_first",
            "simulator",
            "situations_of_scaling",
            "sizing",
            "step_model",
            "tuned_headroom",
            "two_windows",
            "watched_servers",
        )
    ),
    *(
        f"tests/unit/sources/test_{name}.py"
        for name in (
            "exporter_detection",
            "expressions",
            "fast_parser",
            "prometheus",
            "promql",
            "reading",
            "recording",
            "reductions",
        )
    ),
)


def core_files() -> list[Path]:
    """The files to mutate, in a fixed order."""
    return sorted({path for folder, patterns in _CORE.items() for name in patterns for path in folder.glob(name)})


def module_name(path: Path) -> str:
    """The import name of one of `core_files`."""
    package = _EXPORTER if path.is_relative_to(_EXPORTER) else _ADVISOR
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
