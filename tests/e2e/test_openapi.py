"""The admin API keeps to its OpenAPI document: schemathesis calls every operation of it, as it should be and wrongly.

The examples are the same in every run. What no schema can say is allowed for by the name of its field: cursors belong
to their list, times lie in the future, zones and addresses exist.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, Response
from schemathesis.config import SchemathesisConfig

from gateway.admin.api.openapi import document
from gateway.admin.api.routes import ROUTES
from tests.e2e import harness
from tests.e2e.harness import Gateway

EXAMPLES = 3
THOROUGH = "PXG_SHORT" not in os.environ  # every bound of every field too: `make test`
BEYOND_SCHEMAS = frozenset(
    {"after", "allowed_addresses", "expires_at", "from", "quota", "subject_id", "time_zone", "to", "url"}
)
BEYOND_PATTERNS = (": must not hold control characters", ": must not look like an id")
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"deterministic": True, "max-examples": EXAMPLES, "allow-x00": False},
        "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": THOROUGH}},
        "checks": {"positive_data_acceptance": {"enabled": False}, "ignored_auth": {"enabled": False}},
    }
)
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES), config=CONFIG)


@pytest.fixture(scope="module")
def gateway(module_database_url: str, redis_url: str) -> Iterator[Gateway]:
    with harness.gateway(module_database_url, redis_url, "http://127.0.0.1:9") as found:
        found.team("Openapi")
        yield found


@SCHEMA.parametrize()
@settings(suppress_health_check=list(HealthCheck))
def test_answers_are_those_of_the_document(case: Case[Any], gateway: Gateway) -> None:
    headers = {"authorization": gateway.admin.headers["authorization"]}
    answer = case.call_and_validate(base_url=gateway.base, headers=headers)
    _accepted_when_right(case, answer)


def _accepted_when_right(case: Case[Any], answer: Response) -> None:
    """A request that fits the schema is refused for what no schema can say, and nothing else."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or answer.status_code != 400:
        return
    message = answer.json()["error"]["message"]
    problems = [problem for problem in message.split("; ") if not problem.endswith(BEYOND_PATTERNS)]
    named = {problem.partition(":")[0].partition(".")[0] for problem in problems}
    assert named <= BEYOND_SCHEMAS, answer.text


def test_the_document_fits_the_meta_schema_of_openapi_3_1() -> None:
    SCHEMA.validate()
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict({**document(ROUTES), "paths": []}, config=CONFIG).validate()
