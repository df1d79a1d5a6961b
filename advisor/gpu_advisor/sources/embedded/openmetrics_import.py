"""Import OpenMetrics text with timestamps into the history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.parser import text_string_to_metric_families as text_families

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.embedded.history import History, as_labels


class OpenMetricsError(ValueError):
    """A line that is not a sample with a timestamp. The message names the line."""


def import_openmetrics(history: History, lines: Iterable[str], instance: str, job: str = "gpu-exporter") -> int:
    """Add samples with timestamps as if this target had been scraped then; returns how many were read.

    Existing samples stay unchanged, so importing twice does no harm. Raises OpenMetricsError, HistoryError.
    """
    return history.import_samples(
        history_target_name(job, instance), _samples(lines, {"instance": instance, "job": job})
    )


def history_target_name(job: str, instance: str) -> str:
    """The name of a target in the history."""
    return f"{job} {instance}"


def with_target_labels(labels: dict[str, str], target: dict[str, str]) -> Labels:
    """The labels of a scraped sample: target labels win, and labels they hide become `exported_...`."""
    renamed = {f"exported_{name}" if name in target else name: value for name, value in labels.items()}
    return as_labels({**renamed, **target})


def _samples(lines: Iterable[str], target: dict[str, str]) -> Iterator[tuple[str, Labels, float, float]]:
    """Split each line from the right; the client library's slow parser runs once per series."""
    known: dict[str, tuple[str, Labels]] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            yield _sample(line, known, target)
        except ValueError as error:
            plain, exemplar, _ = line.rpartition(" # {")
            if not exemplar:
                raise _not_a_sample(line, number) from error
            try:
                yield _sample(plain, known, target)
            except ValueError as worse:
                raise _not_a_sample(line, number) from worse


def _sample(
    line: str, known: dict[str, tuple[str, Labels]], target: dict[str, str]
) -> tuple[str, Labels, float, float]:
    series, value, at = line.rsplit(None, 2)
    # Cached only once the parser has accepted it: a label may contain text that looks like a value and a time.
    name, labels = known.get(series) or known.setdefault(series, _series(series, target))
    return name, labels, float(value), float(at)


def _series(text: str, target: dict[str, str]) -> tuple[str, Labels]:
    families = list(text_families(f"{text} 1\n"))
    if len(families) != 1 or len(families[0].samples) != 1:
        raise ValueError(text)
    sample = families[0].samples[0]
    if sample.value != 1 or sample.timestamp is not None:
        raise ValueError(text)
    return sample.name, with_target_labels(dict(sample.labels), target)


def _not_a_sample(line: str, number: int) -> OpenMetricsError:
    return OpenMetricsError(f"line {number} is not a sample with a value and a timestamp: {line.strip()[:200]!r}")
