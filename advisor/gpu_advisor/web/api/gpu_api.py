"""Handlers of the operations under /api/v1/gpu/."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request

from gpu_advisor.allocation import errors
from gpu_advisor.allocation.desk import GpuDesk
from gpu_advisor.allocation.documents import gpu_document
from gpu_advisor.allocation.frameworks import SetupOptions, pytorch_settings, tensorflow_settings
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.allocation.placement import suits
from gpu_advisor.allocation.requests import GpuRequest, check, parse_request, typed
from gpu_advisor.allocation.strategies import MemoryStrategy, ModelNeed
from gpu_advisor.web.api import problem
from gpu_advisor.web.api.body import dumped, read_body
from gpu_advisor.web.api.gpu_operations import GPU_OPERATIONS, AllocateBody, GpuBody, RenewBody, SetupBody
from gpu_advisor.web.api.operation import JSON
from gpu_advisor.web.api.parameters import read
from gpu_advisor.web.api.problem import Problem, pointer

STATUSES: tuple[tuple[type[errors.AllocationError], HTTPStatus], ...] = (
    (errors.RequestError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.ImpossibleError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.NoRoomError, HTTPStatus.CONFLICT),
    (errors.ConflictError, HTTPStatus.CONFLICT),
    (errors.UnknownAllocationError, HTTPStatus.NOT_FOUND),
    (errors.AllocationError, HTTPStatus.SERVICE_UNAVAILABLE),  # no inventory, or a disk that takes nothing
)


def register(app: Flask) -> None:
    """Problem documents for what can keep an allocation from being made."""

    def told(error: errors.AllocationError) -> Response:
        status = next(status for kind, status in STATUSES if isinstance(error, kind))
        field = getattr(error, "field", "")
        wrong = [{"pointer": pointer((field,)), "detail": getattr(error, "message", "")}] if field else []
        return problem.answer(status, str(error), wrong, getattr(error, "reasons", ()))  # type: ignore[arg-type]

    app.register_error_handler(errors.AllocationError, told)


class GpuHandlers:
    """One method an operation, of the same name. `simulated` tells whether the GPUs of the moment are."""

    def __init__(self, desk: GpuDesk | None, simulated: Callable[[], bool]) -> None:
        self._given = desk
        self._simulated = simulated

    def table(self) -> dict[str, Callable[..., Response]]:
        return {name: getattr(self, name) for name in GPU_OPERATIONS}

    def gpu_status(self) -> Response:
        _asked("gpu_status")
        allocator = self._desk.allocator
        held = allocator.snapshot().held
        return _answer(gpu_document.status(allocator.inventory(), held, self._simulated(), self._resource))

    def gpu_nodes(self) -> Response:
        asked, allocator = _asked("gpu_nodes"), self._desk.allocator
        inventory = allocator.inventory()
        try:
            wanted = typed(GpuRequest(memory_gb=asked["min_memory_gb"] or None), asked["gpu_type"] or "", self._names)
            check(wanted, allocator.types())
        except errors.RequestError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        rows = gpu_document.nodes(
            inventory, allocator.snapshot().held, self._resource, lambda kind: not suits(wanted, kind)
        )
        return _answer({**gpu_document.known(inventory, self._simulated()), "nodes": rows})

    def gpu_allocate(self) -> Response:
        _asked("gpu_allocate")
        body = read_body(AllocateBody)
        made = self._desk.allocator.allocate(self._request(body), body.client_token, body.lease_seconds)
        return self._allocated(made)

    def gpu_validate(self) -> Response:
        _asked("gpu_validate")
        wanted = self._request(read_body(GpuBody))
        return _answer(gpu_document.validated(wanted, self._desk.allocator.validate(wanted)))

    def gpu_setup_pytorch(self) -> Response:
        _asked("gpu_setup_pytorch")
        body = read_body(SetupBody)
        return _answer(pytorch_settings(self._meant(body), _options(body)).document())

    def gpu_setup_tensorflow(self) -> Response:
        _asked("gpu_setup_tensorflow")
        body = read_body(SetupBody)
        return _answer(tensorflow_settings(self._meant(body), _options(body)).document())

    def gpu_health(self) -> Response:
        _asked("gpu_health")
        desk = self._desk
        snapshot, now = desk.allocator.snapshot(), desk.allocator.leases.clock()
        inventory, leases = self._inventory_trouble(), desk.allocator.leases.trouble
        return _answer(
            {
                "status": "degraded" if inventory or leases else "healthy",
                "inventory": {"ok": not inventory, "message": inventory},
                "leases": {"ok": not leases, "message": leases},
                "allocations": len(snapshot.active),
                "timestamp": gpu_document.time(now),
            }
        )

    def gpu_monitoring(self) -> Response:
        _asked("gpu_monitoring")
        desk = self._desk
        snapshot = desk.allocator.snapshot()
        return _answer(
            gpu_document.monitoring(
                desk.allocator.inventory(), snapshot.held, len(snapshot.active), desk.monitor, self._simulated(),
                self._resource,
            )
        )  # fmt: skip

    def gpu_allocations(self) -> Response:
        _asked("gpu_allocations")
        active = sorted(self._desk.allocator.snapshot().active.values(), key=lambda each: (each.expires, each.id))
        now = self._desk.allocator.leases.clock()
        rows = [gpu_document.allocated(each, now, self._resource) for each in active]
        return _answer({"total": len(rows), "allocations": rows})

    def gpu_allocation(self, id_: str) -> Response:
        _asked("gpu_allocation")
        return self._allocated(self._desk.allocator.get(id_))

    def gpu_renew(self, id_: str) -> Response:
        _asked("gpu_renew")
        return self._allocated(self._desk.allocator.renew(id_, read_body(RenewBody).lease_seconds))

    def gpu_release(self, id_: str) -> Response:
        _asked("gpu_release")
        self._desk.allocator.release(id_)
        return Response(status=HTTPStatus.NO_CONTENT)

    @property
    def _desk(self) -> GpuDesk:
        if self._given is None:
            raise errors.NoInventoryError("this service gives out no GPUs: ask a running `gpu-advisor up` or `serve`")
        return self._given

    @property
    def _names(self) -> dict[str, tuple[str, ...]]:
        return self._desk.settings.names

    def _resource(self, vendor: str) -> str:
        return next(iter(self._names.get(vendor, ())), self._desk.settings.default_resource_name)

    def _request(self, body: GpuBody) -> GpuRequest:
        return parse_request(body.fields(), self._desk.allocator.types(), self._names)

    def _meant(self, body: SetupBody) -> Allocation:
        """The allocation that a setup is for, or what its request would get now."""
        allocator = self._desk.allocator
        if body.allocation_id is not None:
            return allocator.get(body.allocation_id)
        return allocator.preview(self._request(body))

    def _allocated(self, allocation: Allocation) -> Response:
        return _answer(gpu_document.allocated(allocation, self._desk.allocator.leases.clock(), self._resource))

    def _inventory_trouble(self) -> str:
        desk = self._desk
        try:
            stale = desk.allocator.inventory().stale
        except errors.NoInventoryError as error:
            return str(error)
        return "the data source does not answer: nothing is given out" if stale else desk.machines.trouble


def _options(body: SetupBody) -> SetupOptions:
    return SetupOptions(
        strategy=MemoryStrategy(body.memory_strategy) if body.memory_strategy else None,
        need=ModelNeed(body.model_parameters, body.model_activation_bytes, body.model_peak_bytes),
        script=body.script,
        port=body.port,
        version=body.framework_version,
        growth=body.growth,
    )


def _asked(operation: str) -> dict[str, Any]:
    return read(request.args, GPU_OPERATIONS[operation].parameters)


def _answer(document: Any) -> Response:
    response = Response(dumped(document), content_type=JSON)
    response.headers["Cache-Control"] = "no-store"  # who has which GPU is true for a moment only
    return response
