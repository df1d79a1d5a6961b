"""Advisors in the situations whose pages are looked at: a demo fleet, a source that fell silent, one that never
answered, a machine without GPUs, 256 GPUs, and one that asks for a password."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import bcrypt
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View

from tests.browser.view_server import serve_view
from tests.own_processes import Program, advisor, up
from tests.polling import wait_until
from tests.preview.demo_history import END, SETTINGS
from tests.preview.demo_prometheus import demo_prometheus
from tests.servers import free_port

HOURS = 4.0
PROMETHEUS = "http://prometheus.monitoring.svc:9090"
FLEET = "120xH100-80GB:training,64xA100-80GB:training,40xH200-141GB:memory-bound,24xT4-16GB:idle-hoarder,8xL4-24GB:lost"


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """Three nodes with every kind of trouble, prices, pools, jobs and an inference server; one recommendation is
    snoozed."""
    with _demo_view(folder) as (view, source), _serve(view, source) as url:
        yield url


@contextmanager
def silent_source(folder: Path) -> Iterator[str]:
    """The same fleet after its Prometheus has stopped."""
    message = f"{PROMETHEUS} refused the connection. Check that it is running and that source.prometheus.url is right."
    status = SourceStatus("prometheus", PROMETHEUS, False, "unreachable", message, END)
    with _demo_view(folder) as (view, source):
        issued = tuple(each.without_commands() for each in view.issued)
        with _serve(replace(view, source=status, issued=issued), source) as url:
            yield url


@contextmanager
def no_source(folder: Path) -> Iterator[str]:
    """A Prometheus that never answered."""
    dead = {"url": f"http://127.0.0.1:{free_port()}", "timeout_seconds": 1, "retries": 0}
    with advisor(folder, _address(), {"source": {"prometheus": dead}}) as program:
        wait_until(lambda: program.get("/recommendations")["source"]["message"], "a failed evaluation", program)
        yield program.url


@contextmanager
def no_gpus(folder: Path) -> Iterator[str]:
    """A machine without GPUs."""
    with up(folder, _address(), _address()) as program:
        _wait_for_evaluation(program)
        yield program.url


@contextmanager
def many_gpus(folder: Path) -> Iterator[str]:
    """256 GPUs."""
    with up(folder, _address(), _address(), FLEET, ready_within_seconds=600) as program:
        wait_until(lambda: program.get("/recommendations")["recommendations"], "recommendations", program)
        yield program.url


@contextmanager
def password(folder: Path) -> Iterator[str]:
    """An advisor that asks for a password, and the visitor has none."""
    dead = {"url": f"http://127.0.0.1:{free_port()}", "timeout_seconds": 1, "retries": 0}
    users = {"ann": bcrypt.hashpw(b"a password", bcrypt.gensalt(4)).decode()}
    with advisor(folder, _address(), {"source": {"prometheus": dead}, "web": {"users": users}}) as program:
        yield program.url


SITUATIONS: Mapping[str, Callable[[Path], AbstractContextManager[str]]] = {
    "demo": demo,
    "silent-source": silent_source,
    "no-source": no_source,
    "no-gpus": no_gpus,
    "256-gpus": many_gpus,
    "password": password,
}


@contextmanager
def _demo_view(folder: Path) -> Iterator[tuple[View, PrometheusSource]]:
    with demo_prometheus(folder, HOURS * 3600, 30, [END]) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url))
        evaluation = evaluate(source, SETTINGS, END)
        published = [
            PublishedRecommendation(each.id(SETTINGS.cluster), END - 900, each) for each in evaluation.recommendations
        ]
        snoozed = replace(published[-1], snoozed=Snooze("batch change ships tomorrow", END - 600, END + 86400))
        status = SourceStatus("prometheus", PROMETHEUS, True, last_success=END, browser_url=PROMETHEUS)
        yield View(SETTINGS.cluster, status, evaluation, (*published[:-1], snoozed), 0.12), source
        source.close()


@contextmanager
def _serve(view: View, source: PrometheusSource) -> Iterator[str]:
    with serve_view(view, SETTINGS, source.range, clock=lambda: END, samples=source.samples) as url:
        yield url


def _address() -> str:
    return f"127.0.0.1:{free_port()}"


def _wait_for_evaluation(program: Program) -> None:
    wait_until(lambda: program.get("/checks")["at"], "an evaluation", program)
