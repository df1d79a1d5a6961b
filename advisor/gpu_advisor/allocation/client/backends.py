"""The two ends that the manager can talk to: a service over HTTP, or this process' own placement and leases.

Both give the documents of the API, so that a job need not know which one it is.
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
    """The service does not answer, or cannot decide now. The same may be asked again."""


class LoginRequiredError(AllocationError):
    """The service asks for a login, or this one may not."""


@dataclass(frozen=True, slots=True)
class GrantedLease:
    """An allocation, and how many seconds from the moment before it was asked for it holds at least."""

    allocation: Allocation
    seconds: float


class AllocationBackend(Protocol):
    """Safe to use from several threads. Every method raises AllocationError, of the kind that fits."""

    def status(self) -> dict[str, Any]: ...
    def nodes(self, gpu_type: str, min_memory_gb: float | None) -> list[dict[str, Any]]: ...
    def validate(self, body: Mapping[str, Any]) -> dict[str, Any]: ...
    def allocate(self, body: Mapping[str, Any], token: str, lease_seconds: float | None) -> GrantedLease: ...
    def renew(self, id_: str, lease_seconds: float | None, within_seconds: float) -> GrantedLease: ...
    def release(self, id_: str) -> None: ...
    def monitoring(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


class HttpBackend:
    """The service at an address. Needs no more than `requests`."""

    def __init__(self, address: str, token: str = "", ca_file: str | None = None) -> None:
        self._url = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._verify = ca_file or True

    def status(self) -> dict[str, Any]:
        return dict(self._send_request("GET", "/status"))

    def nodes(self, gpu_type: str, min_memory_gb: float | None) -> list[dict[str, Any]]:
        asked = {name: value for name, value in (("gpu_type", gpu_type), ("min_memory_gb", min_memory_gb)) if value}
        return list(self._send_request("GET", "/nodes" + (f"?{urlencode(asked)}" if asked else ""))["nodes"])

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
        """Nothing stays open."""

    def _send_request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        within_seconds: float = RESPONSE_TIMEOUT_SECONDS,
    ) -> Any:
        """By a connection of its own: a renewal must not wait until another thread has its answer."""
        try:
            import requests
        except ImportError as error:
            raise ServiceUnavailableError("asking a service needs `requests`: pip install requests") from error
        from gpu_advisor.sources.prometheus.http_client import BodyTooLargeError, DeadlineClient, DeadlineExceededError

        url = f"{self._url}{API_PATH}{path}"
        given: dict[str, Any] = {} if body is None else {"json": dict(body)}
        client = DeadlineClient()
        client.session.verify = self._verify
        try:
            answer = client.fetch(
                method, url, seconds=min(within_seconds, RESPONSE_TIMEOUT_SECONDS), max_bytes=MAX_RESPONSE_BYTES, headers=self._headers,
                **given,
            )  # fmt: skip
            found = json.loads(answer.body) if answer.body else None
        except (requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError) as error:
            raise ServiceUnavailableError(
                f"no advisor answers at {self._url} ({type(error).__name__}: {error}): start one with "
                "`gpu-advisor up`, or give the address of another"
            ) from error
        except ValueError as error:
            raise ServiceUnavailableError(
                f"{url} answers, but not as an advisor does: is the address right?"
            ) from error
        finally:
            client.close()
        if answer.status in (200, 204):
            return found
        raise error_from_problem(answer.status, found if isinstance(found, dict) else {}, url)


def error_from_problem(status: int, problem: Mapping[str, Any], url: str) -> AllocationError:
    """A problem document as the error that it was at the other end."""
    words = str(problem.get("detail") or f"{url} answers {status}")
    reasons = tuple(map(str, problem.get("reasons") or ()))
    field = str(next((each["pointer"] for each in problem.get("errors") or ()), "")).lstrip("/")
    message = words.removeprefix(f"{field}: ")
    if status in (401, 403):
        return LoginRequiredError(f"{url}: {words}: give a token that may allocate")
    if status == 422 and reasons:
        return UnsatisfiableRequestError(field, message, reasons)
    if status == 409:
        return (
            TokenConflictError(words) if words.startswith("client_token") else InsufficientCapacityError(words, reasons)
        )
    if status == 404:
        return UnknownAllocationError(words)
    if status in (429, 500, 502, 503, 504):
        return ServiceUnavailableError(words)
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
    """No service: machines from a file, leases in a database that this process alone has open.

    Who uses the GPUs without a lease is not known here, so the file must list only what may be given out.
    """

    def __init__(self, inventory_file: Path, database: Path) -> None:
        """Raises ConfigError for the file, LeaseStoreError for the database."""
        from gpu_advisor.allocation import inventory_file as listed
        from gpu_advisor.allocation.allocator import Allocator
        from gpu_advisor.allocation.lease_manager import LeaseManager
        from gpu_advisor.allocation.lease_store import LeaseStore
        from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB

        inventory = listed.read_inventory(inventory_file, time.time(), DEFAULT_MEMORY_GB)
        self._allocator = Allocator(LeaseManager(LeaseStore(database)), lambda: inventory)

    def status(self) -> dict[str, Any]:
        from gpu_advisor.allocation.documents import serialize

        held = self._allocator.snapshot().held
        return dict(serialize.status(self._allocator.inventory(), held, False, _resource_name))

    def nodes(self, gpu_type: str, min_memory_gb: float | None) -> list[dict[str, Any]]:
        from gpu_advisor.allocation.documents import serialize
        from gpu_advisor.allocation.placement import mismatch_reason

        wanted = with_gpu_type(GpuRequest(memory_gb=min_memory_gb or None), gpu_type)
        validate_request(wanted, self._allocator.types())
        held = self._allocator.snapshot().held
        found = serialize.nodes(
            self._allocator.inventory(), held, _resource_name, lambda gpu: not mismatch_reason(wanted, gpu)
        )
        return [dict(each) for each in found]

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
        """As the service's, without what changed lately: nobody looks while nobody asks."""
        from gpu_advisor.allocation.documents import serialize

        inventory, snapshot = self._allocator.inventory(), self._allocator.snapshot()
        rows = serialize.nodes(inventory, snapshot.held, _resource_name)
        return {
            **serialize.inventory_header(inventory, False),
            "utilization": serialize.utilization(inventory),
            "total_gpus": sum(row["total_gpus"] for row in rows),
            "available_gpus": sum(row["available_gpus"] for row in rows),
            "leased_gpus": len(snapshot.held),
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
