"""How large a call may be: what is allowed passes, one more is 413, and nothing is sent or held."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.data_plane.forms import BOUNDARY, CONTENT_TYPE, ORDER, field, file, form
from tests.e2e.data_plane.rig import EDITS, SYNC, Rig, error_of
from tests.e2e.data_plane.wire import Wire, head

MIB = 1024 * 1024
FORM = {"content-type": CONTENT_TYPE}
JSON = {"content-type": "application/json"}


def document(size: int) -> bytes:
    """An order of exactly this many bytes."""
    plain = json.dumps({"model": "nano-banana", "prompt": "x", "pad": ""}).encode()
    return plain[:-2] + b"x" * (size - len(plain)) + plain[-2:]


def pieces(body: bytes, size: int = MIB) -> Iterator[bytes]:
    """The body as it goes out in chunks."""
    return (body[start : start + size] for start in range(0, len(body), size))


def refused(rig: Rig, answer: httpx.Response) -> None:
    error_of(answer, 413, "request_too_large", "request_too_large")
    assert rig.untouched(answer)


def test_json_may_have_two_mebibytes(shared: Rig) -> None:
    for content in (document(2 * MIB), pieces(document(2 * MIB))):
        answer = shared.client.post(SYNC, content=content, headers=JSON)
        assert answer.status_code == 200, answer.text
        assert shared.sent(answer)[0]["body_length"] == 2 * MIB


def test_json_may_not_have_a_byte_more(shared: Rig) -> None:
    for content in (document(2 * MIB + 1), pieces(document(2 * MIB + 1))):
        refused(shared, shared.client.post(SYNC, content=content, headers=JSON))


@pytest.mark.parametrize(
    ("path", "content_type", "length"),
    [
        (SYNC, "application/json", 2 * MIB + 1),
        (EDITS, CONTENT_TYPE, 64 * MIB + 1),
        (EDITS, "application/json", 10**15),
    ],
)
def test_an_announced_length_is_refused_before_the_body(
    shared: Rig, path: str, content_type: str, length: int
) -> None:
    fields = ["Host: gateway", f"Authorization: Bearer {shared.key}", f"Content-Type: {content_type}"]
    with Wire(shared.gateway.process.port) as wire:
        wire.send(head(f"POST {path} HTTP/1.1", *fields, f"Content-Length: {length}"))
        answer = wire.answer()
        assert answer.headers["connection"] == "close"
        refused(shared, answer)


def test_a_form_may_have_sixteen_files_and_a_hundred_fields(shared: Rig) -> None:
    fields = [field(f"x{number}", "v") for number in range(98)]
    body = form([*ORDER, *fields, *(file("image[]") for _ in range(16))])
    answer = shared.client.post(EDITS, content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    assert len(shared.sent(answer)[0]["parts"]) == 116


def test_a_form_may_not_have_one_more(shared: Rig) -> None:
    files = form([*ORDER, *(file("image[]") for _ in range(16)), file("mask")])
    fields = form([*ORDER, *(field(f"x{number}", "v") for number in range(99)), file()])
    many = form([*ORDER, *(field("x", "v") for _ in range(1000)), file()])
    for body in (files, fields, many):
        refused(shared, shared.client.post(EDITS, content=body, headers=FORM))
        refused(shared, shared.client.post(EDITS, content=pieces(body, 1000), headers=FORM))


def test_a_file_may_have_twenty_five_mebibytes(shared: Rig) -> None:
    body = form([*ORDER, file(data=b"\xff" * 25 * MIB)])
    answer = shared.client.post(EDITS, content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    assert shared.sent(answer)[0]["body_length"] == len(body)


def test_a_file_may_not_have_a_byte_more(shared: Rig) -> None:
    body = form([*ORDER, file(data=b"\xff" * (25 * MIB + 1))])
    for content in (body, pieces(body)):
        refused(shared, shared.client.post(EDITS, content=content, headers=FORM))


@pytest.mark.long
def test_a_form_may_not_be_larger_than_64_mebibytes(shared: Rig) -> None:
    whole = form([*ORDER, *(file("image[]", b"\xff" * 21 * MIB) for _ in range(3)), file("image[]", b"x")])
    too_large = form(
        [*ORDER, *(file("image[]", b"\xff" * 21 * MIB) for _ in range(3)), file("image[]", b"x" * 2 * MIB)]
    )
    assert len(whole) < 64 * MIB < len(too_large)
    for content in (too_large, pieces(too_large)):
        refused(shared, shared.client.post(EDITS, content=content, headers=FORM))
    answer = shared.client.post(EDITS, content=pieces(whole), headers=FORM)
    assert answer.status_code == 200, answer.text
    assert shared.sent(answer)[0]["body_length"] == len(whole)


def test_text_in_a_form_is_bounded_too(shared: Rig) -> None:
    refused(
        shared,
        shared.client.post(
            EDITS, content=form([*ORDER, field("x", "v" * (2 * MIB + 1)), file()]), headers=FORM
        ),
    )


def test_a_preamble_is_not_read_for_ever(shared: Rig) -> None:
    body = b"\r\n" * 5 * MIB + form([*ORDER, file()])
    answer = shared.client.post(EDITS, content=pieces(body), headers=FORM)
    error_of(answer, 400, "invalid_request_error")
    assert shared.untouched(answer)


def test_an_endless_part_head_is_not_read_for_ever(shared: Rig) -> None:
    body = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="'.encode() + b"x" * 3 * MIB
    answer = shared.client.post(EDITS, content=pieces(body), headers=FORM)
    error_of(answer, 400, "invalid_request_error")
    assert shared.untouched(answer)
