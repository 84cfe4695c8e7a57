from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.access.admin_tokens import AdminPrincipal
from gateway.admin.api.binding import invoke, problems_of, require_role
from gateway.admin.api.requests import CreateTeam, Given, IssueKey, PutQuota, TaskQuery
from gateway.admin.api.routes import ROUTES
from gateway.db.paging import encode
from gateway.errors import GatewayError

ROWS = {(row.method, row.path): row for row in ROUTES}
CONTEXT = {"now": datetime(2026, 3, 1, tzinfo=UTC)}


def _problems(model: type[Given], given: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given, context=CONTEXT)
    return problems_of(caught.value, model)


def test_a_field_of_an_inner_object_is_named_with_its_path() -> None:
    given = {"name": "x", "quota": {"period": "day", "limit": "3", "enforce": True}}
    assert _problems(CreateTeam, given) == [
        "quota.limit: must be a number of credits, 0 or more",
        "quota.enforce: unknown field",
    ]


@pytest.mark.parametrize("value", [5, "x", [], True])
def test_an_inner_object_must_be_one(value: object) -> None:
    assert _problems(CreateTeam, {"name": "x", "quota": value}) == ["quota: must be an object"]


def test_names_that_could_break_a_message_are_escaped() -> None:
    [problem] = _problems(PutQuota, {"limit": 1, "a\nb\u202e": 2, })  # fmt: skip
    assert problem == "'a\\nb\\u202e': unknown field"
    [problem] = _problems(PutQuota, {"limit": 1, "x" * 5000: 2})
    assert len(problem) < 100


@pytest.mark.parametrize(
    ("value", "micro"),
    [(0, 0), (1, 1_000_000), (Decimal("0.0000005"), 1), (Decimal("123456789012.123456"), 123456789012123456)],
)
def test_credits_are_exact(value: object, micro: int) -> None:
    assert PutQuota.model_validate({"limit": value}).limit == micro


@pytest.mark.parametrize(
    "value", [0.5, -1, True, "1", None, Decimal("NaN"), Decimal("Infinity"), 10**13, [1]]
)
def test_what_is_no_amount_is_refused(value: object) -> None:
    [problem] = _problems(PutQuota, {"limit": value})
    assert problem.startswith("limit: ")


def test_the_future_begins_now() -> None:
    assert _problems(IssueKey, {"name": "k", "expires_at": "2026-03-01T00:00:00Z"})
    key = IssueKey.model_validate({"name": "k", "expires_at": "2026-03-01T00:00:01+00:00"}, context=CONTEXT)
    assert key.expires_at == datetime(2026, 3, 1, 0, 0, 1, tzinfo=UTC)


def test_query_values_are_text() -> None:
    query = TaskQuery.model_validate({"limit": "7", "ended": "false"})
    assert (query.limit, query.ended) == (7, False)
    assert _problems(TaskQuery, {"ended": "False", "limit": "00001"})


def test_a_cursor_s_form_is_checked_with_the_other_fields() -> None:
    assert TaskQuery.model_validate({"after": encode("tasks", ["x"])}).after == encode("tasks", ["x"])
    given = {"limit": "0", "bogus": "1", "after": "xx"}
    assert [problem.partition(":")[0] for problem in _problems(TaskQuery, given)] == [
        "limit",
        "after",
        "bogus",
    ]


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Etc/GMT+5", "EST5EDT", "GB-Eire"])
def test_iana_time_zones_are_taken(name: str) -> None:
    assert CreateTeam.model_validate({"name": "x", "time_zone": name, "unlimited": True}).time_zone == name


@pytest.mark.parametrize(
    "name", ["localtime", "Factory", "posixrules", "posix/UTC", "build/etc/localtime", "utc", ""]
)
def test_what_only_lies_in_the_folder_of_zones_is_no_time_zone(name: str) -> None:
    [problem] = _problems(CreateTeam, {"name": "x", "time_zone": name, "unlimited": True})
    assert problem.startswith("time_zone: must be an IANA time zone")


def test_a_viewer_may_only_get() -> None:
    viewer = AdminPrincipal("admin-token:x", "viewer")
    for row in ROUTES:
        if row.method == "GET":
            require_role(row, viewer)
        else:
            with pytest.raises(GatewayError, match="403"):
                require_role(row, viewer)


async def test_problems_of_query_and_body_come_together() -> None:
    class Api:
        class clock:  # noqa: N801
            @staticmethod
            def now() -> datetime:
                return CONTEXT["now"]

    caller = AdminPrincipal("bootstrap", "admin")
    row = ROWS["PUT", "/teams/{team}/quotas/{period}"]
    with pytest.raises(GatewayError) as caught:
        await invoke(Api(), row, caller, {"team": "t", "period": "day"}, {"x": "1"}, {})  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.message) == (400, "x: unknown field; limit: required")
