"""The API of GPU allocation: answers, errors with the field and how to fix it, and authentication."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import SourceStatus, View
from gpu_advisor.web.api.allocation_operations import GPU_OPERATIONS
from gpu_advisor.web.api.app import MAX_BODY_BYTES, ApiContext, create_app
from gpu_advisor.web.api.authentication import Authenticator

from tests.unit.advisor.builders import facts
from tests.unit.allocation.builders import allocation_service

API = "/api/v1/gpu"
KNOWN = View("c", SourceStatus("fake", "memory", True), decide(facts([]), Settings()))
NOTHING = View("c", SourceStatus("fake", "memory", False, "not_yet", "wait"))


def make_client(folder: Path, view: View = KNOWN, access: Authenticator | None = None) -> Iterator[Flask]:
    gpus = allocation_service(folder, lambda: view)
    yield create_app(
        ApiContext(
            lambda: view, lambda: (), lambda _id, _snooze: None, access=access or Authenticator({}, ""), allocation=gpus
        )
    )
    gpus.allocator.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    for app in make_client(tmp_path):
        yield app.test_client()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """One for all tests that lease nothing."""
    for app in make_client(tmp_path_factory.mktemp("untouched")):
        yield app.test_client()


def post(client: FlaskClient, path: str, body: Any) -> Any:
    return client.post(f"{API}/{path}", json=body)


def test_status_is_as_its_users_know_it(client: FlaskClient) -> None:
    post(client, "allocate", {"gpu_count": 8, "gpu_type": "A100"})
    reported = client.get(f"{API}/status").get_json()
    assert reported.keys() >= {"utilization", "available_nodes", "total_nodes", "timestamp"}
    assert reported["utilization"] == {"gpu_utilization": None, "gpu_memory_usage": None}, "not known, and not zero"
    assert reported["total_nodes"] == 3
    row = {"node_name": "small", "gpu_type": "T4", "available_gpus": 4, "memory_per_gpu": 16, "utilization": None}
    assert row in reported["available_nodes"]
    assert "big" not in [each["node_name"] for each in reported["available_nodes"]]


@pytest.mark.parametrize(
    ("query", "nodes"),
    [
        ("", ["big", "second", "small", "small"]),
        ("?gpu_type=A100", ["big", "second"]),
        ("?gpu_type=a100-sxm4-80gb", ["big", "second"]),
        ("?min_memory_gb=17", ["big", "second"]),
        ("?gpu_type=V100&min_memory_gb=16", ["small"]),
        ("?gpu_type=amd.com/gpu", []),
        ("?gpu_type=nvidia.com/gpu&min_memory_gb=0", ["big", "second", "small", "small"]),
    ],
)
def test_nodes(untouched: FlaskClient, query: str, nodes: list[str]) -> None:
    assert [each["node_name"] for each in untouched.get(f"{API}/nodes{query}").get_json()["nodes"]] == nodes


@pytest.mark.parametrize("query", ["gpu_type=V1000", "min_memory_gb=-1", "min_memory_gb=nan", "min_memory=1"])
def test_a_filter_that_makes_no_sense(untouched: FlaskClient, query: str) -> None:
    refused = untouched.get(f"{API}/nodes?{query}")
    assert (refused.status_code, refused.content_type) == (400, "application/problem+json")


BAD = {
    "no GPUs": ({"gpu_count": 0}, 422, "/gpu_count"),
    "less than none": ({"gpu_count": -1}, 422, "/gpu_count"),
    "a billion": ({"gpu_count": 10**9}, 422, "/gpu_count"),
    "more than any node has": ({"gpu_count": 9}, 422, "/gpu_count"),
    "more than there are": ({"gpu_count": 23, "distributed_training": True}, 422, "/gpu_count"),
    "half a GPU": ({"gpu_count": 0.5}, 422, "/gpu_count"),
    "unknown type": ({"gpu_type": "V1000"}, 422, "/gpu_type"),
    "a type that is not here": ({"gpu_type": "H200"}, 422, "/gpu_type"),
    "nobody's resource": ({"gpu_type": "example.com/gpu"}, 422, "/gpu_type"),
    "more memory than any card": ({"memory_gb": 1000}, 422, "/memory_gb"),
    "more memory than these": ({"gpu_type": "T4", "memory_gb": 17}, 422, "/memory_gb"),
    "fraction": ({"gpu_memory_fraction": 1.5}, 422, "/gpu_memory_fraction"),
    "unknown field": ({"gpus": 2}, 422, "/gpus"),
    "text for a number": ({"gpu_count": "2"}, 422, "/gpu_count"),
    "no object": ([], 422, ""),
}


@pytest.mark.parametrize("path", ["allocate", "setup-pytorch", "setup-tensorflow"])
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_with_its_field(untouched: FlaskClient, name: str, path: str) -> None:
    body, status, pointer = BAD[name]
    refused = post(untouched, path, body)
    reported = refused.get_json()
    assert (refused.status_code, refused.content_type) == (status, "application/problem+json"), reported
    assert [each["pointer"] for each in reported["errors"]] == [pointer]
    assert untouched.get(f"{API}/allocations").get_json()["total"] == 0


def test_lengths_of_leases(untouched: FlaskClient) -> None:
    for seconds in (0, -5, 10**9):
        refused = post(untouched, "allocate", {"lease_seconds": seconds})
        assert (refused.status_code, refused.get_json()["errors"][0]["pointer"]) == (422, "/lease_seconds")


@pytest.mark.parametrize("path", [each.path for each in GPU_OPERATIONS.values() if each.body])
def test_bodies_that_are_none(untouched: FlaskClient, path: str) -> None:
    path = path.replace("{id}", "x")
    wrong: dict[int, Any] = {
        415: {"data": "{}", "content_type": "text/plain"},
        400: {"data": "{not JSON", "content_type": "application/json"},
        413: {"data": json.dumps({"gpu_type": "x" * MAX_BODY_BYTES}), "content_type": "application/json"},
    }
    for status, arguments in wrong.items():
        refused = untouched.post(path, **arguments)
        assert (refused.status_code, refused.content_type) == (status, "application/problem+json")


def test_validate_reports_every_problem(client: FlaskClient) -> None:
    could = post(client, "validate", {"gpu_count": 2, "gpu_type": "V100"}).get_json()
    assert (could["valid"], could["available_now"], could["nodes"][0]["node_name"]) == (True, True, "small")
    post(client, "allocate", {"gpu_type": "V100"})
    later = post(client, "validate", {"gpu_count": 2, "gpu_type": "V100"}).get_json()
    assert (later["valid"], later["available_now"], later["nodes"]) == (True, False, [])
    assert "small: 1 of 6 are free and match, 4 T4, 1 leased" in later["reasons"]
    never = post(client, "validate", {"gpu_count": 3, "gpu_type": "V100"}).get_json()
    assert (never["valid"], never["available_now"], never["field"]) == (False, False, "gpu_count")
    assert post(client, "validate", {"gpu_count": 0}).status_code == 422


def test_from_allocate_to_release(client: FlaskClient) -> None:
    asked = {"gpu_count": 16, "gpu_type": "A100", "distributed_training": True, "client_token": "t"}
    made = post(client, "allocate", asked).get_json()
    assert [node["node_name"] for node in made["nodes"]] == ["big", "second"]
    assert made["resource_name"] == "nvidia.com/gpu"
    assert post(client, "allocate", asked).get_json()["id"] == made["id"]
    assert post(client, "allocate", {**asked, "gpu_count": 8}).status_code == 409
    busy = post(client, "allocate", {"gpu_type": "A100"})
    assert (busy.status_code, busy.get_json()["reasons"][0]) == (409, "big: 0 of 8 are free and match, 8 leased")
    renewed = post(client, f"allocations/{made['id']}/renew", {"lease_seconds": 9999}).get_json()
    assert renewed["expires"] > made["expires"]
    for framework in ("pytorch", "tensorflow"):
        reported = post(client, f"setup-{framework}", {"allocation_id": made["id"], "memory_strategy": "aggressive"})
        assert [node["node_name"] for node in reported.get_json()["nodes"]] == ["big", "second"]
    assert client.delete(f"{API}/allocations/{made['id']}").status_code == 204
    assert client.delete(f"{API}/allocations/{made['id']}").status_code == 204
    assert client.get(f"{API}/allocations/{made['id']}").status_code == 404
    assert client.delete(f"{API}/allocations/none").status_code == 404
    assert post(client, "allocate", {"gpu_type": "A100"}).status_code == 200


def test_a_setup_leases_nothing(client: FlaskClient) -> None:
    reported = post(client, "setup-pytorch", {"gpu_count": 2, "gpu_type": "V100"})
    assert reported.get_json()["world_size"] == 2
    assert client.get(f"{API}/allocations").get_json()["total"] == 0


def test_health_and_monitoring(client: FlaskClient) -> None:
    made = post(client, "allocate", {"gpu_count": 2, "gpu_type": "T4"}).get_json()
    assert client.get(f"{API}/health").get_json()["status"] == "healthy"
    reported = client.get(f"{API}/monitoring").get_json()
    assert (reported["total_gpus"], reported["available_gpus"], reported["leased_gpus"], reported["allocations"]) == (
        22,
        20,
        2,
        1,
    )
    states = [gpu for row in reported["nodes"] for gpu in row["gpus"] if gpu["allocation_id"] == made["id"]]
    assert [gpu["why_not"] for gpu in states] == [f"leased to {made['id']}"] * 2


@pytest.mark.parametrize("name", GPU_OPERATIONS)
def test_503_while_nothing_is_known(tmp_path: Path, name: str) -> None:
    """Where the machines matter; leases that are there can still be seen, renewed and released."""
    each = GPU_OPERATIONS[name]
    for app in make_client(tmp_path, NOTHING):
        body: Any = {"json": {}} if each.body else {}
        answer = app.test_client().open(each.path.replace("{id}", "x"), method=each.method, **body)
        at_rest = {
            "gpu_health": 200,
            "gpu_allocations": 200,
            "gpu_allocation": 404,
            "gpu_renew": 404,
            "gpu_release": 404,
        }
        assert answer.status_code == at_rest.get(name, 503)
        if name == "gpu_health":
            assert answer.get_json()["status"] == "degraded"


@pytest.mark.parametrize("name", GPU_OPERATIONS)
def test_nothing_without_a_login_when_one_is_asked_for(tmp_path: Path, name: str) -> None:
    each = GPU_OPERATIONS[name]
    for app in make_client(tmp_path, access=Authenticator({}, "t0ken")):
        client = app.test_client()
        body: Any = {"json": {}} if each.body else {}
        path = each.path.replace("{id}", "x")
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert client.open(path, method=each.method, headers=headers, **body).status_code == 401
        right = {"Authorization": "Bearer t0ken"}
        assert client.get(f"{API}/allocations", headers=right).get_json()["total"] == 0
        assert client.open(path, method=each.method, headers=right, **body).status_code != 401
