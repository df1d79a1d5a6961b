"""Handlers of the operations under /api/v1/gpu/."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response

from gpu_advisor.allocation import errors
from gpu_advisor.allocation.allocation_service import AllocationService
from gpu_advisor.allocation.documents import serialize
from gpu_advisor.allocation.frameworks import SetupOptions, pytorch_settings, tensorflow_settings
from gpu_advisor.allocation.gpu_request import GpuRequest, parse_request, validate_request, with_gpu_type
from gpu_advisor.allocation.memory_strategy import MemoryStrategy, ModelMemory
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.allocation.placement import mismatch_reason
from gpu_advisor.documents import schema
from gpu_advisor.web.api.allocation_operations import (
    GPU_OPERATIONS,
    AllocateRequestBody,
    GpuRequestBody,
    RenewRequestBody,
    SetupRequestBody,
)
from gpu_advisor.web.api.base import JSON
from gpu_advisor.web.api.json_body import dump_json, parse_body
from gpu_advisor.web.api.problem_details import ProblemError, json_pointer, problem_response
from gpu_advisor.web.api.query_parameters import query_of_request

ERROR_STATUSES: tuple[tuple[type[errors.AllocationError], HTTPStatus], ...] = (
    (errors.InvalidRequestError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.UnsatisfiableRequestError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.InsufficientCapacityError, HTTPStatus.CONFLICT),
    (errors.TokenConflictError, HTTPStatus.CONFLICT),
    (errors.UnknownAllocationError, HTTPStatus.NOT_FOUND),
    (errors.AllocationError, HTTPStatus.SERVICE_UNAVAILABLE),  # no inventory, or the lease store cannot be written
)


def register(app: Flask) -> None:
    """Answer allocation errors with problem documents."""

    def allocation_error(error: errors.AllocationError) -> Response:
        status = next(status for kind, status in ERROR_STATUSES if isinstance(error, kind))
        field = getattr(error, "field", "")
        wrong: list[schema.FieldError] = []
        if field:
            wrong = [{"pointer": json_pointer((field,)), "detail": getattr(error, "message", "")}]
        return problem_response(status, str(error), wrong, getattr(error, "reasons", ()))

    app.register_error_handler(errors.AllocationError, allocation_error)


class AllocationHandlers:
    """One method per operation, with the same name. `simulated`: whether the GPUs are."""

    def __init__(self, service: AllocationService | None, simulated: Callable[[], bool]) -> None:
        self._optional_service = service
        self._simulated = simulated

    def handlers(self) -> dict[str, Callable[..., Response]]:
        return {name: getattr(self, name) for name in GPU_OPERATIONS}

    def gpu_status(self) -> Response:
        allocator = self._service.allocator
        held = allocator.snapshot().lease_by_gpu
        return _json_response(serialize.status(allocator.inventory(), held, self._simulated(), self._resource))

    def gpu_nodes(self) -> Response:
        query, allocator = query_of_request(), self._service.allocator
        inventory = allocator.inventory()
        try:
            gpu_request = with_gpu_type(
                GpuRequest(memory_gb=query["min_memory_gb"] or None), query["gpu_type"] or "", self._names
            )
            validate_request(gpu_request, allocator.types())
        except errors.InvalidRequestError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, str(error)) from error
        rows = serialize.nodes(
            inventory,
            allocator.snapshot().lease_by_gpu,
            self._resource,
            lambda kind: not mismatch_reason(gpu_request, kind),
        )
        return _json_response({**serialize.inventory_header(inventory, self._simulated()), "nodes": rows})

    def gpu_allocate(self) -> Response:
        body = parse_body(AllocateRequestBody)
        allocator = self._service.allocator
        allocation = allocator.allocate(self._request(body), body.client_token, body.lease_seconds)
        return _json_response(serialize.allocate_answer(allocation, allocator.leases.clock(), self._resource))

    def gpu_validate(self) -> Response:
        gpu_request = self._request(parse_body(GpuRequestBody))
        return _json_response(serialize.validation_document(gpu_request, self._service.allocator.validate(gpu_request)))

    def gpu_setup_pytorch(self) -> Response:
        body = parse_body(SetupRequestBody)
        return _json_response(pytorch_settings(self._allocation_for(body), _options(body)).document())

    def gpu_setup_tensorflow(self) -> Response:
        body = parse_body(SetupRequestBody)
        return _json_response(tensorflow_settings(self._allocation_for(body), _options(body)).document())

    def gpu_health(self) -> Response:
        service = self._service
        snapshot, now = service.allocator.snapshot(), service.allocator.leases.clock()
        inventory, leases = self._inventory_error(), service.allocator.leases.last_error
        return _json_response(
            {
                "status": "degraded" if inventory or leases else "healthy",
                "inventory": {"ok": not inventory, "message": inventory},
                "leases": {"ok": not leases, "message": leases},
                "allocations": len(snapshot.active),
                "timestamp": serialize.format_rfc3339(now),
            }
        )

    def gpu_monitoring(self) -> Response:
        service = self._service
        snapshot = service.allocator.snapshot()
        return _json_response(
            serialize.monitoring(
                service.allocator.inventory(), snapshot.lease_by_gpu, len(snapshot.active), service.monitor,
                self._simulated(), self._resource,
            )
        )  # fmt: skip

    def gpu_allocations(self) -> Response:
        active = sorted(self._service.allocator.snapshot().active.values(), key=lambda each: (each.expires, each.id))
        now = self._service.allocator.leases.clock()
        rows = [serialize.allocation_document(each, now, self._resource) for each in active]
        return _json_response({"total": len(rows), "allocations": rows})

    def gpu_allocation(self, id_: str) -> Response:
        return self._allocation_response(self._service.allocator.get(id_))

    def gpu_renew(self, id_: str) -> Response:
        return self._allocation_response(self._service.allocator.renew(id_, parse_body(RenewRequestBody).lease_seconds))

    def gpu_release(self, id_: str) -> Response:
        self._service.allocator.release(id_)
        return Response(status=HTTPStatus.NO_CONTENT)

    @property
    def _service(self) -> AllocationService:
        if self._optional_service is None:
            raise errors.NoInventoryError("GPU allocation is not running here: use `gpu-advisor up` or `serve`")
        return self._optional_service

    @property
    def _names(self) -> dict[str, tuple[str, ...]]:
        return self._service.settings.resource_names_by_vendor

    def _resource(self, vendor: str) -> str:
        return next(iter(self._names.get(vendor, ())), self._service.settings.default_resource_name)

    def _request(self, body: GpuRequestBody) -> GpuRequest:
        return parse_request(body.fields(), self._service.allocator.types(), self._names)

    def _allocation_for(self, body: SetupRequestBody) -> Allocation:
        """The allocation that a setup is for, or what its request would get now."""
        allocator = self._service.allocator
        if body.allocation_id is not None:
            return allocator.get(body.allocation_id)
        return allocator.preview(self._request(body))

    def _allocation_response(self, allocation: Allocation) -> Response:
        return _json_response(
            serialize.allocation_document(allocation, self._service.allocator.leases.clock(), self._resource)
        )

    def _inventory_error(self) -> str:
        service = self._service
        try:
            stale = service.allocator.inventory().stale
        except errors.NoInventoryError as error:
            return str(error)
        return "the data source is down: no GPUs are leased" if stale else service.inventory.last_error


def _options(body: SetupRequestBody) -> SetupOptions:
    return SetupOptions(
        strategy=MemoryStrategy(body.memory_strategy) if body.memory_strategy else None,
        need=ModelMemory(body.model_parameters, body.model_activation_bytes, body.model_peak_bytes),
        script=body.script,
        port=body.port,
        version=body.framework_version,
        growth=body.growth,
    )


def _json_response(document: Any) -> Response:
    response = Response(dump_json(document), content_type=JSON)
    response.headers["Cache-Control"] = "no-store"  # leases change at any time
    return response
