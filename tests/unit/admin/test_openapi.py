"""The OpenAPI document describes exactly the rows of the table, and every reference in it leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.admin.api.openapi import PREFIX, document, failures
from gateway.admin.api.requests import Nothing
from gateway.admin.api.routes import ROUTES

DOCUMENT = document(ROUTES)
CONTRACT = """
POST /teams | GET /teams | GET /teams/{team} | PATCH /teams/{team} | POST /teams/{team}/suspend
POST /teams/{team}/resume | PUT /teams/{team}/quotas/{period} | GET /teams/{team}/quotas/{period}
DELETE /teams/{team}/quotas/{period} | PUT /keys/{id}/quotas/{period} | GET /keys/{id}/quotas/{period}
DELETE /keys/{id}/quotas/{period} | POST /teams/{team}/keys | GET /teams/{team}/keys | GET /keys/{id}
PATCH /keys/{id} | POST /keys/{id}/revoke | POST /keys/{id}/rotate | POST /upstream-keys | GET /upstream-keys
GET /upstream-keys/{id} | PATCH /upstream-keys/{id} | POST /upstream-keys/{id}/drain
POST /upstream-keys/{id}/disable | POST /upstream-keys/{id}/enable | DELETE /upstream-keys/{id} | GET /tasks
GET /tasks/{id} | GET /audit | GET /status | POST /admin-tokens | GET /admin-tokens
POST /admin-tokens/{id}/revoke | GET /openapi.json | GET /usage | GET /holds | POST /holds/{id}/resolve
GET /requests | GET /ledger/verify
"""


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _walk(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for inner in part.values():
            yield from _walk(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _walk(inner)


def test_every_call_of_the_contract_has_its_row() -> None:
    promised = {call.strip() for call in re.split(r"[|\n]", CONTRACT) if call.strip()}
    assert promised <= {f"{row.method} {row.path}" for row in ROUTES}


def test_the_document_has_exactly_the_rows() -> None:
    rows = {(row.method, PREFIX + row.path) for row in ROUTES}
    assert {(method, path) for method, path, _ in _operations()} == rows
    assert len(rows) == len(ROUTES)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_operations_are_named_apart() -> None:
    names = [operation["operationId"] for _, _, operation in _operations()]
    assert len(set(names)) == len(names)
    assert "teams_create" in names
    assert "keys_quotas_put" in names


def test_every_reference_leads_to_a_schema() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    references = {part["$ref"] for part in _walk(DOCUMENT) if "$ref" in part}
    assert references
    assert {reference.rpartition("/")[2] for reference in references} <= set(schemas)
    assert all(reference.startswith("#/components/schemas/") for reference in references)


def test_path_parameters_are_those_of_the_path() -> None:
    for _, path, operation in _operations():
        described = [part["name"] for part in operation["parameters"] if part["in"] == "path"]
        assert described == re.findall(r"{(\w+)}", path)


def test_queries_bodies_and_answers_are_those_of_the_row() -> None:
    for row in ROUTES:
        operation = DOCUMENT["paths"][PREFIX + row.path][row.method.lower()]
        queries = [part["name"] for part in operation["parameters"] if part["in"] == "query"]
        assert queries == [field.alias or name for name, field in row.query.model_fields.items()]
        assert ("requestBody" in operation) == (row.body is not Nothing)
        failed = {str(status) for status in failures(row)}
        assert set(operation["responses"]) == {str(row.status), "5XX"} | failed
        if row.body is not Nothing:
            schema = DOCUMENT["components"]["schemas"][row.body.__name__]
            assert set(schema["properties"]) == set(row.body.model_fields)
            assert schema["additionalProperties"] is False


def test_credits_are_numbers_and_times_are_times() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["QuotaAnswer"]["properties"]["limit"] == {"type": "number"}
    assert schemas["PutQuota"]["properties"]["limit"]["type"] == "number"
    assert schemas["QuotaAnswer"]["properties"]["created_at"]["format"] == "date-time"
    assert not [part for part in _walk(DOCUMENT) if part.get("format") == "decimal"]


@pytest.mark.parametrize(
    "row", [row for row in ROUTES if row.body is not Nothing], ids=lambda row: row.operation
)
def test_secrets_are_only_in_the_answers_that_issue_one(row: Any) -> None:
    answer = msgspec.json.schema(row.answer)
    issues = row.operation in ("teams_keys_issue", "keys_rotate", "admin_tokens_issue", "webhooks_add")
    found = [part for part in _walk(answer) if "secret" in part.get("properties", {})]
    assert bool(found) == issues


def test_the_document_is_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(DOCUMENT)) == DOCUMENT


def test_the_proof_may_be_running() -> None:
    responses = DOCUMENT["paths"][f"{PREFIX}/ledger/verify"]["get"]["responses"]
    assert {"200", "409"} <= set(responses)
    assert "409" not in DOCUMENT["paths"][f"{PREFIX}/holds"]["get"]["responses"]
