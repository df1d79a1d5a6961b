"""A period against the one before: two weeks worked out by hand, a week without data, and one with a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.documents.savings import MAX_GROUPS
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries, metrics_of
from gpu_advisor.report import series
from gpu_advisor.report.build import build_report
from gpu_advisor.report.comparison import change
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.generate import generate_report
from gpu_advisor.report.html import render_html
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.period import DAY, HOUR, ReportPeriod
from gpu_advisor.report.schema import ChangesByOwner, FleetChanges, Report
from gpu_advisor.report.sections import sections
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.builders import END, GpuHistorySpec, history_of, view_of

WEEK = ReportPeriod(END, 1800, 336)
EVERY = range(WEEK.points)
SETTINGS = Settings.model_validate(
    {
        "cost": {"gpu_price_per_hour": {"NVIDIA H100": 2.5}, "list_prices": False},
        "teams": [{"name": "vision", "namespaces": ["vision-.*"]}, {"name": "speech", "namespaces": ["speech"]}],
    }
)
VISION, SPEECH = GpuOwner("vision-a", "train", user="ann"), GpuOwner("speech", "asr", user="bob")


def week(
    utilization: Mapping[str, float],
    owners: Mapping[str, GpuOwner] | None = None,
    steps: Iterable[int] = EVERY,
    period: ReportPeriod = WEEK,
    name: str = "NVIDIA H100",
) -> FleetHistory:
    """GPUs with their utilization, and who had them, in the given steps. `owners` None: unknown."""
    known = list(steps)
    cards = [
        GpuHistorySpec(
            uuid, name, utilization=dict.fromkeys(known, value), coverage=dict.fromkeys(known, 1.0),
            memory=dict.fromkeys(known, 0.5), named=frozenset(known),
        )
        for uuid, value in utilization.items()
    ]  # fmt: skip
    by_step = {uuid: dict.fromkeys(known, frozenset({owner})) for uuid, owner in (owners or {}).items()}
    owner_steps = {} if owners is None else {card.uuid: frozenset(known) for card in cards}
    history = history_of(cards, owners=by_step, owner_steps=owner_steps)
    return replace(history, period=period)


def compared(now: FleetHistory, before: FleetHistory) -> Report:
    return build_report(now, view_of(), SETTINGS, before=replace(before, period=WEEK.before()))


def numbers(of: Any) -> tuple[float | None, ...]:
    return of["now"], of["before"], of["difference"], of["difference_ratio"]


def changes(of: FleetChanges | ChangesByOwner) -> dict[str, Any]:
    """By name, for a loop."""
    return dict(of)


def test_two_weeks_by_hand() -> None:
    """Two GPUs at 2.50 USD an hour: 60 % and 20 % busy, and 50 % and 0 % in the week before."""
    found = compared(week({"GPU-0": 0.6, "GPU-1": 0.2}), week({"GPU-0": 0.5, "GPU-1": 0.0}))["comparison"]
    assert found is not None
    fleet = found["fleet"]
    assert numbers(fleet["gpus"]) == (2, 2, 0, 0)
    assert numbers(fleet["gpu_utilization_ratio"]) == pytest.approx((0.4, 0.25, 0.15, 0.6))
    assert numbers(fleet["busy_per_day"]) == pytest.approx((19.2, 12, 7.2, 0.6))
    assert numbers(fleet["unused_per_day"]) == pytest.approx((28.8, 36, -7.2, -0.2))
    assert numbers(fleet["idle_allocated_per_day"]) == pytest.approx((0, 24, -24, -1))
    assert numbers(fleet["cost_per_day"]) == pytest.approx((120, 120, 0, 0))
    assert numbers(fleet["cost_unused_per_day"]) == pytest.approx((72, 90, -18, -0.2))
    verdicts = {name: each["verdict"] for name, each in changes(fleet).items()}
    better = {
        "gpu_utilization_ratio",
        "busy_per_day",
        "unused_per_day",
        "idle_allocated_per_day",
        "cost_unused_per_day",
    }
    assert {name for name, verdict in verdicts.items() if verdict} == better
    assert {verdicts[name] for name in better} == {"better"}
    assert found["data_ratio"] == 1.0
    assert (found["period"]["start"], found["period"]["end"]) == (
        "2026-11-04T12:00:00.000Z",
        "2026-11-11T12:00:00.000Z",
    )


def test_the_cost_of_what_was_unobserved() -> None:
    """GPU-1 was read in half of the week before: 12 of its 24 hours a day at 2.50 USD are unobserved."""
    now, before = (week({"GPU-0": 0.5, "GPU-1": 0.5}) for _ in range(2))
    read = {uuid: dict(list(steps.items())[:168] if uuid == "GPU-1" else steps)
            for uuid, steps in before.values[series.UTILIZATION].items()}  # fmt: skip
    found = compared(now, replace(before, values={**before.values, series.UTILIZATION: read}))["comparison"]
    assert found is not None
    assert numbers(found["fleet"]["cost_per_day"]) == pytest.approx((120, 120, 0, 0))
    assert numbers(found["fleet"]["cost_unobserved_per_day"]) == pytest.approx((0, 30, -30, -1))
    assert found["fleet"]["cost_unobserved_per_day"]["verdict"] == "better"


def test_the_change_is_in_all_renderings() -> None:
    document = compared(week({"GPU-0": 0.6, "GPU-1": 0.2}), week({"GPU-0": 0.5, "GPU-1": 0.0}))
    for text in (render_html(document), render_markdown(document)):
        assert "Against the week before: GPU utilization +15.0 points (better), unused GPU-hours per day -20.0 %" in (
            text.replace("\\", "")
        )
    row = "| cost of unused GPU-hours per day (USD) | 72.00 | 90.00 | -18.00 | -20.0 % | better |"
    assert row in render_markdown(document).replace("\\", "")
    assert 'data-path="/comparison/fleet/unused_per_day/difference">-7.2<' in render_html(document)


def test_by_team_namespace_and_user() -> None:
    """GPU-1 goes from nobody to the speech team, and is as idle there."""
    document = compared(
        week({"GPU-0": 0.75, "GPU-1": 0.0}, {"GPU-0": VISION, "GPU-1": SPEECH}),
        week({"GPU-0": 0.5, "GPU-1": 0.0}, {"GPU-0": VISION}),
    )
    found = document["comparison"]
    assert found is not None
    expected = {"speech": (24.0, 0.0, "worse"), "no team": (0.0, 24.0, "better"), "vision": (6.0, 12.0, "better")}
    for by, names in (
        ("team", ["speech", "vision", "no team"]),
        ("namespace", ["speech", "vision-a", "no namespace"]),
        ("user", ["bob", "ann", "no user"]),
    ):
        groups = changes(found["by"])[by]
        assert [each["name"] for each in groups] == names
        for each, numbers_of in zip(groups, ("speech", "vision", "no team"), strict=True):
            now, before, verdict = expected[numbers_of]
            unused, cost = each["unused_per_day"], each["cost_unused_per_day"]
            assert (unused["now"], unused["before"], unused["verdict"]) == pytest.approx((now, before, verdict))
            assert (cost["now"], cost["before"]) == pytest.approx((2.5 * now, 2.5 * before))
            assert (unused["difference_ratio"] is None) == (before == 0)
    assert "By team" in render_markdown(document)


def test_the_groups_that_leave_most_unused_are_listed_and_their_owners_add_up() -> None:
    """Seventy namespaces: two pods share the first, and those that are as idle are in the order of the week before."""
    owners = {f"GPU-{number:02}": GpuOwner(f"ns-{max(1, number):02}", f"pod-{number}") for number in range(71)}
    idle_now = dict.fromkeys(owners, 0.5) | {"GPU-70": 0.0}
    idle_before = dict.fromkeys(owners, 0.5) | {"GPU-69": 0.25}
    found = compared(week(idle_now, owners, range(4)), week(idle_before, owners, range(4)))["comparison"]
    assert found is not None
    groups = found["by"]["namespace"]
    assert [each["name"] for each in groups[:4]] == ["ns-01", "ns-70", "ns-69", "ns-02"]
    assert len(groups) == MAX_GROUPS
    assert [each["observed_per_day"]["now"] for each in groups[:2]] == pytest.approx([48, 24])
    assert [each["unused_per_day"]["now"] for each in groups[:4]] == pytest.approx([24, 24, 12, 12])


def test_owners_add_up_to_the_fleet() -> None:
    document = compared(
        week({"GPU-0": 0.75, "GPU-1": 0.1}, {"GPU-0": VISION}), week({"GPU-0": 0.5, "GPU-1": 0.0}, {"GPU-1": SPEECH})
    )
    found = document["comparison"]
    assert found is not None
    for name in ("unused_per_day", "cost_unused_per_day"):
        for side in ("now", "before"):
            whole = changes(found["fleet"])[name][side]
            for groups in changes(found["by"]).values():
                assert sum(each[name][side] for each in groups) == pytest.approx(whole)


@pytest.mark.parametrize("without", ["now", "before"])
def test_unknown_owners_are_not_nobody(without: str) -> None:
    """Of a week whose exporter reported no owners, no team's use is known: neither zero nor nobody's."""
    known, unknown = week({"GPU-0": 0.5}, {"GPU-0": VISION}), week({"GPU-0": 0.5})
    found = compared(*((unknown, known) if without == "now" else (known, unknown)))["comparison"]
    assert found is not None
    [team] = found["by"]["team"]
    assert (team["name"], team["unused_per_day"]["difference"]) == ("vision", None)
    assert dict(team["unused_per_day"])[without] is None
    assert dict(team["cost_unused_per_day"])[without] is None


def test_without_any_owner_there_is_no_table() -> None:
    found = compared(week({"GPU-0": 0.5}), week({"GPU-0": 0.5}))["comparison"]
    assert found is not None
    assert found["by"] == {"team": [], "namespace": [], "user": []}


def test_an_empty_week_is_unknown_and_never_zero() -> None:
    document = compared(week({"GPU-0": 0.5}), FleetHistory(WEEK, unavailable=("why",)))
    found = document["comparison"]
    assert found is not None
    assert (found["data_ratio"], found["unavailable"]) == (0.0, ["why"])
    for name, each in changes(found["fleet"]).items():
        assert numbers(each)[1:] == (None, None, None), name
        assert each["verdict"] is None
        assert each["now"] is not None or name == "cost"
    for text in (render_html(document), render_markdown(document)):
        assert "There is no data for the week before." in text
    [section] = [each for each in sections(document) if each.key == "change"]
    assert section.tables == ()
    assert section.words[1:] == ("why",)


def test_gpus_that_were_only_named_are_no_data() -> None:
    """As at the moment when the history began."""
    named = replace(week({"GPU-0": 0.5}, steps=[335]), values={})
    assert "There is no data for the week before." in render_markdown(compared(week({"GPU-0": 0.5}), named))


def test_a_part_of_a_week_compares_by_the_day() -> None:
    """Data of the last two days of the week before: alike, so nothing has changed, and its share is shown."""
    document = compared(week({"GPU-0": 0.5}), week({"GPU-0": 0.5}, steps=range(240, 336)))
    found = document["comparison"]
    assert found is not None
    assert found["data_ratio"] == pytest.approx(2 / 7)
    for name, each in changes(found["fleet"]).items():
        assert each["difference"] == pytest.approx(0), name
        assert each["verdict"] is None, name
    assert "100.0 % of this period and 28.6 % of the week before have data" in render_html(document)


def test_prices_are_those_of_both_weeks_gpus() -> None:
    """A GPU that left has a price; of a model without one the cost is unknown."""
    found = compared(week({"GPU-0": 0.5}), week({"GPU-9": 0.5}))["comparison"]
    assert found is not None
    assert found["fleet"]["cost_unused_per_day"]["before"] == pytest.approx(30)
    found = compared(week({"GPU-0": 0.5}), week({"GPU-9": 0.5}, name="Odd GPU"))["comparison"]
    assert found is not None
    assert numbers(found["fleet"]["cost_unused_per_day"])[1:] == (None, None, None)


@given(st.none() | st.floats(-1e9, 1e9), st.none() | st.floats(-1e9, 1e9), st.sampled_from(["higher", "lower", None]))
def test_a_change_is_known_where_both_are(now: float | None, before: float | None, good: Any) -> None:
    found = change(now, before, good)
    assert (found["difference"] is None) == (now is None or before is None)
    if not before or now is None:
        assert found["difference_ratio"] is None
    mirrored = change(before, now, good)["verdict"]
    assert (found["verdict"], mirrored) in {("better", "worse"), ("worse", "better"), (None, None)}
    assert good or found["verdict"] is None


UUIDS = ("GPU-1", "GPU-2")


def lines(until: int) -> Iterator[str]:
    """Two GPUs from two days before END on: 40 % busy until `until`, 70 % from then on."""
    for at in range(int(END) - 2 * DAY, int(END) + 1, 60):
        for number, uuid in enumerate(UUIDS):
            busy = 0.4 * min(at - END, until - END) + 0.7 * max(0, at - until) + 1e6
            yield f'gpu_info{{uuid="{uuid}",index="{number}",name="NVIDIA H100",vendor="nvidia",nodename="a"}} 1 {at}\n'
            yield f'gpu_busy_seconds_total{{uuid="{uuid}"}} {busy} {at}\n'
            yield f'gpu_observed_seconds_total{{uuid="{uuid}"}} {at - END + 1e6} {at}\n'
        yield f'gpu_exporter_owner_source_info{{source="kubelet",state="ok"}} 1 {at}\n'
        owner = 'uuid="GPU-1",owner_kind="kubernetes",owner_namespace="speech",owner_pod="asr"'
        yield f"gpu_owner_info{{{owner}}} 1 {at}\n"


class CountingRange:
    """A source's range; `refused` from a time back."""

    def __init__(self, history: History, refused_before: float = 0.0) -> None:
        self.source, self.refused_before = EmbeddedSource(history), refused_before
        self.asked: list[tuple[Expression, float]] = []

    def __call__(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.asked.append((expression, end))
        if end <= self.refused_before:
            raise SourceError(SourceErrorKind.UNREACHABLE, "refused by the test")
        return self.source.range(expression, start, end, step)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    found = History(tmp_path_factory.mktemp("two-days") / "history.db")
    import_openmetrics(found, lines(int(END) - DAY), "a:9816", "gpu-exporter")
    yield found
    found.close()


def read(past: CountingRange, since: int, now: float = END) -> Report:
    return generate_report(past, view_of(), SETTINGS, since, now, samples=past.source.samples)


def test_a_day_and_the_day_before_are_read(past: History) -> None:
    ask = CountingRange(past)
    document = read(ask, DAY)
    found = document["comparison"]
    assert found is not None
    assert numbers(found["fleet"]["gpu_utilization_ratio"])[:2] == pytest.approx((0.7, 0.4), abs=2e-3)
    assert numbers(found["fleet"]["unused_per_day"])[:2] == pytest.approx((14.4, 28.8), rel=0.01)
    speech = next(each for each in found["by"]["team"] if each["name"] == "speech")
    assert numbers(speech["unused_per_day"])[:2] == pytest.approx((7.2, 14.4), rel=0.01)
    assert "Against the day before" in render_markdown(document)
    raw_samples = 2  # scrape intervals, once a period
    assert len(ask.asked) + raw_samples == document["period"]["queries"] + found["period"]["queries"]
    of_nodes = [end for expression, end in ask.asked if "node:cpu_ratio:mean5m" in metrics_of(expression)]
    assert of_nodes
    assert all(end == END for end in of_nodes)  # not of the day before
    assert document["period"]["queries"] <= 12
    assert found["period"]["queries"] <= 8


def test_what_was_before_is_what_was_reported_then(past: History) -> None:
    """The report of yesterday has the numbers that today's compares with."""
    today, yesterday = read(CountingRange(past), 6 * HOUR), read(CountingRange(past), 6 * HOUR, END - 6 * HOUR)
    assert today["comparison"] is not None
    assert yesterday["comparison"] is not None
    for name, each in changes(today["comparison"]["fleet"]).items():
        then = changes(yesterday["comparison"]["fleet"])[name]
        assert each["before"] == pytest.approx(then["now"]), name


def test_a_history_that_begins_within_the_period_has_nothing_before(past: History) -> None:
    document = read(CountingRange(past), 4 * DAY)
    assert document["comparison"] is not None
    assert document["comparison"]["fleet"]["unused_per_day"]["before"] is None
    assert "There is no data for the 4 days before." in render_markdown(document)


def test_where_the_period_before_cannot_be_read_the_report_says_so(past: History) -> None:
    document = read(CountingRange(past, END - DAY), DAY)
    assert document["groups"][0]["gpu_utilization_ratio"] == pytest.approx(0.7, abs=2e-3)
    assert document["comparison"] is not None
    assert "could not be read: " in document["comparison"]["unavailable"][0]
    assert "refused by the test" in render_html(document)
