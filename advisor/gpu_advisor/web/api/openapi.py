"""The OpenAPI document (https://spec.openapis.org/oas/v3.1.0), built from the operations and their TypedDicts."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from gpu_advisor import __version__
from gpu_advisor.documents import schema
from gpu_advisor.web.api.base import Operation
from gpu_advisor.web.api.operations import OPERATIONS
from gpu_advisor.web.api.problem_details import PROBLEM_JSON
from gpu_advisor.web.api.query_parameters import Parameter

_REF_PREFIX = "#/components/schemas/"


def document(login_required: bool, writes_protected: bool) -> dict[str, Any]:
    """The whole document. `writes_protected`: whether changing state needs credentials."""
    modes: dict[Any, JsonSchemaMode] = {schema.ProblemDocument: "serialization"}
    for each in OPERATIONS.values():
        modes.update({type_: "serialization" for type_ in each.responses.values() if type_ is not None})
        modes.update({each.body: "validation"} if each.body else {})
    inputs: Any = [(type_, mode, TypeAdapter(type_)) for type_, mode in modes.items()]
    refs, schemas = TypeAdapter.json_schemas(inputs, ref_template=f"{_REF_PREFIX}{{model}}")
    of = {type_: _public_names(refs[type_, mode]) for type_, mode in modes.items()}
    paths: dict[str, dict[str, Any]] = {}
    for name, each in OPERATIONS.items():
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(
            name, each, of, login_required, writes_protected
        )
    components: dict[str, Any] = {
        "schemas": {_public_name(name): _public_names(each) for name, each in schemas.get("$defs", {}).items()}
    }
    if login_required or writes_protected:
        components["securitySchemes"] = {
            **({"basic": {"type": "http", "scheme": "basic"}} if login_required else {}),
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "gpu-advisor", "version": __version__, "license": {"name": "Apache-2.0"}},
        **({"security": [{"basic": []}, {"bearer": []}]} if login_required else {}),
        "paths": paths,
        "components": components,
    }


def _public_name(name: str) -> str:
    """`RecommendationDocument` -> `Recommendation`: the suffix is for readers of the code."""
    return name.removesuffix("Document")


def _public_names(value: Any) -> Any:
    """A JSON schema with the public names in titles and references."""
    if isinstance(value, list):
        return [_public_names(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _public_name(each) if key in ("$ref", "title") and isinstance(each, str) else _public_names(each)
        for key, each in value.items()
    }


def _operation(
    name: str, each: Operation, of: dict[Any, Any], login_required: bool, writes_protected: bool
) -> dict[str, Any]:
    with_token = writes_protected and each.changes_state and not login_required
    errors = {
        *each.errors,
        400,
        *((401, 429) if login_required else (401, 421) if with_token else (421,)),
        *((403,) if each.method != "GET" else ()),
        *((413, 415, 422) if each.body else ()),
    }
    not_modified = {"304": _NOT_MODIFIED} if each.has_etag else {}
    responses: dict[str, Any] = {str(each.status): _response(each, of), **not_modified}
    for status in sorted(errors):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": of[schema.ProblemDocument]}},
        }
    ids = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}] if "{id}" in each.path else []
    return {
        "operationId": name,
        "summary": each.summary,
        **({"security": [{"bearer": []}]} if with_token else {}),
        "parameters": [*ids, *map(_parameter, each.parameters)],
        **({"requestBody": _body(each, of)} if each.body else {}),
        "responses": responses,
    }


_NOT_MODIFIED = {"description": "If-None-Match has the current ETag"}


def _response(each: Operation, of: dict[Any, Any]) -> dict[str, Any]:
    content = {
        media: {"schema": {"type": "string"} if type_ is None else of[type_]} for media, type_ in each.responses.items()
    }
    return {"description": each.summary, **({"content": content} if content else {})}


def _body(each: Operation, of: dict[Any, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": of[each.body]}}}


def _parameter(each: Parameter) -> dict[str, Any]:
    value_schema = each.schema if each.default is None else {**each.schema, "default": each.default}
    return {"name": each.name, "in": "query", "description": each.about, "schema": value_schema}
