"""Recommendations for several GPUs of a node as one: in documents, on the page, and in commands."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from gpu_advisor.commands import output, recommend
from gpu_advisor.commands.advice_entries import entries
from gpu_advisor.documents import schema, serialize
from gpu_advisor.documents.advice_groups import AdviceGroup, group_by_node, merge_steps
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.signals import FATAL_ERRORS, LAST_ERROR, ROW_REMAP_FAILED, ROW_REMAP_PENDING, Signal
from gpu_advisor.report.first_actions import first_actions
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.page.advice_list import MAX_ALIKE, advice_list
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.unit.advisor.builders import AT, GpuSpec, facts, with_values
from tests.unit.advisor.test_lost import decided, fleet
from tests.unit.advisor.test_page import client_of, text_of

SNOOZE = Snooze("spare part is on its way", AT, AT + 3600)


def view_with_lost(lost_by_node: Mapping[str, int], up_of_each: int = 5) -> View:
    nodes = [node for node in lost_by_node for _ in range(up_of_each)]
    nodes += [node for node, count in lost_by_node.items() for _ in range(count)]
    return view_of(decided(fleet(up_of_each * len(lost_by_node), sum(lost_by_node.values()), nodes)))


def view_of(evaluation: Evaluation) -> View:
    issued = (PublishedRecommendation(each.id("c"), AT, each) for each in evaluation.recommendations)
    return View("c", SourceStatus("prometheus", "http://p:9090", up=True), evaluation, tuple(issued))


def snoozed(view: View, *ids: str) -> View:
    issued = (replace(each, snoozed=SNOOZE) if each.id in ids else each for each in view.issued)
    return replace(view, issued=tuple(issued))


def lost_groups(view: View) -> list[AdviceGroup]:
    return [each for each in group_by_node(view) if each.advice.kind == "lost_gpu"]


def test_several_of_a_node_are_one_with_one_set_of_steps() -> None:
    view = view_with_lost({"node-a": 3, "node-b": 1, "node-c": 2})
    first, second, third = lost_groups(view)
    assert [each.summary for each in (first, second, third)] == [
        "3 of 8 GPUs of node-a are lost: drain node-a and power-cycle it",
        "node-b GPU 18 is lost: drain node-b and power-cycle it",
        "2 of 7 GPUs of node-c are lost: drain node-c and power-cycle it",
    ]
    drains = [step for step in first.apply if "cordon" in step]
    returned = [step for step in first.apply if "return it" in step]
    assert (len(drains), len(returned)) == (1, 3)
    assert first.apply.index(drains[0]) < first.apply.index(returned[0])


def test_a_group_explains_each_reason_once() -> None:
    view = view_with_lost({"node-a": 3})
    assert lost_groups(view)[0].explanation == "The driver of node-a reports: fell off the bus."
    assert view.evaluation
    known = view.evaluation.facts
    reasons = {
        uuid: "hung" if number == 1 else reason for number, (uuid, reason) in enumerate(known.down_reasons.items())
    }
    [group] = lost_groups(view_of(decided(replace(known, down_reasons=reasons))))
    assert group.explanation.split(": ")[1:] == [
        "fell off the bus. The driver of node-a reports", "does not answer its driver.",
    ]  # fmt: skip


def test_ids_and_alerts_are_of_each_gpu() -> None:
    view = view_with_lost({"node-a": 3})
    [group] = lost_groups(view)
    assert set(group.ids) == {each.id for each in view.issued if each.recommendation.kind == "lost_gpu"}
    assert len(group.ids) == 3


@pytest.mark.parametrize(
    ("values", "summaries"),
    [
        ([{FATAL_ERRORS: 1.0, LAST_ERROR: 79.0}] * 2,
         ["2 of 4 GPUs of node-a reported a fatal error (Xid 79): drain the node and power-cycle it"]),
        ([{FATAL_ERRORS: 1.0, LAST_ERROR: 48.0}] * 3,
         ["3 of 4 GPUs of node-a reported a fatal error (Xid 48): drain the node and reset them"]),
        ([{ROW_REMAP_FAILED: 1.0}] * 2, ["2 of 4 GPUs of node-a could not remap a faulty memory row: replace them"]),
        ([{ROW_REMAP_PENDING: 1.0}] * 2,
         ["2 of 4 GPUs of node-a need a reset to remap faulty memory rows: reset them after their jobs end"]),
        ([{FATAL_ERRORS: 1.0, LAST_ERROR: 48.0}, {ROW_REMAP_PENDING: 1.0}],  # not the same remedy
         ["node-a GPU 0 reported a fatal error (Xid 48): drain the node and reset the GPU",
          "node-a GPU 1 needs a reset to remap faulty memory rows: reset the GPU after its job ends"]),
    ],
)  # fmt: skip
def test_failing_gpus_of_a_node_are_one_where_the_remedy_is_the_same(
    values: Sequence[Mapping[Signal, float]], summaries: Sequence[str]
) -> None:
    known = facts([GpuSpec(f"g{n}", 0.9, 1.0, node="node-a", index=str(n)) for n in range(4)], Settings())
    for number, of_gpu in enumerate(values):
        known = with_values(known, {signal: {f"g{number}": value} for signal, value in of_gpu.items()})
    found = group_by_node(view_of(decide(known, Settings())))
    assert [each.summary for each in found if each.advice.kind == "failing_gpu"] == summaries


def test_a_snoozed_member_counts_as_lost_but_not_as_open() -> None:
    whole = view_with_lost({"node-a": 3})
    [group] = lost_groups(whole)
    view = snoozed(whole, group.ids[1])
    [group] = lost_groups(view)
    assert (group.summary.split(" are ")[0], len(group.open)) == ("3 of 8 GPUs of node-a", 2)
    listed = advice_list([group], 10, 100)
    assert (listed.runs[0].cards[0].numbers, listed.shown) == ("1–2", 2)
    [entry] = entries(answer_of(view, "lost_gpu"))
    assert entry.marks == ["1 snoozed"]
    assert advice_list([lost_groups(snoozed(whole, *group.ids))[0]], 10, 100).runs == ()


def answer_of(view: View, kind: str) -> schema.Recommendations:
    selection = [each for each in view.issued if each.recommendation.kind == kind]
    return serialize.recommendations(view, selection, 1, 100)


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(st.sampled_from("abcdef"), max_size=6), min_size=n, max_size=n)
    )
)
def test_merged_steps_are_each_step_once(lists: list[list[str]]) -> None:
    merged = list(merge_steps(lists))
    assert sorted(merged) == sorted(set().union(*lists))


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.integers(2, 4))
def test_a_step_stands_after_all_that_any_has_before_it(shared: list[str], count: int) -> None:
    lists = [[step for own in shared for step in (own + str(number), own)] for number in range(count)]
    merged = list(merge_steps(lists))
    for steps in lists:
        assert [step for step in merged if step in steps] == steps
    assert len(merged) == len(set(merged))


@given(
    st.lists(st.tuples(st.sampled_from("kl"), st.integers(1, 4)), max_size=30), st.integers(0, 12), st.integers(0, 40)
)
def test_every_entry_is_listed_once_in_order(drawn: list[tuple[str, int]], max_cards: int, max_listed: int) -> None:
    [one] = [each for each in view_with_lost({"node-a": 1}).issued if each.recommendation.kind == "lost_gpu"]
    groups = [
        AdviceGroup(tuple(_named(one, kind, f"{place}-{number}") for number in range(size)))
        for place, (kind, size) in enumerate(drawn)
    ]
    found = advice_list(groups, max_cards, max_listed)
    listed = [*(each for run in found.runs for each in (*run.cards, *run.others)), *found.more]
    assert [each.group.ids for each in listed] == [group.ids for group in groups[:max_listed]]
    ranks = [each.rank for each in listed]
    assert ranks == [1 + sum(len(group.open) for group in groups[:place]) for place in range(len(listed))]
    assert sum(len(run.cards) for run in found.runs) <= max_cards
    assert all(len(run.cards) <= MAX_ALIKE + 1 and (run.cards or not run.others) for run in found.runs)
    assert found.shown == sum(len(each.group.open) for each in listed)


def _named(one: PublishedRecommendation, kind: str, id_: str) -> PublishedRecommendation:
    return replace(one, id=id_, recommendation=replace(one.recommendation, kind=kind))


def test_the_page_shows_a_group_as_one_card_with_a_table() -> None:
    view = view_with_lost({"node-a": 3})
    [group] = lost_groups(view)
    client = client_of(view)
    html, text = client.get("/", headers={"Accept": "text/html"}).text, text_of(client, "/")
    assert "1–3. 3 of 8 GPUs of node-a are lost" in text
    assert html.count("kubectl cordon node-a") == 1
    for each in group.members:
        assert f'href="./page/{each.id}"' in html
        page = text_of(client, f"/page/{each.id}")
        assert page.count("3 of 8 GPUs of node-a are lost") == 1
        assert each.recommendation.summary in page


def test_many_lost_nodes_leave_room_for_other_advice() -> None:
    view = view_with_lost({f"node-{number}": 1 + number % 2 for number in range(12)})
    assert view.evaluation
    text = text_of(client_of(view), "/")
    assert "9 more: lost GPU" in text
    last = text.index("drain node-11")
    others = [each for each in group_by_node(view) if each.advice.kind != "lost_gpu"]
    assert others
    assert all(text.index(each.summary) > last for each in others[:1])


def recommend_table(view: View) -> str:
    file = io.StringIO()
    table = output.rich_table(*recommend.short_table(answer_of(view, "lost_gpu"), 160))
    Console(file=file, width=160, color_system=None, legacy_windows=False).print(table)
    return file.getvalue()


def test_recommend_lists_a_group_as_one_row_and_its_ids_in_a_pipe() -> None:
    view = view_with_lost({"node-a": 3, "node-b": 1})
    [group, alone] = lost_groups(view)
    table = recommend_table(view)
    assert table.count("lost") == 2
    assert f"{group.ids[0][:6]} +2" in table
    assert alone.ids[0][:6] in table
    rows = recommend.rows(answer_of(view, "lost_gpu"))
    assert {row[-1] for row in rows} == {*group.ids, *alone.ids}


def test_savings_of_a_group_are_those_of_its_members() -> None:
    view = view_with_lost({"node-a": 3})
    answer = answer_of(view, "lost_gpu")
    [group] = answer["groups"]
    each = [one["savings_gpus"] or 0.0 for one in answer["recommendations"]]
    assert group["savings_gpus"] == pytest.approx(sum(each)) == 3


def test_the_report_starts_with_a_group_as_one_action() -> None:
    view = view_with_lost({"node-a": 3, "node-b": 1})
    only_lost = tuple(each for each in view.issued if each.recommendation.kind == "lost_gpu")
    first, second = first_actions(replace(view, issued=only_lost), "")
    assert (first["summary"].split(":")[0], first["savings_gpus"]) == ("3 of 8 GPUs of node-a are lost", 3)
    assert "node-b" in second["summary"]
