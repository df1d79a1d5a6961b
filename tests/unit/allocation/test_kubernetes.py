"""The Kubernetes backend against an emulated API server: what it keeps is real, other errors are injected."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.allocation.errors import NoInventoryError
from gpu_advisor.allocation.gpu_request import parse_request
from gpu_advisor.allocation.kubernetes.backend import JobState, KubernetesBackend
from gpu_advisor.allocation.kubernetes.client import connect_cluster
from gpu_advisor.allocation.kubernetes.errors import (
    ApiUnavailableError,
    ClusterError,
    ForbiddenError,
    InvalidJobError,
    JobConflictError,
    NotFoundError,
    NotManagedError,
    QuotaExceededError,
    ResourceExpiredError,
    UnauthorizedError,
)

from tests.servers import free_port
from tests.unit.allocation.kubernetes_emulator import job_template, kubernetes_emulator, node, pod

kmock = pytest.importorskip("kmock", reason="needs Python 3.11: pip install kmock")

JOBS = "/apis/batch/v1/namespaces/default/jobs"
DELETED = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
REQUEST = parse_request("2xA100-80GB")


@pytest.fixture
def server():
    """The emulated server with one node of 8 GPUs, 3 of which are in use, and the backend."""
    with kubernetes_emulator() as (handler, cluster):
        handler["get /api/v1/nodes"] << {"metadata": {}, "items": [node("a", 8)]}
        handler.objects["v1/pods", "default", "p"] = pod("p", "a", 3)
        yield handler, KubernetesBackend(cluster)


def jobs(handler: Any) -> dict[str, Any]:
    return {key[2]: each.raw for key, each in handler.objects.items() if key[0].plural == "jobs" and not each.deleted}


def refusal(status: int, message: str = "refused by the test") -> Any:
    return kmock.KubernetesError(status=status, reason="Reason", message=message)


def test_what_is_there_and_what_a_pod_must_say(server):
    handler, backend = server
    (found,) = backend.nodes()
    assert (found.name, found.gpu_type, found.allocatable, found.free) == ("a", "A100", 8, 5)
    patch = backend.patch(REQUEST, "train")
    assert patch["spec"]["containers"] == [{"name": "train", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]
    assert jobs(handler) == {}  # nothing was made


def test_a_long_list_comes_in_pages(server):
    handler, backend = server
    more, last = pod("q", "a", 1), pod("r", "a", 1)
    handler["get /api/v1/pods"][:1] << {"metadata": {"continue": "more"}, "items": [more]}
    handler["get /api/v1/pods"] << {"metadata": {}, "items": [last]}
    assert backend.nodes()[0].requested == 2
    asked = [request.params for request in handler["get /api/v1/pods"]]
    assert [each.get("continue") for each in asked] == [None, "more"]


def test_the_same_token_is_the_same_job(server):
    handler, backend = server
    first = backend.submit(REQUEST, job_template(), "token")
    again = backend.submit(REQUEST, job_template(), "token")
    assert again == replace(first, created=False)
    assert list(jobs(handler)) == [first.name]
    other = backend.submit(REQUEST, job_template(), "another token")
    assert len(jobs(handler)) == 2
    assert other.name != first.name
    with pytest.raises(JobConflictError, match="new token"):
        backend.submit(replace(REQUEST, gpu_count=4), job_template(), "token")
    # Also when the cluster has changed in between, so that it could not be fitted any more.
    handler.objects["v1/pods", "default", "q"] = pod("q", "a", 5)
    assert backend.submit(REQUEST, job_template(), "token") == again


def test_many_at_once_with_one_token_make_one_job(server):
    """Some read before the first has made it, and get 409 from the server, which is real."""
    handler, backend = server
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: backend.submit(REQUEST, job_template(), "token"), range(16)))
    assert len(jobs(handler)) == 1
    assert len({each.name for each in found}) == 1
    assert sum(each.created for each in found) == 1


def test_only_what_was_submitted_is_deleted(server):
    handler, backend = server
    ours = backend.submit(REQUEST, job_template(), "token")
    assert backend.find(job_template(), "token") == replace(ours, created=False)
    assert backend.release(ours)
    assert not backend.release(ours)
    assert backend.find(job_template(), "token") is None
    assert jobs(handler) == {}
    ours = backend.submit(REQUEST, job_template(), "token")
    with pytest.raises(NotManagedError):
        backend.release(replace(ours, token="somebody else's"))
    with pytest.raises(NotManagedError):
        backend.release(replace(ours, uid="of an earlier Job of this name"))
    handler.objects["batch/v1/jobs", "default", "theirs"] = job_template()
    with pytest.raises(NotManagedError):
        backend.release(replace(ours, name="theirs"))
    assert set(jobs(handler)) == {ours.name, "theirs"}


def test_a_job_of_that_name_that_is_somebody_elses_is_left_alone(server):
    handler, backend = server
    ours = backend.submit(REQUEST, job_template(), "token")
    backend.release(ours)
    handler.objects["batch/v1/jobs", "default", ours.name] = job_template()
    with pytest.raises(NotManagedError):
        backend.submit(REQUEST, job_template(), "token")


def event(kind: str, name: str, **status: Any) -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"name": name}, "status": status}}).encode() + b"\n"


def test_its_state_is_followed_until_it_has_ended(server):
    handler, backend = server
    ours = backend.submit(REQUEST, job_template(), "token")
    failed = event("MODIFIED", ours.name, conditions=[{"type": "Failed", "status": "True", "message": "why"}])
    of_another = event("MODIFIED", "other", conditions=[{"type": "Complete", "status": "True"}])
    handler[f"get {JOBS}"] << (
        event("MODIFIED", ours.name, ready=1), event("MODIFIED", ours.name, ready=1), of_another,
        lambda: asyncio.sleep(0.1), failed[:40], lambda: asyncio.sleep(0.1), failed[40:],
    )  # fmt: skip
    followed = list(backend.follow(ours, 20))
    assert followed[0].phase == "waiting"
    assert followed[1:] == [JobState("running", 1), JobState("failed", 0, "why")]
    backend.release(ours)
    assert list(backend.follow(ours, 5)) == [JobState("gone", 0, "deleted")]


def test_one_that_is_deleted_while_followed(server):
    handler, backend = server
    ours = backend.submit(REQUEST, job_template(), "token")
    handler[f"get {JOBS}"] << (event("DELETED", ours.name),)
    assert [each.phase for each in backend.follow(ours, 20)] == ["waiting", "gone"]


def test_a_job_that_a_queue_holds_back_waits(server):
    _, backend = server
    ours = backend.submit(REQUEST, job_template(suspend=True), "token", queue="team")
    assert "admitted" in backend.state(ours).why
    assert [each.phase for each in backend.follow(ours, 1)] == ["waiting"]


def test_a_watch_that_is_too_old_restarts(server):
    handler, backend = server
    ours = backend.submit(REQUEST, job_template(), "token")
    handler[f"get {JOBS}"][:2] << DELETED
    handler[f"get {JOBS}"] << (event("MODIFIED", ours.name, conditions=[{"type": "Complete", "status": "True"}]),)
    assert [each.phase for each in backend.follow(ours, 20)] == ["waiting", "succeeded"]


def test_a_watch_that_is_always_too_old_is_an_error(server):
    handler, backend = server
    ours = backend.submit(REQUEST, job_template(), "token")
    handler[f"get {JOBS}"] << DELETED
    with pytest.raises(ResourceExpiredError, match="too old"):
        list(backend.follow(ours, 20))


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (401, "Unauthorized", UnauthorizedError, "renew the login"),
        (403, 'jobs.batch is forbidden: User "x" cannot create resource', ForbiddenError, "rbac.yaml"),
        (403, 'jobs.batch "t" is forbidden: exceeded quota: gpus, requested: 2', QuotaExceededError, "request less"),
        (404, 'namespaces "default" not found', NotFoundError, "namespace"),
        (422, 'Job.batch "t" is invalid: spec.template', InvalidJobError, "correct the Job"),
        (429, "too many requests", ApiUnavailableError, "try again later"),
        (500, "etcd is away", ApiUnavailableError, "try again"),
        (503, "starting", ApiUnavailableError, "try again"),
    ],
)
def test_refusals_are_typed_and_say_how_to_fix_it(server, status, message, kind, words):
    handler, backend = server
    handler[f"post {JOBS}"] << refusal(status, message)
    with pytest.raises(kind, match=words) as caught:
        backend.submit(REQUEST, job_template(), "token")
    assert type(caught.value) is kind
    assert message.rstrip(".")[:20] in str(caught.value)


def test_no_right_to_list_nodes_is_reported_as_such(server):
    handler, backend = server
    handler["get /api/v1/pods"] << refusal(403, "pods is forbidden")
    with pytest.raises(ForbiddenError, match="listing pods"):
        backend.nodes()


def test_an_answer_that_does_not_come_is_an_error_in_time(server):
    handler, backend = server
    handler[f"get {JOBS}/train"] << (lambda: asyncio.sleep(30))
    hasty = replace(backend, cluster=replace(backend.cluster, timeout_seconds=0.3))
    ours = replace(backend.submit(REQUEST, job_template(), "token"), name="train")
    with pytest.raises(ApiUnavailableError, match="does not respond"):
        hasty.state(ours)


def test_what_is_no_api_server_is_reported_as_such(server):
    handler, backend = server
    handler["get /api/v1/pods"] << b"<html>hello"
    with pytest.raises(ApiUnavailableError, match="not a JSON document"):
        backend.nodes()


def test_a_cluster_without_gpus(server):
    _, backend = server
    with pytest.raises(NoInventoryError):
        replace(backend, names={"nvidia": ("example.com/none",)}).plan(REQUEST)


def test_nobody_to_talk_to(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UnauthorizedError, match="KUBECONFIG"):
        connect_cluster()
    (tmp_path / "none").write_text(
        f"""{{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{{"name": "c", "context":
        {{"cluster": "k", "user": "u"}}}}], "users": [{{"name": "u", "user": {{}}}}], "clusters": [{{"name": "k",
        "cluster": {{"server": "http://127.0.0.1:{free_port()}"}}}}]}}"""
    )
    with pytest.raises(ClusterError, match="does not respond"):
        KubernetesBackend.connect().nodes()
