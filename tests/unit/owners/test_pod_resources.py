"""Responses of the pod-resources API: parsed, cached, expired."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from gpu_exporter.owners import grpc, pod_resources
from gpu_exporter.owners.grpc import GrpcError
from gpu_exporter.owners.pod_resources import DeviceAllocation, PodResourcesClient, parse_allocations
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.owners.fake_kubelet import answer, kubelet, listing, text

PODS: dict[str, dict[str, tuple[str, ...]]] = {
    "ml/train-0": {"main": ("GPU-a", "GPU-b"), "sidecar": ()},
    "web/llm-1": {"server": ("GPU-c::2",)},
}
EXPECTED = frozenset(
    {
        DeviceAllocation("ml", "train-0", "main", "nvidia.com/gpu", "GPU-a"),
        DeviceAllocation("ml", "train-0", "main", "nvidia.com/gpu", "GPU-b"),
        DeviceAllocation("web", "llm-1", "server", "nvidia.com/gpu", "GPU-c::2"),
    }
)


def test_devices_of_containers() -> None:
    assert parse_allocations(listing(PODS)) == EXPECTED
    assert parse_allocations(b"") == frozenset()


def test_devices_of_claims() -> None:
    claim = text(1, text(1, "k8s.gpu.nvidia.com/device=GPU-d")) + text(2, "gpu.nvidia.com") + text(4, "gpu-0")
    container = text(1, "main") + text(5, text(2, "claim") + text(3, "ml") + text(4, claim))
    message = text(1, text(1, "train-0") + text(2, "ml") + text(3, container))
    assert parse_allocations(message) == {
        DeviceAllocation("ml", "train-0", "main", "k8s.gpu.nvidia.com/device", "GPU-d")
    }


@given(st.binary())
def test_any_bytes_are_parsed_or_rejected(message: bytes) -> None:
    with suppress(ValueError):
        parse_allocations(message)


@given(st.integers(1, len(listing(PODS)) - 1))
def test_truncated_message_is_rejected_or_ends_between_pods(length: int) -> None:
    try:
        found = parse_allocations(listing(PODS)[:length])
    except ValueError:
        return
    assert found <= EXPECTED


class FakeClock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_response_becomes_stale_and_expires(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "s"
    pods = PodResourcesClient(path, clock)
    assert pods.current().state == "absent"
    with kubelet(path, answer(listing(PODS))):
        assert pods.refresh() is None
    assert (pods.current().state, pods.current().allocations) == ("ok", EXPECTED)

    clock.now += pod_resources.MAX_STALE_SECONDS
    assert pods.refresh() == pod_resources.ABSENT_RETRY_SECONDS  # the kubelet restarts: no socket, no failure
    assert (pods.current().state, pods.current().allocations) == ("stale", EXPECTED)
    with kubelet(path, b"rubbish" * 10), pytest.raises(GrpcError):
        pods.refresh()
    assert (pods.current().state, pods.current().allocations) == ("stale", EXPECTED)

    clock.now += 1
    assert (pods.current().state, pods.current().allocations) == ("failed", None)
    with kubelet(path, answer(b"")):
        pods.refresh()
    assert (pods.current().state, pods.current().allocations) == ("ok", frozenset())


def test_response_expires_without_refresh(tmp_path: Path) -> None:
    """The refreshing thread may hang or have died."""
    clock, path = FakeClock(), tmp_path / "s"
    pods = PodResourcesClient(path, clock)
    with kubelet(path, answer(listing(PODS))):
        pods.refresh()
    clock.now += pod_resources.MAX_STALE_SECONDS + 1
    assert (pods.current().state, pods.current().allocations) == ("failed", None)


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(grpc, "unary_call", refuse)
    pods = PodResourcesClient(tmp_path / "s")
    with pytest.raises(PermissionError):
        pods.refresh()
    assert pods.current().state == "no_permission"


def test_invalid_response(tmp_path: Path) -> None:
    pods = PodResourcesClient(tmp_path / "s")
    with kubelet(tmp_path / "s", answer(b"\x0a\xff")), pytest.raises(ValueError):
        pods.refresh()
    assert pods.current().state == "failed"
