"""The OpenAPI document (https://spec.openapis.org/oas/v3.1.0), made from the operations and the documents' schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from gpu_advisor import __version__
from gpu_advisor.documents import schema
from gpu_advisor.web.api.base import Operation
from gpu_advisor.web.api.operations import OPERATIONS
from gpu_advisor.web.api.query_parameters import Parameter

PROBLEM = "application/problem+json"


def document(protected: bool) -> dict[str, Any]:
    """The whole document; `protected` if a login is asked for."""
    schema_modes: dict[Any, str] = {schema.ProblemDocument: "serialization"}
    for each in OPERATIONS.values():
        schema_modes.update({shape: "serialization" for shape in each.responses.values() if shape is not None})
        schema_modes.update({each.body: "validation"} if each.body else {})
    inputs: Any = [(kind, mode, TypeAdapter(kind)) for kind, mode in schema_modes.items()]
    refs, schemas = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    of = {kind: refs[kind, mode] for kind, mode in schema_modes.items()}  # type: ignore[index]
    paths: dict[str, dict[str, Any]] = {}
    for name, each in OPERATIONS.items():
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(name, each, of, protected)
    components: dict[str, Any] = {"schemas": schemas.get("$defs", {})}
    if protected:
        components["securitySchemes"] = {
            "basic": {"type": "http", "scheme": "basic"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "gpu-advisor", "version": __version__, "license": {"name": "Apache-2.0"}},
        **({"security": [{"basic": []}, {"bearer": []}]} if protected else {}),
        "paths": paths,
        "components": components,
    }


def _operation(name: str, each: Operation, of: dict[Any, Any], protected: bool) -> dict[str, Any]:
    errors = {*each.errors, 400, *((401,) if protected else ()), *((413, 415, 422) if each.body else ())}
    answers: dict[str, Any] = {str(each.status): _response(each, of), **({"304": _NOT_MODIFIED} if each.has_etag else {})}
    for status in sorted(errors):
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM: {"schema": of[schema.ProblemDocument]}},
        }
    ids = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}] if "{id}" in each.path else []
    return {
        "operationId": name,
        "summary": each.summary,
        "parameters": [*ids, *map(_parameter, each.parameters)],
        **({"requestBody": _body(each, of)} if each.body else {}),
        "responses": answers,
    }


_NOT_MODIFIED = {"description": "If-None-Match names this answer's ETag"}


def _response(each: Operation, of: dict[Any, Any]) -> dict[str, Any]:
    content = {
        media: {"schema": {"type": "string"} if shape is None else of[shape]} for media, shape in each.responses.items()
    }
    return {"description": each.summary, **({"content": content} if content else {})}


def _body(each: Operation, of: dict[Any, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": of[each.body]}}}


def _parameter(each: Parameter) -> dict[str, Any]:
    value_schema = each.schema if each.default is None else {**each.schema, "default": each.default}
    return {"name": each.name, "in": "query", "description": each.about, "schema": value_schema}
