"""The frame that all dashboards have: address, tags, time, variables, links to one another, annotations."""

# The builder library's types need Python 3.11; checked as 3.10, its enums look like text and what its methods return is
# unknown.
# mypy: disable-error-code="arg-type, no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from grafana.panels import DATASOURCE, datasource_variable

TAG = "gpu-advisor"
#: Links between dashboards keep the data source and the time range.
_LINK_PARAMETERS = "${datasource:queryparam}&${__url_time_range}"


def uid(name: str) -> str:
    """The address of a dashboard, by its file's name. It never changes: people keep it."""
    return f"gpu-advisor-{name}"


def new_dashboard(name: str, title: str, description: str, time_from: str = "now-3h") -> build.Dashboard:
    """An empty dashboard. `time_from` is the begin of the time range, as Grafana writes it."""
    return (
        build.Dashboard(title)
        .uid(uid(name))
        .description(description)
        .tags([TAG])
        .readonly()
        .time(time_from, "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("GPU dashboards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(False)
        )
        .with_variable(datasource_variable())
    )


def link(name: str, title: str, **variables: str) -> build.DashboardLink:
    """A link of a cell or a line to another dashboard, with the values of its variables."""
    chosen = "".join(f"&var-{variable}={value}" for variable, value in variables.items())
    return external_link(title, f"/d/{uid(name)}?{_LINK_PARAMETERS}{chosen}")


def external_link(title: str, url: str) -> build.DashboardLink:
    """A link of a cell to somewhere else."""
    return build.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url)


def cell_value(column: str) -> str:
    """The value of a table's column in the row of the link, fit for an address."""
    return f'${{__data.fields["{column}"]:percentencode}}'


def label_value(name: str) -> str:
    """A label of the line that is clicked on, fit for an address."""
    return f"${{__field.labels.{name}:percentencode}}"


def recommendation_annotations(expr: str) -> build.AnnotationQuery:
    """A mark on the curves at the moment since which each recommendation is given; `expr` has it in milliseconds."""
    return (
        build.AnnotationQuery()
        .name("Recommendations")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("orange")
        .expr(expr)
        .title_format("{{kind}} ({{severity}})")
        .text_format("for {{scope}}; what to do: {{alert}}.md among the runbooks")
        .tag_keys("kind,severity")
        .step("60s")
        .use_value_for_time(True)
    )
