"""Panel factories of all dashboards: common look and data source, and fields that the builder library leaves unset."""

# The builder library's types need Python 3.11; checked as 3.10, its enums are strings and its return types unknown.
# mypy: disable-error-code="arg-type, no-any-return"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    TableSortByFieldState,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import MEMORY_BAND, MEMORY_FULL

#: Selected by the user; the provisioned one is the default.
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

#: Currencies that Grafana has units of; another currency is shown without a sign, its name beside the number.
CURRENCIES = (
    "USD", "EUR", "GBP", "CHF", "JPY", "INR", "KRW", "BRL", "ZAR", "SEK", "NOK", "DKK", "PLN", "CZK", "ILS",
)  # fmt: skip

GOOD, WARNING, BAD, PLAIN = "green", "orange", "red", "text"


def threshold_steps(base: str, *above: tuple[float, str]) -> build.ThresholdsConfig:
    """Colours by value: `base` from 0, then each from its value. Panels without a value have the text colour."""
    thresholds = [model.Threshold(None, PLAIN)]
    thresholds += [model.Threshold(value, color) for value, color in ((0.0, base), *above)]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds)


def value_mappings(mapping: Mapping[str, tuple[str, str]]) -> list[model.ValueMapping]:
    """Map values to coloured text."""
    results = {
        value: model.ValueMappingResult(text=text, color=color, index=i)
        for i, (value, (text, color)) in enumerate(mapping.items())
    }
    return [model.ValueMap(options=results)]


def instant_query(expr: str, letter: str = "A") -> prometheus.Dataquery:
    """One value per series, at the end of the time range."""
    return prometheus.Dataquery().ref_id(letter).expr(expr).instant()


def table_query(expr: str, letter: str = "A") -> prometheus.Dataquery:
    """One value per series, at the end of the time range, with labels as columns."""
    return instant_query(expr, letter).format(PromQueryFormat.TABLE)


def range_query(expr: str, legend: str, letter: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend).range()


def stat_panel(
    title: str,
    description: str,
    expr: str,
    thresholds: build.ThresholdsConfig | None = None,
    unit: str = "short",
    no_value: str = "no data",
) -> stat.Panel:
    """One large number. Without data it shows `no_value`, never 0."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(instant_query(expr))
        .thresholds(thresholds or threshold_steps(PLAIN))
        .unit(unit)
        .no_value(no_value)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .span(8)
        .height(4)
    )


def ratio_panel(title: str, description: str, expr: str, target: float, low: float = 0.6) -> stat.Panel:
    """A ratio in percent: green from the target, red below `low`."""
    return stat_panel(
        title, description, expr, threshold_steps(BAD, (low, WARNING), (target, GOOD)), "percentunit"
    ).decimals(0)


def memory_panel(title: str, description: str, expr: str) -> stat.Panel:
    """Memory used: green within the band around its target, red where it is nearly full."""
    return stat_panel(title, description, expr, memory_thresholds(), "percentunit").decimals(0)


def memory_thresholds() -> build.ThresholdsConfig:
    low, high = MEMORY_BAND
    return threshold_steps(WARNING, (low, GOOD), (high, WARNING), (MEMORY_FULL, BAD))


def money_panel(
    title: str, description: str, expr: str, thresholds: build.ThresholdsConfig | None = None
) -> stat.Panel:
    """An amount with the sign of its currency: `expr` has one result a currency, with the label `currency`."""
    panel = stat_panel(title, description, expr, thresholds, no_value="unknown")
    panel = panel.decimals(2).targets([instant_query(expr).legend_format("{{currency}}")])
    for code in CURRENCIES:
        panel = panel.override_by_name(code, [model.DynamicConfigValue("unit", f"currency{code}")])
    return panel.text_mode(BigValueTextMode.VALUE_AND_NAME)


def timeseries_panel(title: str, description: str, unit: str, *queries: tuple[str, str]) -> timeseries.Panel:
    """Series over time from (query, legend) pairs. Gaps stay gaps."""
    panel = timeseries.Panel().title(title).description(description).datasource(DATASOURCE)
    for letter, (expr, legend) in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(range_query(expr, legend, letter))
    return (
        panel.unit(unit)
        .min(0)
        .span_nulls(False)
        .show_points(VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.RIGHT)
            .calcs(["lastNotNull"])
            .sort_by("Name")
            .sort_desc(False)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .span(12)
        .height(8)
    )


def stacked(panel: timeseries.Panel, colors: Mapping[str, str]) -> timeseries.Panel:
    """Filled areas on top of each other: parts of a whole, with a colour each by its legend."""
    for legend, color in colors.items():
        fixed = {"mode": "fixed", "fixedColor": color}
        panel = panel.override_by_name(legend, [model.DynamicConfigValue("color", fixed)])
    return panel.stacking(StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(60).line_width(0)


def ratio_timeseries_panel(
    title: str, description: str, *queries: tuple[str, str], target: float | None = None
) -> timeseries.Panel:
    """Ratios over time, as 0 to 100 %, with a dashed line at the target."""
    panel = timeseries_panel(title, description, "percentunit", *queries).max(1)
    return panel if target is None else add_target_line(panel, target, GOOD)


def bar_gauge_panel(title: str, description: str, unit: str, expr: str, legend: str) -> bargauge.Panel:
    """Current values as horizontal bars."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(instant_query(expr).legend_format(legend))
        .unit(unit)
        .min(0)
        .no_value("no data")
        .thresholds(threshold_steps("blue"))
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .value_mode(BarGaugeValueMode.TEXT)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .span(12)
        .height(8)
    )


