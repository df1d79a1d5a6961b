from __future__ import annotations

from typing import Any

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.observation.compile import compile_signals
from gpu_advisor.observation.queries import IDENTITY_EXPRESSIONS
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Reduction, metrics_of
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import ExporterMapping
from gpu_exporter.metrics import DEVICE_FAMILIES

from tests.unit.advisor.builders import AT, DIALECTS, GpuSpec, facts


def test_every_signal_compiles_over_metrics_that_our_exporter_has() -> None:
    compiled = compile_signals(DIALECTS, Settings())
    published = [signal for signal in signals.SIGNALS if signal not in OF_OTHER_EXPORTERS]
    assert list(compiled) == [signal.name for signal in published]
    ours = {family.name for family in DEVICE_FAMILIES}
    for signal in published:
        read = metrics_of(compiled[signal.name])
        assert all(metric.startswith("node_") for metric in read) if signal.scope == "node" else read <= ours | OTHERS
        grouped = "(instance)" if signal.scope == "node" else "(uuid)"
        assert grouped in to_promql(compiled[signal.name])  # results have the label that identifies them


#: Our exporter has Xids by count, which says when, and no default limit, which follows from the model.
OF_OTHER_EXPORTERS = (signals.POWER_LIMIT_DEFAULT, signals.LAST_ERROR)

#: What jobs report, and what is rolled up: not the exporter's own families.
OTHERS = {
    "training_step_seconds_total", "training_data_wait_seconds_total", "training_communication_seconds_total",
    "training_peak_memory_bytes", "training_batch_size", "training_value", "gpu:utilization_ratio:max1d",
}  # fmt: skip

UP = IDENTITY_EXPRESSIONS["targets"]


def test_every_metric_named_by_our_mapping_exists() -> None:
    ours = {family.name for family in DEVICE_FAMILIES}
    dialect = next(each for each in DIALECTS if each.name == "gpu-exporter")
    named = {
        metric
        for quantity in dialect.mapping.quantities
        for reduction in ("last", "mean", "coverage", "rate")
        for metric in metrics_of(dialect.expression(quantity, reduction, None if reduction == "last" else 60) or UP)
    }
    assert named - {"up"} <= ours | OTHERS
    assert {family for family in named if "busy" in family} == {"gpu_busy_seconds_total"}


def mapping(quantities: dict[str, Any], **more: Any) -> ExporterMapping:
    identity = {"metrics": ["info"]}
    return ExporterMapping.model_validate(
        {"name": "x", "scope": "gpu", "by": ["id"], "identity": identity, "quantities": quantities, **more}
    )


QUANTITIES: dict[str, Any] = {
    "share": {"share": {"part": {"metric": "p", "match": {"mode": "idle"}}, "whole": {"metric": "w"}}},
    "rest": {"share": {"part": {"metric": "p"}, "whole": {"metric": "w"}, "complement": True}},
    "level": {"level": {"part": {"metric": "p"}, "whole": {"metric": "w"}}},
    "free": {"level": {"part": {"metric": "p"}, "whole": {"metric": "w"}, "complement": True}},
    "gauge": {"gauge": {"metric": "g", "scale": 0.01}},
    "plain": {"gauge": {"metric": "g"}},
    "link": {"each": ["id", "device"], "counter": {"metric": "c", "per": {"metric": "speed"}}},
    "counter": {"counter": {"metric": "c"}},
    "total": {"total": {"sum": [{"metric": "a"}, {"metric": "b"}], "scale": 1024}},
    "speed": {"speed": {"metric": "s", "scale": 8}},
    "sum": {"level": {"part": {"metric": "p"}, "whole": {"sum": [{"metric": "a"}, {"metric": "b"}]}}},
}


