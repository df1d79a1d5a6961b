"""The queries that come first: which targets, GPUs and nodes there are, and how often they are scraped."""

from __future__ import annotations

from collections.abc import Mapping

from gpu_advisor.calibration.profile import PROFILE_MEMORY, PROFILE_THROUGHPUT
from gpu_advisor.promql.expressions import Expression, Select, Vector
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.detection import (
    Roster,
    canonical,
    interval_queries,
    roster_queries,
    scrape_intervals,
    speakers,
)
from gpu_advisor.sources.exporters.mapping import mappings, own_mappings
from gpu_advisor.sources.exporters.speaker import Speaker

#: What is read besides the signals and the mappings' identity series, as it is.
IDENTITY: dict[str, Expression] = {
    "drivers": Select("gpu_exporter_driver_info"),
    "simulated": Select("gpu_exporter_simulated_info"),
    "owners": Select("gpu_owner_info"),
    "targets": Select("up"),
    "reports": Select("training_batch_size"),
    "profile_memory": Select(PROFILE_MEMORY),
    "profile_throughput": Select(PROFILE_THROUGHPUT),
}


#: Scrape intervals are told from windows of the evaluation, and from this one, which a restart leaves behind soonest.
SHORTEST_SECONDS = 60


#: What the keys of identity queries begin with; behind it comes a mapping's name, or a window in seconds.
PRESENT, SEEN, SCRAPES = "present/", "seen/", "scrapes/"


def identity_queries(settings: Settings) -> dict[str, Expression]:
    """What is asked first: who is there, who was there lately, and how often they are scraped."""
    evaluation = settings.evaluation
    windows = sorted({SHORTEST_SECONDS, evaluation.window_seconds, evaluation.idle_window_seconds})
    return {
        **IDENTITY,
        **_prefixed(PRESENT, roster_queries(mappings())),
        **_prefixed(SEEN, roster_queries(mappings(), evaluation.idle_window_seconds)),
        **_prefixed(SCRAPES, interval_queries(windows)),
    }


def inventory(answers: Mapping[str, Vector]) -> Roster:
    return Roster(
        canonical(mappings(), _unprefixed(PRESENT, answers)), canonical(mappings(), _unprefixed(SEEN, answers))
    )


def present_speakers(answers: Mapping[str, Vector], roster: Roster) -> tuple[Speaker, ...]:
    """The exporter families that are here. Where there are none of a scope, those of this project are waited for."""
    intervals = scrape_intervals(_unprefixed(SCRAPES, answers))
    found = speakers(mappings(), roster, answers["targets"], intervals)
    scopes = {speaker.mapping.scope for speaker in found if not speaker.mapping.companion}
    return (*found, *(Speaker(mapping) for mapping in own_mappings() if mapping.scope not in scopes))


def _prefixed(prefix: str, queries: Mapping[str, Expression]) -> dict[str, Expression]:
    return {prefix + name: expression for name, expression in queries.items()}


def _unprefixed(prefix: str, answers: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in answers.items() if name.startswith(prefix)}
