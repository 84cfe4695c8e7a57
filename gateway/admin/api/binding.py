"""From what a caller sent to a validated call, and on to its handler: the one way in, for HTTP and command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway import errors
from gateway.access.admin_tokens import AdminPrincipal
from gateway.admin.api.route import AdminApi, AdminCall, AdminRoute

M = TypeVar("M", bound=BaseModel)
_LONGEST_PARAM = 200


async def invoke(
    api: AdminApi,
    route: AdminRoute,
    caller: AdminPrincipal,
    params: Mapping[str, str],
    query: Mapping[str, Any],
    body: Mapping[str, Any],
) -> object:
    """The answer of `route`; raises GatewayError 403 for the role, 400 naming every wrong field, 404 and 409."""
    require_role(route, caller)
    if any(len(value) > _LONGEST_PARAM or not value.isprintable() for value in params.values()):
        raise errors.not_found()
    context = {"now": api.clock.now()}
    problems: list[str] = []
    parsed_query = _bind(route.query, query, context, problems)
    parsed_body = _bind(route.body, body, context, problems)
    if parsed_query is None or parsed_body is None:
        raise errors.bad_request("; ".join(problems), "invalid_fields")
    call = AdminCall(caller.actor, caller.role, params, parsed_body, parsed_query)
    return await route.handler(api, call)


def require_role(route: AdminRoute, caller: AdminPrincipal) -> None:
    """403 unless the caller's role may use this row."""
    if caller.role == "admin":
        return
    if route.role != "viewer" or route.method != "GET":
        raise errors.forbidden(
            "The role viewer only reads; changes need a token or session with the role admin.", "role"
        )


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a wrong field, such as `limit: must be a number of credits, 0 or more`. No line holds its value."""
    return list(dict.fromkeys(_line(detail, model) for detail in error.errors(include_input=False)))


def _bind(model: type[M], given: Mapping[str, Any], context: object, problems: list[str]) -> M | None:
    try:
        return model.model_validate(dict(given), context=context)
    except ValidationError as error:
        problems += problems_of(error, model)
        return None


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = [str(part) for part in detail["loc"]]
    name = ".".join(part[:60] for part in path)
    name = name if name.isprintable() else ascii(name)
    if detail["type"] == "missing":
        return f"{name}: required"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1][:60], _fields_at(model, path[:-1]), n=1)
        return f"{name}: unknown field{f', did you mean {near[0]}?' if near else ''}"
    if detail["type"].startswith("model_"):
        return f"{name}: must be an object"
    message = re.sub(r"^\w+ should ", "must ", detail["msg"].removeprefix("Value error, "))
    return f"{name}: {message}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        kinds = getattr(model.model_fields[part].annotation, "__args__", ())
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]
