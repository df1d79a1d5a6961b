"""What the pages derive from one view: built once, on the first request that needs it, and read by many."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property

from gpu_advisor.documents import savings
from gpu_advisor.documents.advice_groups import AdviceGroup, group_by_node
from gpu_advisor.documents.savings import Savings
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation, View
from gpu_advisor.web.page import checklist
from gpu_advisor.web.page.bidi import external_names, right_to_left_names
from gpu_advisor.web.page.checklist import ChecklistItem, ChecksRow
from gpu_advisor.web.page.gpu_list import GpuList
from gpu_advisor.web.page.gpu_rows import RenderedRows
from gpu_advisor.web.page.headline import Headline, fleet_status, headline
from gpu_advisor.web.page.job_list import JobRow, job_rows
from gpu_advisor.web.page.worth import worth


class FleetModel:
    """Derived data of one view. Each part is computed at most once, or twice if two requests come at the same time."""

    def __init__(self, view: View, settings: Settings) -> None:
        self.view = view
        self.settings = settings

    @cached_property
    def ranked(self) -> Sequence[PublishedRecommendation]:
        return savings.by_urgency(self.view.issued)

    @cached_property
    def groups(self) -> Sequence[AdviceGroup]:
        return group_by_node(self.view)

    @cached_property
    def open(self) -> Sequence[PublishedRecommendation]:
        return [each for each in self.ranked if not each.snoozed]

    @cached_property
    def snoozed(self) -> Sequence[PublishedRecommendation]:
        return [each for each in self.ranked if each.snoozed]

    @cached_property
    def checklist(self) -> Sequence[ChecklistItem]:
        return checklist.items(self.view.evaluation.checks) if self.view.evaluation else []

    @cached_property
    def nodes(self) -> Sequence[ChecksRow]:
        return checklist.nodes(self.view.evaluation.checks) if self.view.evaluation else []

    @cached_property
    def gpus(self) -> GpuList:
        return GpuList(self.view)

    @cached_property
    def gpu_rows(self) -> RenderedRows:
        return RenderedRows(self.gpus)

    @cached_property
    def jobs(self) -> Sequence[JobRow]:
        return job_rows(self.gpus)

    @cached_property
    def total(self) -> Savings:
        return savings.total_savings(self.view, self.open)

    @cached_property
    def headline(self) -> Headline:
        return headline(fleet_status(self.view, self.checklist, worth(self.total)))

    @cached_property
    def rtl_names(self) -> tuple[str, ...]:
        return right_to_left_names(external_names(self.view))


class LatestModel:
    """The model of the view that was asked for last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model: FleetModel | None = None
        self._lock = threading.Lock()

    def of(self, view: View) -> FleetModel:
        model = self._model
        if model is None or model.view is not view:
            with self._lock:
                model = self._model
                if model is None or model.view is not view:
                    model = self._model = FleetModel(view, self._settings)
        return model