@pytest.mark.parametrize(
    ("quantity", "reduction", "q", "promql"),
    [
        ("share", "mean", None, 'sum by (id) (increase(p{mode="idle"}[1m])) / (sum by (id) (increase(w[1m])) != 0)'),
        ("share", "coverage", None, None),  # how often it is scraped is not known
        ("share", "samples", None, "max by (id) (count_over_time(w[1m]))"),
        ("share", "max", None, None),
        ("rest", "mean", None, "-1 * (sum by (id) (increase(p[1m])) / (sum by (id) (increase(w[1m])) != 0)) + 1"),
        ("level", "mean", None, "max by (id) (avg_over_time(p[1m])) / (max by (id) (w) != 0)"),
        # Of what is used the highest is where what is free is lowest.
        ("free", "max", None, "-1 * (min by (id) (min_over_time(p[1m])) / (max by (id) (w) != 0)) + 1"),
        (
            "free", "quantile", 0.75,
            "-1 * (max by (id) (quantile_over_time(0.25, p[1m])) / (max by (id) (w) != 0)) + 1",
        ),
        ("gauge", "mean", None, "0.01 * max by (id) (avg_over_time(g[1m]))"),
        ("plain", "last", None, "max by (id) (g)"),
        ("plain", "rate", None, None),
        ("counter", "increase", None, "sum by (id) (increase(c[1m]))"),
        (
            "link", "rate", None,
            "max by (id) (sum by (id, device) (rate(c[1m])) / (max by (id, device) (speed) != 0))",
        ),
        ("absent", "mean", None, None),
        ("total", "last", None, "1024 * (max by (id) (a) + max by (id) (b))"),
        ("total", "mean", None, "1024 * (max by (id) (avg_over_time(a[1m])) + max by (id) (avg_over_time(b[1m])))"),
        *(("total", reduction, 0.5, None) for reduction in ("min", "max", "quantile", "rate", "coverage", "samples")),
        ("speed", "rate", None, "8 * max by (id) (avg_over_time(s[1m]))"),
        *(("speed", reduction, None, None) for reduction in ("mean", "last", "increase", "max")),
        ("sum", "max", None, "max by (id) (max_over_time(p[1m])) / ((max by (id) (a) + max by (id) (b)) != 0)"),
        *(("counter", reduction, None, None) for reduction in ("mean", "last", "max", "coverage")),
        ("level", "rate", None, None),
        ("plain", "samples", None, "max by (id) (count_over_time(g[1m]))"),
        ("plain", "coverage", None, None),  # how often it is scraped is not known
    ],
)  # fmt: skip
def test_shape_of_expressions(quantity: str, reduction: Reduction, q: float | None, promql: str | None) -> None:
    dialect = ExporterDialect(mapping(QUANTITIES), successive=False)
    built = dialect.expression(quantity, reduction, None if reduction == "last" else 60, q)
    assert (None if built is None else to_promql(built)) == promql


@pytest.mark.parametrize(
    ("quantity", "reduction", "promql"),
    [
        (
            "plain",
            "mean",
            "sum by (east, id) (sum_over_time(g[1m])) / (sum by (east, id) (count_over_time(g[1m])) != 0)",
        ),
        ("plain", "coverage", "clamp_max(0.25 * sum by (east, id) (count_over_time(g[1m])), 1)"),
        ("share", "coverage", "clamp_max(0.25 * sum by (east, id) (count_over_time(w[1m])), 1)"),
        ("plain", "min", "min by (east, id) (min_over_time(g[1m]))"),
        ("plain", "last", "max by (east, id) (g)"),
        (
            "link",
            "rate",
            "max by (east, id) (sum by (east, id, device) (rate(c[1m])) / (max by (east, id, device) (speed) != 0))",
        ),
    ],
)
def test_things_with_several_series_and_a_cluster(quantity: str, reduction: Reduction, promql: str) -> None:
    dialect = ExporterDialect(mapping(QUANTITIES), (), 15.0, successive=True, cluster_label="east")
    built = dialect.expression(quantity, reduction, None if reduction == "last" else 60)
    assert built is not None
    assert to_promql(built) == promql


def test_a_group_of_things_is_selected_by_the_exporters_label() -> None:
    dialect = ExporterDialect(mapping(QUANTITIES, labels={"id": "ID"}), successive=False, things=("a", "b"))
    built = dialect.expression("plain", "last", None)
    assert built is not None
    assert 'ID=~"a|b"}' in to_promql(built)


def test_a_mapping_file_with_a_slip_is_refused() -> None:
    with pytest.raises(ValueError, match="guage"):
        mapping({"q": {"guage": {}}})


def test_evidence_of_one_and_of_several() -> None:
    odd = 'GPU-a.b|c"\\'
    fleet = facts([GpuSpec("GPU-1", 0.2), GpuSpec(odd, 0.4), GpuSpec("GPU-3", 0.9)])
    one = fleet.evidence(signals.MEMORY_USED, ("GPU-1",))
    assert one.promql == (
        f'max by (uuid) (avg_over_time(gpu_memory_used_bytes{{uuid="GPU-1"}}[5m] @ {AT:.3f}))'
        f' / (max by (uuid) (gpu_memory_total_bytes{{uuid="GPU-1"}} @ {AT:.3f}) != 0)'
    )
    two = fleet.evidence(signals.UTILIZATION, ("GPU-1", odd), 0.9)
    # RE2's own special characters alone are quoted, and then the string as PromQL has it.
    assert r'{uuid=~"GPU-1|GPU-a\\.b\\|c\"\\\\"}' in (two.promql or "")
    assert two.value == pytest.approx(0.3)
    assert (two.threshold, two.at) == (0.9, AT)
    all_of_them = fleet.evidence(signals.UTILIZATION, ("GPU-1", odd, "GPU-3"))
    assert (all_of_them.promql or "").startswith("avg(")
    assert "GPU-" not in (all_of_them.promql or "")
    nothing = fleet.evidence(signals.NODE_CPU, ("unknown-node",))
    assert (nothing.value, nothing.promql) == (None, None)
