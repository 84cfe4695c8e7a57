"""Edits as forms: every byte of every file reaches Pixapi as it was sent, and what could be misread is refused."""

from __future__ import annotations

import hashlib
import io

import pytest
from openai import OpenAI

from tests.e2e.data_plane.forms import BOUNDARY, CONTENT_TYPE, ORDER, PNG, Part, field, file, form
from tests.e2e.data_plane.rig import ASYNC_EDITS, EDITS, MICRO, Rig, error_of, header

OTHER = b"GIF89a" + bytes(reversed(range(256))) * 40

FORMS: dict[str, tuple[Part, ...]] = {
    "image once": (*ORDER, file()),
    "image twice": (*ORDER, file(), file(data=OTHER)),
    "image[] three times": (*ORDER, *(file("image[]", PNG + bytes([n]), f"{n}.png") for n in range(3))),
    "numbered": (*ORDER, file("image[0]"), file("image[1]", OTHER), file("image")),
    "with a mask": (*ORDER, file(), file("mask", OTHER, "mask.png")),
    "mask first": (file("mask", OTHER, "mask.png"), *ORDER, file()),
    "files before fields": (file(), file("image[]", OTHER), *ORDER),
    "fields between": (file(), ORDER[0], file(data=OTHER), ORDER[1]),
    "unknown fields": (*ORDER, field("user", "u-1"), field("strength", "0.4"), field("user", "u-2"), file()),
    "an empty unknown file": (*ORDER, file(), file("reference", b"", "none.bin")),
    "odd file names": (
        *ORDER,
        file(filename="../../etc/passwd"),
        file(filename='a"b'.replace('"', "%22")),
        file(filename="杯子 é.png"),
        file(filename="a;b=c,d.png"),
        file(filename="C:\\temp\\cup.png".replace("\\", "\\\\")),
        file(filename="x" * 200),
    ),
    "odd content types": (
        *ORDER,
        file(content_type=None),
        file(content_type="application/octet-stream"),
        file(content_type="IMAGE/PNG; x=y"),
        file(content_type="text/plain; charset=utf-8"),
    ),
    "file name in both spellings": (
        *ORDER,
        Part(
            "image",
            PNG,
            "; filename=\"cup.png\"; filename*=UTF-8''%e6%9d%af.png",
            ("Content-Type: image/png",),
        ),
    ),
    "boundary-like bytes": (
        *ORDER,
        file(data=b"\r\n--" + BOUNDARY[:-1].encode() + b"--\r\n--\r\n\r\n" + PNG),
    ),
    "line ends": (*ORDER, file(data=b"\r\n\r\n\n\r" * 50)),
    "one byte": (*ORDER, file(data=b"\x00")),
    "two megabytes": (*ORDER, file(data=bytes(range(251)) * 8_400)),
    "transfer coding binary": (
        *ORDER,
        Part(
            "image",
            PNG,
            '; filename="a.png"',
            ("Content-Type: image/png", "Content-Transfer-Encoding: binary"),
        ),
    ),
    "headers of its own": (
        *ORDER,
        Part("image", PNG, '; filename="a.png"', ("X-Mine: yes", "content-type: image/png")),
    ),
}


