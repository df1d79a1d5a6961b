"""The manager's backends: a running advisor over HTTP, or placement and leases in this process.

Both return the documents of the API.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from gpu_advisor.allocation.errors import (
    AllocationError,
    InsufficientCapacityError,
    InvalidRequestError,
    TokenConflictError,
    UnknownAllocationError,
    UnsatisfiableRequestError,
)
from gpu_advisor.allocation.gpu_request import GpuRequest, parse_request, validate_request, with_gpu_type
from gpu_advisor.allocation.model import Allocation, NodeAllocation

API_PATH = "/api/v1/gpu"
RESPONSE_TIMEOUT_SECONDS = 30.0
MAX_RESPONSE_BYTES = 64 << 20


class ServiceUnavailableError(AllocationError):
    """The service does not respond, or cannot decide now. The request can be retried."""


class LoginRequiredError(AllocationError):
    """The service requires a login, or this one lacks the permission."""


@dataclass(frozen=True, slots=True)
class GrantedLease:
    """An allocation, and its minimum remaining seconds, counted from before the request was sent."""

    allocation: Allocation
    seconds: float


class AllocationBackend(Protocol):
    """Thread-safe. Methods raise subclasses of AllocationError. `lease_seconds`: None for the service's default."""

    def status(self) -> dict[str, Any]:
        """As GET /api/v1/gpu/status."""

    def nodes(self, gpu_type: str, min_memory_gb: float | None) -> list[dict[str, Any]]:
        """The rows of GET /api/v1/gpu/nodes; "" and None match all."""

    def validate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """As POST /api/v1/gpu/validate. Changes nothing."""

    def allocate(self, body: Mapping[str, Any], token: str, lease_seconds: float | None) -> GrantedLease:
        """As POST /api/v1/gpu/allocate. Idempotent by token."""

    def renew(self, id_: str, lease_seconds: float | None, within_seconds: float) -> GrantedLease:
        """Extend the lease from now on. Raises ServiceUnavailableError without an answer within that time."""

    def release(self, id_: str) -> None:
        """End the lease. Raises UnknownAllocationError if it has ended."""

    def monitoring(self) -> dict[str, Any]:
        """As GET /api/v1/gpu/monitoring."""

    def close(self) -> None:
        """Release what the backend itself holds; leases stay."""


