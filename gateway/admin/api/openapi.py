"""The OpenAPI 3.1 document, made from the rows of the table and the schemas they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.admin.api.requests import Nothing
from gateway.admin.api.route import AdminRoute
from gateway.credits.quotas import PERIODS

PREFIX = "/admin/api"
_REF = "#/components/schemas/{}"
_ERROR = {
    "type": "object",
    "description": "Every failure has this shape; docs/errors.md lists the reasons.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer"},
                "message": {"type": "string"},
                "type": {"type": "string"},
                "reason": {"type": "string"},
                "request_id": {"type": "string"},
            },
            "required": ["code", "message", "type", "reason", "request_id"],
        }
    },
    "required": ["error"],
}
_NAMED = {"type": "string", "minLength": 1, "maxLength": 200}
_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "team": ("The team's id or slug", _NAMED),
    "period": ("What a limit holds for", {"type": "string", "enum": list(PERIODS)}),
    "request_id": ("The x-request-id of an answer", _NAMED),
    "id": ("The id in the object's answer; an upstream key also goes by its label", _NAMED),
}
_FAILURES = {
    400: "Fields, the query or the body are wrong; the message names every one",
    401: "No admin token, or none that works",
    403: "The token's role may not do this",
    404: "There is no such object",
    409: "The change contradicts what is stored, or what runs once at a time is running",
    413: "The body is too long",
    415: "The body is not JSON",
    503: "The gateway's database cannot be asked",
}


def document(routes: Sequence[AdminRoute]) -> dict[str, Any]:
    """The document that describes exactly these rows."""
    answers, schemas = msgspec.json.schema_components(
        [route.answer for route in routes], ref_template=_REF.format("{name}")
    )
    bodies = {route.body for route in routes if route.body is not Nothing}
    ordered = sorted(bodies, key=lambda body: body.__name__)
    _, given = models_json_schema(
        [(body, "validation") for body in ordered], ref_template=_REF.format("{model}")
    )
    paths: dict[str, dict[str, Any]] = {}
    for route, answer in zip(routes, answers, strict=True):
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, answer)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pixapi gateway admin API",
            "version": __version__,
            "description": "Teams, keys, quotas, the pool of upstream keys, and who changed what.",
        },
        "security": [{"admin_token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"admin_token": {"type": "http", "scheme": "bearer", "bearerFormat": "pxa_…"}},
            "schemas": {**given["$defs"], **_with_numbers(schemas), "Error": _ERROR},
        },
    }


def _operation(route: AdminRoute, answer: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": f"Role: {route.role}.",
        "tags": [route.path.split("/")[1]],
        "parameters": _path_parameters(route.path) + _query_parameters(route.query),
        "responses": {
            str(route.status): {
                "description": HTTPStatus(route.status).phrase,
                "content": {"application/json": {"schema": answer}, **_tables(route)},
            },
            **{str(status): _failure(_FAILURES[status]) for status in failures(route)},
            "5XX": _failure("A failure of the gateway"),
        },
    }
    if route.body is not Nothing:
        required = any(field.is_required() for field in route.body.model_fields.values())
        schema = {"$ref": _REF.format(route.body.__name__)}
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    return operation


def failures(route: AdminRoute) -> list[int]:
    """The statuses of the failures a row can answer, 5xx apart but for 503."""
    found = {400, 401, 503} | route.failures
    if route.role != "viewer" or route.method != "GET":
        found |= {403}
    if "{" in route.path or {"team", "webhook"} & route.query.model_fields.keys():
        found |= {404}
    if route.method != "GET":
        found |= {409, 413, 415}
    return sorted(found)


def _failure(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format("Error")}}}
    return {"description": description, "content": content}


def _tables(route: AdminRoute) -> dict[str, Any]:
    """The other content type of an answer that can also be a table."""
    return {"text/csv": {"schema": {"type": "string"}}} if "format" in route.query.model_fields else {}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS[name][0],
            "schema": _PARAMETERS[name][1],
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]


def _with_numbers(schema: Any) -> Any:
    """The schema with its decimals as what they are on the wire: numbers."""
    if isinstance(schema, list):
        return [_with_numbers(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {"type": "number"}
    return {name: _with_numbers(part) for name, part in schema.items()}
