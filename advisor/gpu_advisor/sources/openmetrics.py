"""A past in OpenMetrics text, with timestamps, into the history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from gpu_advisor.expressions import Labels
from gpu_advisor.sources.history import History, as_labels


class OpenMetricsError(ValueError):
    """A line that is not a sample with a timestamp. The message names the line."""


def import_openmetrics(history: History, lines: Iterable[str], instance: str, job: str = "gpu-exporter") -> int:
    """Add samples with timestamps as if this target had been scraped then; returns how many were read.

    What the history has already stays as it is, so importing twice does no harm. Raises OpenMetricsError, HistoryError.
    """
    return history.import_samples(target_name(job, instance), _samples(lines, {"instance": instance, "job": job}))


def target_name(job: str, instance: str) -> str:
    """By what name the history knows a target."""
    return f"{job} {instance}"


def with_target_labels(labels: dict[str, str], target: dict[str, str]) -> Labels:
    """The labels of a scraped sample: the target's win, and what they hide is kept as `exported_...`."""
    renamed = {f"exported_{name}" if name in target else name: value for name, value in labels.items()}
    return as_labels({**renamed, **target})


def _samples(lines: Iterable[str], target: dict[str, str]) -> Iterator[tuple[str, Labels, float, float]]:
    """Each line split from the right; the client's slow parser sees a series once, and lines that do not split so."""
    known: dict[str, tuple[str, Labels]] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            series, value, at = line.rsplit(None, 2)
            # Only a series that the parser has seen whole: a label may hold text that looks like a value and a time.
            name, labels = known.get(series) or known.setdefault(series, _series(series, target))
            sample = (name, labels, float(value), float(at))
        except ValueError:
            sample = _odd_sample(line, number, target)
        yield sample


def _series(text: str, target: dict[str, str]) -> tuple[str, Labels]:
    families = list(text_families(f"{text} 1\n"))
    if len(families) != 1 or len(families[0].samples) != 1 or families[0].samples[0].value != 1:
        raise ValueError(text)
    sample = families[0].samples[0]
    return sample.name, with_target_labels(dict(sample.labels), target)


def _odd_sample(line: str, number: int, target: dict[str, str]) -> tuple[str, Labels, float, float]:
    """A line with an exemplar, or one that is wrong."""
    try:
        families = openmetrics_families(f"{line.rstrip()}\n# EOF\n")  # type: ignore[no-untyped-call]
        samples = [sample for family in families for sample in family.samples]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise OpenMetricsError(f"line {number} is not OpenMetrics: {line.strip()[:200]!r} ({error})") from error
    if len(samples) != 1 or samples[0].timestamp is None:
        raise OpenMetricsError(f"line {number} is not a sample with a timestamp: {line.strip()[:200]!r}")
    sample = samples[0]
    return sample.name, with_target_labels(dict(sample.labels), target), float(sample.value), float(sample.timestamp)
