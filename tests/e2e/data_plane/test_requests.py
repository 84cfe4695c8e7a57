"""What a request may say of itself: its id, its content type, its fields, and the old way to ask for a task."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.e2e.data_plane.rig import (
    EDITS,
    PAID,
    SYNC,
    VIDEOS,
    Rig,
    error_of,
    header,
    order,
)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("my-request.0001:a_b", True),
        ("x" * 128, True),
        ("req_0123456789abcdef", True),
        ("x" * 129, False),
        ("", False),
        ("with space in it", False),
        ("quote\"in'it-----", False),
        ("new\tline-tab", False),
    ],
)
def test_a_sane_request_id_is_kept(shared: Rig, sent: str, kept: bool) -> None:
    answer = shared.client.post(SYNC, json=order(), headers={"x-request-id": sent})
    assert answer.status_code == 200
    assert (answer.headers["x-request-id"] == sent) is kept
    [entry] = shared.sent(answer)
    assert [value for name, value in entry["headers"] if name == "x-request-id"] == [
        answer.headers["x-request-id"]
    ]


def test_two_request_ids_are_none(shared: Rig) -> None:
    sent = [("x-request-id", "first-request-id"), ("x-request-id", "other-request-id")]
    answer = shared.client.get("/v1/models", headers=sent)
    assert answer.headers["x-request-id"] not in ("first-request-id", "other-request-id")


def test_without_a_request_id_each_answer_has_its_own(shared: Rig) -> None:
    ids = {shared.client.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{8,128}", one) for one in ids)


@pytest.mark.parametrize("path", PAID)
@pytest.mark.parametrize("how", ["?async=true", "?ASYNC=1", "?async", "?n=1&async=true", "body", "text"])
def test_the_old_way_to_ask_for_a_task_names_the_new_path(shared: Rig, path: str, how: str) -> None:
    body = order() | ({"model": "veo"} if path == VIDEOS else {})
    if how == "body":
        answer = shared.client.post(path, json=body | {"async": True})
    elif how == "text":
        answer = shared.client.post(path, json=body | {"async": "true"})
    else:
        answer = shared.client.post(path + how, json=body)
    error = error_of(answer, 400, "invalid_request_error")
    wanted = path if "/async/" in path else path.replace("/v1/", "/v1/async/")
    assert re.search(rf"{wanted}(?![\w/])", error["message"])
    assert shared.untouched(answer)


def test_to_ask_for_no_task_is_fine(shared: Rig) -> None:
    for query in ("?async=false", "?async=0"):
        answer = shared.client.post(SYNC + query, json=order())
        assert answer.status_code == 200
        assert shared.sent(answer)[0]["query"] == ""
    answer = shared.client.post(SYNC, json=order() | {"async": False})
    assert answer.status_code == 200
    assert shared.sent(answer)[0]["body_text"] == answer.request.content.decode()


def test_query_strings_are_not_forwarded(shared: Rig) -> None:
    task = shared.submit("[fault:stuck]")
    answer = shared.client.get(f"/v1/tasks/{task}?key=x&a=1&a=2")
    assert answer.status_code == 200
    [entry] = shared.sent(answer)
    assert (entry["path"], entry["query"]) == (f"/v1/tasks/{task}", "")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        (SYNC, None),
        (SYNC, "text/plain"),
        (SYNC, "application/x-www-form-urlencoded"),
        (SYNC, "multipart/form-data; boundary=abcdefgh"),
        (SYNC, "application/jsonx"),
        (SYNC, "application/json; charset=utf-16"),
        (SYNC, "application/json, application/json"),
        (VIDEOS, "multipart/form-data; boundary=abcdefgh"),
        (EDITS, "multipart/mixed; boundary=abcdefgh"),
        (EDITS, "application/octet-stream"),
    ],
)
def test_another_content_type_is_refused(shared: Rig, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = shared.client.post(path, content=b'{"model":"veo","prompt":"x"}', headers=headers)
    error_of(answer, 415, "unsupported_media_type", "unsupported_media_type")
    assert shared.untouched(answer)


def test_two_content_types_are_refused(shared: Rig) -> None:
    headers = [("content-type", "application/json"), ("content-type", "text/plain")]
    answer = shared.client.post(SYNC, content=b'{"model":"veo","prompt":"x"}', headers=headers)
    error_of(answer, 415, "unsupported_media_type")
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
def test_json_is_known_in_its_usual_spellings(shared: Rig, content_type: str) -> None:
    body = b'{"model":"nano-banana","prompt":"x"}'
    answer = shared.client.post(SYNC, content=body, headers={"content-type": content_type})
    assert answer.status_code == 200
    assert header(shared.sent(answer)[0], "content-type") == content_type


def test_the_old_transition_format_passes_where_it_can_be_priced(shared: Rig) -> None:
    old = {"contents": [{"parts": [{"text": "A cup"}]}], "generationConfig": {"imageConfig": {}}}
    answer = shared.client.post(SYNC, json=old | {"model": "nano-banana"})
    # The sandbox does not imitate that format; what counts is that it was asked.
    error = error_of(answer, 400, "invalid_request_error", "rejected_by_pixapi")
    assert error["message"] == "prompt is required."
    assert shared.sent(answer)[0]["body_text"] == answer.request.content.decode()
    assert shared.held(answer).state == "released"
    answer = shared.client.post(SYNC, json=old)
    assert "model" in error_of(answer, 400, "invalid_request_error")["message"]
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (SYNC, {"model": None}, "model"),
        (SYNC, {"model": 7}, "model"),
        (SYNC, {"model": ["nano-banana"]}, "model"),
        (SYNC, {"model": "a\nb"}, "model"),
        (SYNC, {"n": 0}, "n"),
        (SYNC, {"n": -1}, "n"),
        (SYNC, {"n": 11}, "n"),
        (SYNC, {"n": 1.5}, "n"),
        (SYNC, {"n": True}, "n"),
        (SYNC, {"n": "2"}, "n"),
        (SYNC, {"size": 1024}, "size"),
        (SYNC, {"size": {"w": 1}}, "size"),
        (SYNC, {"quality": ["high"]}, "quality"),
        (SYNC, {"model": "veo"}, VIDEOS),
        (VIDEOS, {"model": "nano-banana"}, SYNC),
        (VIDEOS, {"model": "veo", "duration": 0}, "duration"),
        (VIDEOS, {"model": "veo", "duration": -5}, "duration"),
        (VIDEOS, {"model": "veo", "duration": 61}, "duration"),
        (VIDEOS, {"model": "veo", "duration": "long"}, "duration"),
        (VIDEOS, {"model": "veo", "duration": 1e300}, "duration"),
        (VIDEOS, {"model": "veo", "seconds": [5]}, "seconds"),
    ],
)
def test_a_field_that_prices_the_call_must_be_readable(
    shared: Rig, path: str, fields: dict[str, Any], named: str
) -> None:
    answer = shared.client.post(path, json=order() | fields)
    error = error_of(answer, 400, "invalid_request_error")
    assert named in error["message"]
    assert shared.untouched(answer)
