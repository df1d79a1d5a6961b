"""What all dashboards share: UID, tags, time range, variables, links to each other, annotations."""

# The builder library's types need Python 3.11; checked as 3.10, its enums are strings and its return types unknown.
# mypy: disable-error-code="arg-type, no-any-return"

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from grafana.panels import DATASOURCE, datasource_variable

TAG = "gpu-advisor"
#: Links between dashboards keep the data source and the time range.
_LINK_PARAMETERS = "${datasource:queryparam}&${__url_time_range}"


def uid(name: str) -> str:
    """UID of a dashboard, from its file name. It is part of bookmarked URLs, so it never changes."""
    return f"gpu-advisor-{name}"


def new_dashboard(name: str, title: str, description: str, time_from: str = "now-3h") -> build.Dashboard:
    """An empty dashboard. `time_from` is the start of the time range in Grafana's syntax."""
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
            .include_vars(True)
        )
        .with_variable(datasource_variable())
    )


def dashboard_link(name: str, title: str, keep_cluster: bool = True, **variables: str) -> build.DashboardLink:
    """Link from a cell or a series to another dashboard, with values for its variables.

    Both dashboards have the variable `cluster`, whose value is kept, unless `keep_cluster` is False.
    """
    chosen = "&${cluster:queryparam}" if keep_cluster else ""
    chosen += "".join(f"&var-{variable}={value}" for variable, value in variables.items())
    return external_link(title, f"/d/{uid(name)}?{_LINK_PARAMETERS}{chosen}")


def external_link(title: str, url: str) -> build.DashboardLink:
    """Link from a cell to a URL outside the dashboards."""
    return build.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url)


def cell_value(column: str) -> str:
    """The URL-encoded value of a column in the link's row."""
    return f'${{__data.fields["{column}"]:percentencode}}'


def label_value(name: str) -> str:
    """The URL-encoded label of the clicked series."""
    return f"${{__field.labels.{name}:percentencode}}"


def recommendation_annotations(expr: str) -> build.AnnotationQuery:
    """Annotations at the start of each recommendation; `expr` returns the start in milliseconds of Unix time."""
    return (
        build.AnnotationQuery()
        .name("Recommendations")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("orange")
        .expr(expr)
        .title_format("{{kind}} ({{severity}})")
        .text_format("{{scope}}; runbook: {{alert}}.md")
        .tag_keys("kind,severity")
        .step("60s")
        .use_value_for_time(True)
    )
