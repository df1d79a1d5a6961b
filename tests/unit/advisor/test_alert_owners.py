"""Alerts by owner: labels that route to a team, and that stay the same while the alert fires."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Recommendation, Scope
from gpu_advisor.notify.alert_owners import MAX_LABEL_LENGTH, MAX_OWNERS, alerts_by_owner, label_text
from gpu_advisor.notify.alerts import build_alerts, update_alerts
from gpu_advisor.settings import CostSettings, Settings
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.view import PublishedRecommendation
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, GpuSpec, facts

ADA = GpuOwner("ml", "train-0", started=AT - 9000, team="ml")
BOB = GpuOwner(job="77", user="bob", kind="slurm", started=AT - 8000, account="vis", team="vision")
SETTINGS = Settings.model_validate({"resources": {"gpu": {"min": 0, "max": 8}}})


def idle(owners: Mapping[str, tuple[GpuOwner, ...]], gpus: int = 3) -> Recommendation:
    known = facts([GpuSpec(f"g{n}", 0.0, index=str(n)) for n in range(gpus)], SETTINGS, owners=owners)
    (advice,) = (each for each in decide(known, SETTINGS).recommendations if each.kind == "idle_reclaim")
    return advice


def alerts(advice: Recommendation, owners: Mapping[str, tuple[GpuOwner, ...]], before: tuple[Alert, ...] = (),
           now: float = AT) -> tuple[Alert, ...]:  # fmt: skip
    issued = PublishedRecommendation("id", AT - 60, advice)
    return tuple(build_alerts(issued, owners, {each.id: each for each in before}, "c", "", now))


def test_each_owner_has_an_alert_for_its_team() -> None:
    owners = {"g0": (ADA,), "g1": (ADA, BOB)}
    found = {each.labels.get("owner", ""): each for each in alerts(idle(owners), owners)}
    routes = {name: (each.labels.get("team"), each.labels.get("namespace"), each.gpus) for name, each in found.items()}
    assert routes == {
        "": (None, None, ("g2",)),
        "pod/train-0": ("ml", "ml", ("g0", "g1")),
        "job/77": ("vision", None, ("g1",)),
    }
    assert found["pod/train-0"].annotations["summary"].startswith("2 GPUs of pod ml/train-0: Release 3 of 3")
    assert found[""].id == "id"  # as before there were owners: no alert is new for those who have none
    assert len({tuple(sorted(each.labels.items())) for each in found.values()}) == 3


def test_each_owner_reads_what_its_own_gpus_save() -> None:
    """3 GPUs of a node at 4 USD: 2 of one owner are 8 USD an hour, 5,840 a month of 730 hours. No price, no money."""
    settings = SETTINGS.model_copy(update={"cost": CostSettings(gpu_price_per_hour={"H100": 4.0})})
    owners = {"g0": (ADA,), "g1": (ADA,)}
    known = facts([GpuSpec(f"g{n}", 0.0, index=str(n)) for n in range(3)], settings, owners=owners)
    evaluation = decide(known, settings)
    issued = PublishedRecommendation("id", AT - 60, evaluation.recommendations[0])
    found = {
        each.labels.get("owner", ""): each.annotations
        for each in build_alerts(issued, owners, {}, "c", "", AT, evaluation.prices)
    }
    assert found["pod/train-0"]["savings"] == "8.00 USD per hour (5,840 USD per month)"
    assert found[""]["savings"] == "4.00 USD per hour (2,920 USD per month)"
    assert all("savings" not in each.annotations for each in alerts(idle(owners), owners))


def test_hardware_is_not_the_owners_business() -> None:
    owners = {"g0": (ADA,)}
    cooling = replace(idle(owners), kind="cooling")
    assert [each.labels for each in alerts_by_owner(cooling, owners)] == [{}]


def test_an_alert_keeps_its_labels_and_its_beginning_while_owners_come_and_go() -> None:
    owners = {"g0": (ADA,)}
    first = alerts(idle(owners), owners)
    then = {**owners, "g1": (BOB,)}
    second = {each.id: each for each in alerts(idle(then), then, first, AT + 600)}
    for each in first:
        assert (second[each.id].labels, second[each.id].started) == (each.labels, each.started)
    (new,) = second.keys() - {each.id for each in first}
    assert (second[new].labels["owner"], second[new].started) == ("job/77", AT + 600)


def test_many_owners_share_an_alert_and_the_newest_takes_no_ones_place() -> None:
    old = {f"g{n}": (replace(ADA, pod=f"p{n}", started=AT - 9000 + n),) for n in range(MAX_OWNERS + 2)}
    advice = idle(old, MAX_OWNERS + 2)
    found = alerts_by_owner(advice, old)
    assert len(found) == MAX_OWNERS + 1
    assert found[0].labels == {}
    assert found[0].gpus == (f"g{MAX_OWNERS}", f"g{MAX_OWNERS + 1}")


@given(st.text())
def test_labels_need_no_quotes(text: str) -> None:
    shown = label_text(text)
    assert re.fullmatch(r"[A-Za-z0-9_./:@+=-]*", shown)
    assert len(shown) <= MAX_LABEL_LENGTH
    assert label_text(text + "\n") != shown


@pytest.mark.parametrize(
    ("gpus", "kinds", "resolved"),
    [(("g0",), (), False), (("g1",), (), True), (("g0",), ("idle_reclaim",), False), (("g0",), ("cooling",), True)],
)
def test_missing_data_of_one_owner_resolves_no_alert_while_others_go_on(
    gpus: tuple[str, ...], kinds: tuple[str, ...], resolved: bool
) -> None:
    owners = {"g0": (ADA,), "g1": (BOB,)}
    before = alerts(idle(owners), owners)
    blind = [Abstention(Reason.NO_DATA, "x", Scope("pool", "p"), "", gpus, kinds)]
    gone = next(each for each in before if each.labels.get("owner") == "pod/train-0")
    firing = [each for each in before if each is not gone]
    after = {each.id: each for each in update_alerts(before, firing, frozenset(), AT + 15, blind)}
    assert (after[gone.id].resolved is not None) == resolved