def add_target_line(panel: timeseries.Panel, value: float, color: str) -> timeseries.Panel:
    """A dashed line at the target."""
    style = GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
    line = [model.Threshold(None, "transparent"), model.Threshold(value, color)]
    return panel.thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(line)).thresholds_style(
        style
    )


def table_panel(
    title: str, description: str, queries: Sequence[str], columns: Mapping[str, str], wanted: str = ""
) -> table.Panel:
    """A table of the queries' results, joined on their common labels.

    `columns` maps the columns to show, in order, to their headings: labels, and `Value #A` for the first query's value
    and so on. Rows without the label `wanted` of the first query are dropped: results that only other queries have.
    """
    panel = table.Panel().title(title).description(description).datasource(DATASOURCE).no_value("-")
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(table_query(query, letter))
    # With a single query, Grafana names the column `Value`.
    keys = {key if len(queries) > 1 or not key.startswith("Value") else "Value": head for key, head in columns.items()}
    organize = {
        "includeByName": dict.fromkeys(keys, True),
        "indexByName": {key: i for i, key in enumerate(keys)},
        "renameByName": keys,
    }
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    if wanted:
        there = {"fieldName": wanted, "config": {"id": "isNotNull", "options": {}}}
        only = {"type": "include", "match": "all", "filters": [there]}
        panel = panel.with_transformation(model.DataTransformerConfig(id_val="filterByValue", options=only))
    return (
        panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
        .filterable(True)
        .unit("short")
        .min_width(70)
        .span(24)
        .height(8)
    )


def override_column(panel: table.Panel, heading: str, **properties: object) -> table.Panel:
    """Override field options of one column; keywords are Grafana's property names."""
    return panel.override_by_name(heading, [model.DynamicConfigValue(key, value) for key, value in properties.items()])


def set_column_widths(panel: table.Panel, pixels: Mapping[str, int]) -> table.Panel:
    """Fix the widths of some columns, by heading; the others share the rest."""
    for heading, width in pixels.items():
        panel = override_column(panel, heading, **{"custom.width": width})
    return panel


def sort_table(panel: table.Panel, heading: str, descending: bool = False) -> table.Panel:
    return panel.sort_by([TableSortByFieldState().display_name(heading).desc(descending)])


def format_ratio_column(panel: table.Panel, heading: str, target: float | None = None) -> table.Panel:
    """Show a column of ratios as bars in percent, green from the target."""
    colors = threshold_steps("blue") if target is None else threshold_steps(BAD, (0.6, WARNING), (target, GOOD))
    return _bar_column(panel, heading, colors)


def format_memory_column(panel: table.Panel, heading: str) -> table.Panel:
    """Show a column of memory used as bars in percent, coloured as by `memory_panel`."""
    return _bar_column(panel, heading, memory_thresholds())


def _bar_column(panel: table.Panel, heading: str, colors: build.ThresholdsConfig) -> table.Panel:
    properties = {"custom.cellOptions": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}}
    return override_column(
        panel, heading, unit="percentunit", decimals=0, min=0, max=1, thresholds=colors.build(), **properties
    )


def format_state_column(panel: table.Panel, heading: str, mapping: Mapping[str, tuple[str, str]]) -> table.Panel:
    """Show a column's values as coloured text."""
    return override_column(
        panel, heading, mappings=value_mappings(mapping), **{"custom.cellOptions": {"type": "color-text"}}
    )


def add_column_links(panel: table.Panel, heading: str, *links: build.DashboardLink) -> table.Panel:
    """Add links to the cells of a column."""
    built = [link.build() for link in links]
    return override_column(panel, heading, links=[{"title": link.title, "url": link.url} for link in built])


def datasource_variable() -> build.DatasourceVariable:
    return build.DatasourceVariable("datasource").label("Data source").type("prometheus")


def multi_value_variable(name: str, label: str, metric: str, matchers: str = "") -> build.QueryVariable:
    """Select any number of values of a label of `metric`. The variable has the label's name."""
    return (
        build.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(f"label_values({metric}{matchers}, {name})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def cluster_variable(metric: str = "gpu:identity:info") -> build.QueryVariable:
    """Select clusters; without the label, all series are of one."""
    return multi_value_variable("cluster", "Cluster", metric)


def single_value_variable(name: str, label: str, query: str, regex: str = "") -> build.QueryVariable:
    """Select one result of a query."""
    return (
        build.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .regex(regex)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
    )


def assign_panel_ids(board: build.Dashboard) -> model.Dashboard:
    """Build the dashboard and number its panels: the builder leaves panel IDs unset, and links to a panel need them."""
    built = board.build()
    # Show links and annotations above the panels; by default the builder puts them into a menu.
    for link in built.links or []:
        link.placement = ""
    for annotation in built.annotations.list_val or []:
        annotation.placement = ""
    for number_, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number_
    return built