class HttpBackend:
    """A running advisor. Needs only `requests`."""

    def __init__(self, address: str, token: str = "", ca_file: str | None = None) -> None:
        self._url = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._ca_file = ca_file

    def status(self) -> dict[str, Any]:
        return dict(self._send_request("GET", "/status"))

    def nodes(self, gpu_type: str, min_memory_gb: float | None) -> list[dict[str, Any]]:
        query = {name: value for name, value in (("gpu_type", gpu_type), ("min_memory_gb", min_memory_gb)) if value}
        return list(self._send_request("GET", "/nodes" + (f"?{urlencode(query)}" if query else ""))["nodes"])

    def validate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._send_request("POST", "/validate", body))

    def allocate(self, body: Mapping[str, Any], token: str, lease_seconds: float | None) -> GrantedLease:
        return _parse_lease(
            self._send_request("POST", "/allocate", {**body, "client_token": token, "lease_seconds": lease_seconds})
        )

    def renew(self, id_: str, lease_seconds: float | None, within_seconds: float) -> GrantedLease:
        path = f"/allocations/{quote(id_, safe='')}/renew"
        return _parse_lease(self._send_request("POST", path, {"lease_seconds": lease_seconds}, within_seconds))

    def release(self, id_: str) -> None:
        self._send_request("DELETE", f"/allocations/{quote(id_, safe='')}")

    def monitoring(self) -> dict[str, Any]:
        return dict(self._send_request("GET", "/monitoring"))

    def close(self) -> None:
        """Nothing to close: each request has its own connection."""

    def _send_request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        within_seconds: float = RESPONSE_TIMEOUT_SECONDS,
    ) -> Any:
        """Send it on its own connection: a renewal must not wait for another thread's response."""
        try:
            import requests
        except ImportError as error:
            raise ServiceUnavailableError("HttpBackend needs `requests`: pip install requests") from error
        from gpu_advisor.sources.prometheus.http_client import (
            BodyTooLargeError,
            DeadlineClient,
            DeadlineExceededError,
            connection_problem,
        )

        url = f"{self._url}{API_PATH}{path}"
        options: dict[str, Any] = {} if body is None else {"json": dict(body)}
        client = DeadlineClient(self._ca_file)
        try:
            response = client.fetch(
                method, url, seconds=min(within_seconds, RESPONSE_TIMEOUT_SECONDS), max_bytes=MAX_RESPONSE_BYTES,
                headers=self._headers, **options,
            )  # fmt: skip
            document = json.loads(response.body) if response.body else None
        except requests.exceptions.SSLError as error:
            raise ServiceUnavailableError(
                f"{self._url}: TLS error ({error}): give the CA's certificate as ca_file"
            ) from error
        except (requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError) as error:
            raise ServiceUnavailableError(
                f"no advisor responds at {self._url} ({connection_problem(error)}): start one with "
                "`gpu-advisor up`, or set another address"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ServiceUnavailableError(
                f"{url} did not return JSON: check that it is an advisor's address"
            ) from error
        finally:
            client.close()
        if response.status in (200, 204):
            return document
        raise error_from_problem(response.status, document if isinstance(document, dict) else {}, url)


def error_from_problem(status: int, problem: Mapping[str, Any], url: str) -> AllocationError:
    """The service's error, from its problem document."""
    detail = str(problem.get("detail") or f"{url} returned {status}")
    reasons = tuple(map(str, problem.get("reasons") or ()))
    field = str(next((each["pointer"] for each in problem.get("errors") or ()), "")).lstrip("/")
    message = detail.removeprefix(f"{field}: ")
    if status in (401, 403):
        return LoginRequiredError(f"{url}: {detail}: use a token that may allocate")
    if status == 422 and reasons:
        return UnsatisfiableRequestError(field, message, reasons)
    if status == 409:
        is_token = detail.startswith("client_token")
        return TokenConflictError(detail) if is_token else InsufficientCapacityError(detail, reasons)
    if status == 404:
        return UnknownAllocationError(detail)
    if status in (429, 500, 502, 503, 504):
        return ServiceUnavailableError(detail)
    return InvalidRequestError(field, message)


def _parse_lease(document: Mapping[str, Any]) -> GrantedLease:
    request = document["request"]
    shares = tuple(
        NodeAllocation(each["node_name"], tuple(each["gpu_indices"]), tuple(each["gpu_uuids"]), each["address"])
        for each in document["nodes"]
    )
    allocation = Allocation(
        id=document["id"],
        client_token=document["client_token"],
        request=GpuRequest(**{field.name: request[field.name] for field in fields(GpuRequest)}),
        shares=shares,
        gpu_type=document["gpu_type"],
        vendor=document["vendor"],
        memory_per_gpu=document["memory_per_gpu"],
        made=_unix_time(document["made"]),
        expires=_unix_time(document["expires"]),
        reasons=tuple(document["reasons"]),
    )
    return GrantedLease(allocation, float(document["expires_in_seconds"]))


def _unix_time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class LocalBackend:
    """Without a service: nodes from a file, leases in a database that only this process opens.

    It does not detect GPUs that are in use without a lease, so the file must list only GPUs that may be allocated.
    """

    def __init__(self, inventory_file: Path, database: Path) -> None:
        """Raises ConfigError for the file, LeaseStoreError for the database."""
        from gpu_advisor.allocation.allocator import Allocator
        from gpu_advisor.allocation.inventory_file import read_inventory
        from gpu_advisor.allocation.lease_manager import LeaseManager
        from gpu_advisor.allocation.lease_store import LeaseStore
        from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB

        inventory = read_inventory(inventory_file, time.time(), DEFAULT_MEMORY_GB)
        self._allocator = Allocator(LeaseManager(LeaseStore(database)), lambda: inventory)

    def status(self) -> dict[str, Any]:
        from gpu_advisor.allocation.documents import serialize

        leases = self._allocator.snapshot().lease_by_gpu
        return dict(serialize.status(self._allocator.inventory(), leases, False, _resource_name))

    def nodes(self, gpu_type: str, min_memory_gb: float | None) -> list[dict[str, Any]]:
        from gpu_advisor.allocation.documents import serialize
        from gpu_advisor.allocation.placement import mismatch_reason

        request = with_gpu_type(GpuRequest(memory_gb=min_memory_gb or None), gpu_type)
        validate_request(request, self._allocator.types())
        leases = self._allocator.snapshot().lease_by_gpu
        rows = serialize.nodes(
            self._allocator.inventory(), leases, _resource_name, lambda kind: not mismatch_reason(request, kind)
        )
        return [dict(row) for row in rows]

    def validate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        from gpu_advisor.allocation.documents import serialize

        request = self._request(body)
        return dict(serialize.validation_document(request, self._allocator.validate(request)))

    def allocate(self, body: Mapping[str, Any], token: str, lease_seconds: float | None) -> GrantedLease:
        return self._granted(self._allocator.allocate(self._request(body), token, lease_seconds))

    def renew(self, id_: str, lease_seconds: float | None, within_seconds: float) -> GrantedLease:
        return self._granted(self._allocator.renew(id_, lease_seconds))

    def release(self, id_: str) -> None:
        self._allocator.release(id_)

    def monitoring(self) -> dict[str, Any]:
        """As the service's, but without recent changes: nothing runs in the background."""
        from gpu_advisor.allocation.documents import serialize

        inventory, snapshot = self._allocator.inventory(), self._allocator.snapshot()
        rows = serialize.nodes(inventory, snapshot.lease_by_gpu, _resource_name)
        return {
            **serialize.inventory_header(inventory, False),
            "utilization": serialize.utilization(inventory),
            "total_gpus": sum(row["total_gpus"] for row in rows),
            "available_gpus": sum(row["available_gpus"] for row in rows),
            "leased_gpus": len(snapshot.lease_by_gpu),
            "allocations": len(snapshot.active),
            "nodes": rows,
        }

    def close(self) -> None:
        self._allocator.close()

    def _request(self, body: Mapping[str, Any]) -> GpuRequest:
        return parse_request(body, self._allocator.types())

    def _granted(self, allocation: Allocation) -> GrantedLease:
        return GrantedLease(allocation, max(0.0, allocation.expires - self._allocator.leases.clock()))


def _resource_name(vendor: str) -> str:
    from gpu_advisor.hardware.gpu_types import RESOURCE_NAMES

    return next(iter(RESOURCE_NAMES.get(vendor, ())), "nvidia.com/gpu")
