"""A real Prometheus with the demo fleet's history, including recorded series and advisor metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from benchmarks.serving.draw import CLASSES
from benchmarks.serving.situation import WARM_UP_SECONDS, WINDOW_SECONDS, run
from tests.own_processes import exporter
from tests.preview.demo_history import (
    END,
    NODES,
    SETTINGS,
    add_timestamps,
    advisor_samples,
    evaluate_rules,
    extrapolate_back,
    scraped_samples,
)
from tests.servers import Prometheus, create_blocks, free_port, prometheus
from tests.serving_pages import scraped, simulated_lines

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
SERVING_RULES = ROOT / "prometheus" / "rules" / "serving-recording.yml"
READINGS_APART_SECONDS = 2.0
TRITON = {"job": "triton", "instance": "10.0.1.1:8002"}


@contextmanager
def demo_prometheus(
    folder: Path, length_seconds: float, step_seconds: float, evaluations: Sequence[float], pages: int = 1
) -> Iterator[Prometheus]:
    """The fleet's last `length_seconds`, scraped every `step_seconds`.

    The advisor evaluates at the times `evaluations`; after each, its metrics are scraped `pages` times, a minute apart.
    """
    blocks = folder / "blocks"
    _import(scraped_samples(length_seconds, step_seconds), folder / "scraped.txt", blocks)
    begin = END - length_seconds
    times = [END - step_seconds * i for i in range(int(length_seconds // step_seconds))][::-1]
    with prometheus(folder, blocks=blocks, rule_files=RULES) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url))
        found = [*advisor_samples(source, SETTINGS, evaluations, pages), *_stack_samples(folder, server, times)]
        for path in RULES:
            found += evaluate_rules(server.url, path.read_text(), begin, END)
        source.close()
    _import([*found, *_serving_samples()], folder / "made.txt", blocks)
    with prometheus(folder, blocks=blocks) as server:
        recorded = [*evaluate_rules(server.url, SERVING_RULES.read_text(), END - WINDOW_SECONDS, END)]
    _import(recorded, folder / "recorded.txt", blocks)
    with prometheus(folder, blocks=blocks) as server:
        yield server


def _serving_samples() -> Iterator[str]:
    """A simulated inference server at its batch limit and a server of embeddings, in the last minutes."""
    situation = CLASSES["batch_limit_bound"](7)
    start = END - WARM_UP_SECONDS - WINDOW_SECONDS
    yield from (f"{line}\n" for line in simulated_lines(situation, run(situation), start=start))
    seconds = range(0, int(WARM_UP_SECONDS + WINDOW_SECONDS) + 1, 15)
    yield from (f"{line}\n" for at in seconds for line in scraped(_triton(at), start + at, TRITON))


def _triton(seconds: float) -> str:
    """Sixteen executions of four requests each second, and two requests that wait."""
    model = '{model="embeddings",version="1"}'
    counters = {"request_success": 64, "count": 64, "exec_count": 16, "queue_duration_us": 2e6}
    lines = [f"nv_inference_{name}{model} {rate * seconds}" for name, rate in counters.items()]
    return "\n".join([*lines, f"nv_inference_pending_request_count{model} 2"])


def _import(lines: Iterable[str], path: Path, blocks: Path) -> None:
    with path.open("w") as file:
        file.writelines(lines)
        file.write("# EOF\n")
    create_blocks(path, blocks)


def _stack_samples(folder: Path, server: Prometheus, times: Sequence[float]) -> Iterator[str]:
    """Current metrics of real components of the stack, extrapolated to all these times."""
    address = f"127.0.0.1:{free_port()}"
    with exporter(folder, address, "--simulate", "1xT4-16GB:idle", "--no-collector.host") as program:
        first = program.text("/metrics"), _page(server)
        time.sleep(READINGS_APART_SECONDS)
        second = program.text("/metrics"), _page(server)
    targets = [({"job": "prometheus", "instance": "127.0.0.1:9090"}, 1, "prometheus_")]
    targets += [(dict(node.target), 0, "gpu_exporter_") for node in NODES]
    for at in times:
        for target, which, prefix in targets:
            page = extrapolate_back(first[which], second[which], READINGS_APART_SECONDS, END - at)
            own = [line for line in page if line.startswith(prefix)]
            yield from add_timestamps(own, target, at) if which else _add_target_labels(own, target, at)


def _add_target_labels(lines: Sequence[str], target: dict[str, str], at: float) -> Iterator[str]:
    """Without `up` and scrape metrics, which this target's other samples have."""
    return (line for line in add_timestamps(lines, target, at) if not line.startswith(("up{", "scrape_")))


def _page(server: Prometheus) -> str:
    import requests

    answer = requests.get(f"{server.url}/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    # Local paths do not belong into the demo.
    return answer.text.replace(f"{ROOT}/prometheus/rules", "/etc/prometheus/rules")
