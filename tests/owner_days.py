"""Evaluates drawn days of GPUs with owners on the embedded source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.source import EmbeddedSource

from tests.owner_histories import OwnerDay, Verdict, draw_day

AT = 1_795_003_200.0
SETTINGS = Settings.model_validate({"resources": {"gpu": {"min": 0, "max": 8}}})


def judge_days(kind: str, seeds: Iterable[int], folder: Path) -> Iterator[tuple[OwnerDay, Verdict]]:
    """Each day with what the advisor would do at its end."""
    for seed in seeds:
        day = draw_day(kind, seed, AT)
        file = folder / f"{kind}-{seed}.db"
        history = History(file)
        history.import_samples(
            "gpu-exporter",
            (
                (name, tuple(sorted((label, text) for label, text in labels.items() if text)), value, at)
                for name, labels, value, at in day.samples()
            ),
        )
        kinds = {each.kind for each in evaluate(EmbeddedSource(history), SETTINGS, AT).recommendations}
        history.close()
        file.unlink()
        yield day, "reclaim" if "idle_reclaim" in kinds else "report" if "hung_job" in kinds else "leave"
