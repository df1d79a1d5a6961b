"""The OpenAPI document against the server it describes: no 500, and no undocumented response."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from gpu_advisor.settings import Settings
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.api.openapi import document
from gpu_advisor.web.api.operations import OPERATIONS
from gpu_advisor.web.server import WebServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.servers import free_port
from tests.unit.advisor.builders import ExporterTarget, FakeClock, FakeSource, GpuSpec, ServiceHarness
from tests.unit.allocation.builders import allocation_service

CHOSEN = Settings.model_validate(
    {
        "pools": [{"name": "chat", "kind": "serving", "match": {"node": "s"}}],
        "cost": {"gpu_price_per_hour": {"NVIDIA H100": 2}},
        "outcomes": {"settle_seconds": 1},
    }
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A real server with advice, abstentions, a snooze and an outcome."""
    idle = [GpuSpec(f"GPU-{n}", 0.0, index=str(n)) for n in range(3)]
    served = [GpuSpec(f"GPU-s{n}", 0.95, node="s") for n in range(2)]
    source = FakeSource([ExporterTarget("a:1", [*idle, *served, GpuSpec("GPU-lost", None, up=False)])], CHOSEN)
    clock = FakeClock(time.time())
    running = ServiceHarness(tmp_path_factory.mktemp("api"), source, clock, CHOSEN).after(0)
    source.targets[0].cards = [*idle[1:], *served]
    running.after(5).after(5)
    gpus = allocation_service(tmp_path_factory.mktemp("gpus"), lambda: running.service.view)
    web = WebServer(running.service, f"127.0.0.1:{free_port()}", gpus)
    web.start()
    yield web
    web.stop()
    gpus.allocator.close()
    running.close()


@pytest.fixture(scope="module")
def api_schema(server: WebServer) -> Any:
    """The OpenAPI document, loaded by schemathesis."""
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


CASES = [(name, "positive") for name in OPERATIONS]
CASES += [(name, "negative") for name, each in OPERATIONS.items() if each.parameters or each.body]


# Not through schemathesis' own pytest plugin: it needs internals that pytest 9 no longer has.
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_no_500_and_every_response_is_documented(server: WebServer, api_schema: Any, name: str, mode: str) -> None:
    operation = OPERATIONS[name]
    cases = api_schema[operation.path][operation.method].as_strategy(generation_mode=GenerationMode(mode))
    existing_id = _allocation_id(server) if "/allocations/" in operation.path else _recommendation_id(server)

    # A schema cannot express relations between values (min <= max, a time in the future), which GPU types exist, or the
    # names of the fleet.
    by_name = {"kind", "pool", "node", "item", "gpu_type"} & {each.name for each in operation.parameters}
    skipped: Any = [positive_data_acceptance] if operation.body or by_name else []

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=cases, real=st.booleans())
    def holds(case: Any, real: bool) -> None:
        if real and "{id}" in operation.path:
            case.path_parameters["id"] = existing_id
        case.call_and_validate(excluded_checks=skipped)

    holds()


def _recommendation_id(server: WebServer) -> str:
    found: str = requests.get(f"{server.url}/recommendations", timeout=60).json()["recommendations"][0]["id"]
    return found


def _allocation_id(server: WebServer) -> str:
    """Of an allocation that takes no GPU from the others."""
    asked = {"memory_gb": 9000, "cpu_fallback": True, "client_token": "openapi"}
    answer = requests.post(f"{server.url}/api/v1/gpu/allocate", json=asked, timeout=60)
    found: str = answer.json()["id"] if answer.ok else "released"
    return found


def test_the_document_has_every_route_but_the_page() -> None:
    """And each operation has a handler: a name in only one of the two fails."""
    app = create_app(ApiContext(lambda: None, lambda: (), lambda _id, _snooze: None))  # type: ignore[arg-type, return-value]
    routes = {
        (rule.rule.replace("<id_>", "{id}"), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.partition("_")[0] not in ("page", "static", "runbook", "runbooks")
    }
    assert routes == {(each.path, each.method) for each in OPERATIONS.values()}
    documented = {
        (path, method.upper()) for path, methods in document(False, False)["paths"].items() for method in methods
    }
    assert documented == routes


def test_component_names_have_no_suffix() -> None:
    components = document(True, True)["components"]["schemas"]
    assert {"Recommendation", "Check", "Evidence", "Scope", "Outcome", "Problem", "Allocation"} <= set(components)
    assert not [name for name in components if name.endswith("Document")]
    text = json.dumps(document(True, True))
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert names <= set(components)


def test_the_server_has_recommendations_and_outcomes(server: WebServer) -> None:
    """So that the test above does not run on empty lists."""
    answer = requests.get(f"{server.url}/recommendations", timeout=60).json()
    assert {each["kind"] for each in answer["recommendations"]} >= {"idle_reclaim"}
    assert requests.get(f"{server.url}/outcomes", timeout=60).json()["total"] >= 1