@pytest.mark.parametrize("path", [EDITS, ASYNC_EDITS])
@pytest.mark.parametrize("name", FORMS)
def test_a_form_reaches_pixapi_unchanged(shared: Rig, path: str, name: str) -> None:
    parts = FORMS[name]
    body = form(parts)
    answer = shared.client.post(path, content=body, headers={"content-type": CONTENT_TYPE})
    assert answer.status_code == 200, answer.text
    [entry] = shared.sent(answer)
    assert header(entry, "content-type") == CONTENT_TYPE
    assert header(entry, "content-length") == str(len(body))
    assert (entry["body_length"], entry["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    sent = [(part.name, len(part.data), part.sha256) for part in parts]
    assert [(part["name"], part["size"], part["sha256"]) for part in entry["parts"]] == sent
    assert shared.held(answer).quote == 2 * MICRO


def test_a_form_is_priced_like_its_json(shared: Rig) -> None:
    priced = [
        field("model", "nano-banana-2"),
        field("prompt", "A cup"),
        field("n", "3"),
        field("size", "2048x2048"),
    ]
    answer = shared.client.post(
        EDITS, content=form([*priced, file()]), headers={"content-type": CONTENT_TYPE}
    )
    assert len(answer.json()["data"]) == 3
    hold = shared.held(answer)
    assert (hold.model, hold.quote) == ("gemini-3.1-flash-image-preview", 18 * MICRO)
    same = {
        "model": "nano-banana-2",
        "prompt": "x",
        "n": 3,
        "size": "2048x2048",
        "image": "https://example.com/a.png",
    }
    assert shared.held(shared.client.post(EDITS, json=same)).quote == hold.quote


def test_the_last_line_end_may_be_missing(shared: Rig) -> None:
    body = form([*ORDER, file()]).removesuffix(b"\r\n")
    answer = shared.client.post(EDITS, content=body, headers={"content-type": CONTENT_TYPE})
    assert answer.status_code == 200, answer.text
    assert shared.sent(answer)[0]["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_a_form_may_come_in_chunks_of_any_size(shared: Rig) -> None:
    for size, picture in ((1, PNG), (7, OTHER), (4096, OTHER * 30)):
        body = form([*ORDER, file(data=picture), file("image[]")])
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        answer = shared.client.post(EDITS, content=pieces, headers={"content-type": CONTENT_TYPE})
        assert answer.status_code == 200, answer.text
        assert shared.sent(answer)[0]["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("as_list", [False, True])
def test_the_openai_client_edits_images(shared: Rig, as_list: bool) -> None:
    files = [io.BytesIO(PNG), io.BytesIO(OTHER)] if as_list else io.BytesIO(PNG)
    with OpenAI(api_key=shared.key, base_url=f"{shared.gateway.base}/v1", max_retries=0) as openai:
        raw = openai.images.with_raw_response.edit(model="nano-banana", prompt="A cup", image=files, n=2)
    assert len(raw.parse().data or []) == 2
    [entry] = shared.sent(raw.headers["x-request-id"])
    images = [part for part in entry["parts"] if part["filename"] is not None]
    expected = [("image[]", PNG), ("image[]", OTHER)] if as_list else [("image", PNG)]
    assert [(part["name"], part["sha256"]) for part in images] == [
        (name, hashlib.sha256(data).hexdigest()) for name, data in expected
    ]


WHOLE = form([*ORDER, file()])
CLOSING = f"--{BOUNDARY}--\r\n".encode()
REFUSED: dict[str, bytes] = {
    "empty": b"",
    "no parts": CLOSING,
    "no model": form([field("prompt", "x"), file()]),
    "model twice": form([ORDER[0], *ORDER, file()]),
    "n twice": form([*ORDER, field("n", "1"), field("n", "10"), file()]),
    "n is no number": form([*ORDER, field("n", "1e1"), file()]),
    "n in other digits": form([*ORDER, field("n", "\u0661"), file()]),
    "n is too much": form([*ORDER, field("n", "11"), file()]),
    "model as a file": form([Part("model", b"nano-banana", '; filename="x"'), ORDER[1], file()]),
    "size as a file": form([*ORDER, Part("size", b"4k", '; filename="x"'), file()]),
    "async": form([*ORDER, field("async", "true"), file()]),
    "two names": form([*ORDER, Part("image", PNG, '; name="model"; filename="a.png"')]),
    "name in the other spelling": form(
        [*ORDER, Part("image", PNG, "; name*=UTF-8''model; filename=\"a.png\"")]
    ),
    "no name": WHOLE.replace(b'name="prompt"', b'nome="prompt"'),
    "no disposition": WHOLE.replace(b'Content-Disposition: form-data; name="prompt"\r\n', b""),
    "two dispositions": WHOLE.replace(
        b'; name="prompt"\r\n', b'; name="prompt"\r\nContent-Disposition: form-data; name="n"\r\n'
    ),
    "another disposition": WHOLE.replace(b'form-data; name="prompt"', b'attachment; name="prompt"'),
    "base64": form(
        [*ORDER, Part("image", b"aGk=", '; filename="a.png"', ("Content-Transfer-Encoding: base64",))]
    ),
    "not closed": WHOLE.removesuffix(CLOSING),
    "closed by half": WHOLE.removesuffix(b"--\r\n") + b"\r\n",
    "closed twice": WHOLE + CLOSING,
    "bytes before": b"preamble\r\n" + WHOLE,
    "bytes behind": WHOLE + b"epilogue",
    "a form behind": WHOLE + WHOLE,
    "another boundary": WHOLE.replace(BOUNDARY.encode(), b"something-else"),
    "bare line feeds": WHOLE.replace(b"\r\n", b"\n"),
    "bad utf-8": form([*ORDER, Part("size", b"\xff\xfe"), file()]),
    "eight kilobytes of part head": form([*ORDER, Part("image", PNG, '; filename="' + "x" * 8192 + '"')]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_another_form_is_refused(shared: Rig, name: str) -> None:
    answer = shared.client.post(EDITS, content=REFUSED[name], headers={"content-type": CONTENT_TYPE})
    error_of(answer, 400, "invalid_request_error")
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/form-data; boundary={'b' * 71}",
        f"multipart/form-data; boundary={'b' * 257}",
        f"multipart/form-data; boundary={BOUNDARY}; boundary=other",
        f"multipart/form-data; boundary=other; Boundary={BOUNDARY}",
        f"multipart/form-data; boundary*=UTF-8''{BOUNDARY}",
        f"multipart/form-data boundary={BOUNDARY}",
        "multipart/form-data; boundary=a\tb",
    ],
)
def test_the_boundary_must_be_plain(shared: Rig, content_type: str) -> None:
    answer = shared.client.post(EDITS, content=WHOLE, headers={"content-type": content_type})
    assert answer.status_code in (400, 415)
    error_of(answer, answer.status_code, answer.json()["error"]["type"])
    assert shared.untouched(answer)


@pytest.mark.parametrize(
    "content_type",
    [
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data;BOUNDARY={BOUNDARY}",
        f"{CONTENT_TYPE}; charset=utf-8",
    ],
)
def test_the_boundary_may_be_spelt_as_clients_do(shared: Rig, content_type: str) -> None:
    answer = shared.client.post(EDITS, content=WHOLE, headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text
    assert header(shared.sent(answer)[0], "content-type") == content_type
