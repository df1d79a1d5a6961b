"""Pages of inference servers as a history: what a scrape of a simulated server, or of a small page, leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics

from benchmarks.serving.exposition import page
from benchmarks.serving.situation import Run, Situation

#: When the simulated time 0 was (Unix time).
START = 1_795_000_000.0


def scraped(text: str, at: float, target: Mapping[str, str]) -> Iterator[str]:
    """The samples of one page with the labels of its target, as OpenMetrics with times."""
    extra = ",".join(f'{name}="{value}"' for name, value in target.items())
    yield f"up{{{extra}}} 1 {at}"
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            name, brace, labels = series.partition("{")
            yield f"{name}{{{extra}{',' + labels if brace else '}'} {value} {at}"


def simulated_lines(situation: Situation, run: Run, job: str = "vllm", start: float = START) -> Iterator[str]:
    blocks = situation.settings.kv_tokens // 16
    for number, samples in enumerate(run.samples):
        target = {"job": job, "instance": f"10.0.0.{number}:8000"}
        for sample in samples:
            yield from scraped(page(sample, situation.model.name, blocks), start + sample.at, target)


def write_openmetrics(lines: Iterable[str], path: Path) -> Path:
    path.write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")
    return path


def history_of(lines: Iterable[str], folder: Path) -> History:
    """The same in an embedded history."""
    by_target: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        job, instance = (re.search(rf'{name}="([^"]*)"', line) for name in ("job", "instance"))
        assert job
        assert instance
        page_line = re.sub(r'\b(job|instance)="[^"]*",?', "", line).replace(",}", "}")  # which the scrape adds
        by_target.setdefault((job[1], instance[1]), []).append(page_line)
    history = History(folder / "history.db")
    for (job_name, address), found in by_target.items():
        import_openmetrics(history, [*found, "# EOF"], address, job_name)
    return history
