"""Forms: what is read, what is counted, what is refused (A-27), wherever the chunks are cut."""

from __future__ import annotations

import time
import tracemalloc

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.proxy.multipart import PRICED_FIELDS, Form, FormFile, FormLimits, FormReader, boundary_of

BOUNDARY = b"----WebKitFormBoundary7MA4YWxkTrZu0gW"
SECRET = b"team"
LIMITS = FormLimits(
    max_bytes=100_000, max_files=3, max_file_bytes=20_000, max_fields=10, max_text_bytes=30_000
)


def part(disposition: bytes, value: bytes, *headers: bytes) -> bytes:
    head = b"\r\n".join([b"Content-Disposition: " + disposition, *headers])
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n"


def field(name: bytes, value: bytes) -> bytes:
    return part(b'form-data; name="' + name + b'"', value)


def file(name: bytes, value: bytes, filename: bytes = b"a.png") -> bytes:
    return part(
        b'form-data; name="' + name + b'"; filename="' + filename + b'"', value, b"Content-Type: image/png"
    )


END = b"--" + BOUNDARY + b"--\r\n"
MODEL = field(b"model", b"gpt-image-2")


def read(body: bytes, limits: FormLimits = LIMITS, size: int = 65536, boundary: bytes = BOUNDARY) -> Form:
    reader = FormReader(boundary, limits, SECRET)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return reader.finish()


def refusal(body: bytes, limits: FormLimits = LIMITS, size: int = 65536) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        read(body, limits, size)
    return caught.value


def test_fields_are_read_and_files_counted() -> None:
    body = (
        MODEL
        + field(b"prompt", "eine Tasse ☕\r\nzweite Zeile --".encode())
        + file(b"image[]", b"\x89PNG\r\n\x00" * 50)
        + file(b"image[]", b"")
        + file(b"mask", b"m")
        + END
    )
    form = read(body)
    assert form.fields == {"model": "gpt-image-2", "prompt": "eine Tasse ☕\r\nzweite Zeile --"}
    assert form.files == (
        FormFile("image[]", "a.png", "image/png", 350),
        FormFile("image[]", "a.png", "image/png", 0),
        FormFile("mask", "a.png", "image/png", 1),
    )


@pytest.mark.parametrize("size", [1, 3, 41, 1000])
def test_chunks_may_be_cut_anywhere(size: int) -> None:
    body = MODEL + file(b"image", (b"\r\n--" + BOUNDARY[:-1] + b"x") * 20) + field(b"n", b"2") + END
    assert read(body, size=size) == read(body)


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (b"\r\n" + MODEL + END, BOUNDARY),
        (MODEL + END.removesuffix(b"\r\n"), BOUNDARY),
        (b'--b\r\ncontent-disposition: form-data; name=model\r\n\r\ngpt-image-2\r\n--b--', b"b"),
        (
            (
                b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 11\r\n"
                b"Content-Transfer-Encoding: 8bit\r\n"
                b'Content-Disposition: form-data; name="model"\r\n\r\ngpt-image-2\r\n--b--\r\n'
            ),
            b"b",
        ),
    ],
)  # fmt: skip
def test_forms_as_various_clients_write_them(body: bytes, boundary: bytes) -> None:
    assert read(body, boundary=boundary).fields == {"model": "gpt-image-2"}


def test_a_form_as_httpx_writes_it() -> None:
    files = [("image[]", ("tässe.png", b"x" * 100, "image/png")), ("image[]", ("b.png", b"y", "image/png"))]
    request = httpx.Request("POST", "http://g/v1/images/edits", data={"model": "m", "n": "2"}, files=files)
    body = request.read()
    form = read(body, boundary=boundary_of(request.headers["content-type"].encode()))
    assert form.fields == {"model": "m", "n": "2"}
    assert [(found.field, found.filename, found.size) for found in form.files] == [
        ("image[]", "tässe.png", 100),
        ("image[]", "b.png", 1),
    ]


def test_an_empty_form_is_a_form() -> None:
    assert read(END) == Form({}, ())


@pytest.mark.parametrize("name", [b"image", b"image[]", b"image[0]", b"image_url", b"mask"])
def test_an_image_given_as_text_is_counted_not_kept(name: bytes) -> None:
    form = read(field(name, b"https://e/x.png") + END)
    assert form == Form({}, (FormFile(name.decode(), None, None, 15),))


@pytest.mark.parametrize("name", sorted(PRICED_FIELDS))
def test_a_priced_field_may_not_be_there_twice_or_as_a_file(name: str) -> None:
    twice = refusal(field(name.encode(), b"1") + field(b"x", b"1") + field(name.encode(), b"1") + END)
    assert (twice.status, f"'{name}'" in twice.message) == (400, True)
    for filename in (b"a", b""):
        as_file = refusal(file(name.encode(), b"1", filename) + END)
        assert (as_file.status, f"'{name}'" in as_file.message) == (400, True)


def test_other_fields_may_repeat_and_names_match_exactly() -> None:
    form = read(field(b"tag", b"1") + field(b"tag", b"2") + field(b"N", b"3") + field(b"n", b"4") + END)
    assert form.fields == {"tag": "2", "N": "3", "n": "4"}


LONG_HEADER = part(b'form-data; name="x"', b"", b"X-Long: " + b"x" * 8192)
MANY_HEADERS = part(b'form-data; name="x"', b"", *[b"X-%d: 1" % i for i in range(20)])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "boundary"),
        (b"\r\n", 400, "boundary"),
        (b"model=gpt", 400, "boundary"),
        (b"preamble\r\n" + MODEL + END, 400, "boundary"),
        (b"\r\n" * 40_000 + MODEL + END, 400, "boundary"),
        (b"\r\n\r\n" + MODEL + END, 400, "boundary"),
        (MODEL, 400, "incomplete"),
        (MODEL + END[:-4], 400, "incomplete"),
        (MODEL + END + b"x", 400, "incomplete or has bytes after"),
        (MODEL + END + b"\r\n", 400, "incomplete or has bytes after"),
        (MODEL + END + MODEL + END, 400, "malformed"),
        (END + END, 400, "malformed"),
        (MODEL + END + b"x" * 1000 + b"\r\n" + END, 400, "malformed"),
        (MODEL.replace(b"\r\n", b"\n") + END, 400, "malformed"),
        (MODEL + b"--" + BOUNDARY + b"x\r\n" + END, 400, "malformed"),
        (part(b"form-data", b"") + END, 400, "Content-Disposition"),
        (part(b'attachment; name="x"', b"") + END, 400, "Content-Disposition"),
        (part(b'form-data; name="x"; name="model"', b"") + END, 400, "Content-Disposition"),
        (part(b'form-data; name="x"; NAME="model"', b"") + END, 400, "Content-Disposition"),
        (part(b"form-data; name=\"x\"; name*=utf-8''model", b"") + END, 400, "name*="),
        (part(b'form-data; name="x" y', b"") + END, 400, "Content-Disposition"),
        (part(b'form-data; name="x', b"") + END, 400, "Content-Disposition"),
        (part(b'form-data; name="x"', b"", b'Content-Disposition: form-data; name="y"') + END, 400, "twice"),
        (part(b'form-data; name="x"', b"eA==", b"Content-Transfer-Encoding: base64") + END, 400, "Encoding"),
        (part(b'form-data; name="x"', b"12", b"Content-Length: 1") + END, 400, "malformed"),
        (part(b'form-data; name="x"', b"", b"no colon") + END, 400, "malformed"),
        (part(b'form-data; name="\xff"', b"") + END, 400, "malformed"),
        (b"--" + BOUNDARY + b"\r\n\r\nx\r\n" + END, 400, "Content-Disposition"),
        (LONG_HEADER + END, 400, "malformed"),
        (MANY_HEADERS + END, 400, "malformed"),
        (field(b"x", b"\xff") + END, 400, "'x' is not valid UTF-8"),
        (field(b"x" * 500, b"\xff") + END, 400, "xxx..."),
        (file(b"image", b"x" * 20_001) + END, 413, "20,000"),
        (file(b"image", b"") * 4 + END, 413, "3 files"),
        (field(b"image", b"u") * 4 + END, 413, "3 files"),
        (field(b"x", b"") * 11 + END, 413, "10 text fields"),
        (field(b"x", b"x" * 15_000) * 3 + END, 413, "30,000"),
    ],
)
@pytest.mark.parametrize("size", [97, 200_000])
def test_everything_else_is_refused(body: bytes, status: int, said: str, size: int) -> None:
    error = refusal(body, size=size)
    assert error.status == status
    assert said in error.message
    assert len(error.message) < 250


@pytest.mark.parametrize(
    ("max_bytes", "said"), [(15_000, "form is larger than 15,000"), (90_000, "file in the")]
)
def test_what_is_too_large_is_refused_as_soon_as_it_is_known(max_bytes: int, said: str) -> None:
    reader = FormReader(BOUNDARY, FormLimits(max_bytes=max_bytes, max_file_bytes=15_000), SECRET)
    reader.feed(MODEL + file(b"image", b"")[:-2])
    reader.feed(b"x" * 10_000)
    with pytest.raises(GatewayError, match=said) as caught:
        reader.feed(b"x" * 10_000)
    assert (caught.value.status, caught.value.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b' Multipart/Form-Data ;  BOUNDARY="a b"'.replace(b" b", b"'b"), b"a'b"),
        (b'multipart/form-data; charset=utf-8; boundary="=_a/b:c?d"', b"=_a/b:c?d"),
        (b"multipart/form-data;boundary=" + b"x" * 70, b"x" * 70),
    ],
)
def test_the_boundary_is_found(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (b"", 415),
        (b"application/json", 415),
        (b"multipart/mixed; boundary=a", 415),
        (b"multipart/form-data", 400),
        (b"multipart/form-data;", 400),
        (b"multipart/form-data; boundary=", 400),
        (b'multipart/form-data; boundary=""', 400),
        (b"multipart/form-data; boundary=a; boundary=b", 400),
        (b"multipart/form-data; boundary=a; Boundary=a", 400),
        (b"multipart/form-data; boundary=a b", 400),
        (b"multipart/form-data; boundary=a, multipart/form-data; boundary=b", 400),
        (b'multipart/form-data; boundary="a', 400),
        (b'multipart/form-data; boundary="a\\b"', 400),
        (b'multipart/form-data; boundary="a\nb"', 400),
        (b"multipart/form-data; boundary*=utf-8''a", 400),
        (b"multipart/form-data; boundary=" + b"x" * 71, 400),
        (b"multipart/form-data; boundary=" + b"x" * 257, 400),
        (b"multipart/form-data; boundary=\xff", 400),
    ],
)
def test_other_content_types_are_refused(content_type: bytes, status: int) -> None:
    with pytest.raises(GatewayError) as caught:
        boundary_of(content_type)
    assert caught.value.status == status


def test_hostile_part_heads_take_little_time() -> None:
    head = b"form-data" + b';a="' * 1000
    start = time.thread_time()
    assert refusal(part(head, b"", *[b"X-%d: " % i + head for i in range(6)]) + END).status == 400
    assert time.thread_time() - start < 0.1


def test_large_files_take_little_memory() -> None:
    limits = FormLimits()
    chunk = b"\r\n--x" * 13_000
    reader = FormReader(BOUNDARY, limits, SECRET)
    reader.feed(MODEL)
    tracemalloc.start()
    try:
        reader.feed(file(b"image", b"")[:-2])
        for _ in range(limits.max_file_bytes // len(chunk)):
            reader.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    reader.feed(b"\r\n" + END)
    assert reader.finish().files[0].size == limits.max_file_bytes // len(chunk) * len(chunk)
    assert peak < 2 * 1024 * 1024


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\\r\n', exclude_categories=["Cc"]), max_size=12
)
VALUES = st.binary(max_size=80).filter(lambda value: b"\r\n--" + BOUNDARY not in value)


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(NAMES, VALUES), max_size=3),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30),
)
def test_every_file_is_counted_wherever_the_chunks_are_cut(
    parts: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    body = b"".join(file(b"f" + name.encode(), value) for name, value in parts) + END
    reader = FormReader(BOUNDARY, LIMITS, SECRET)
    position = 0
    for cut in cuts * (len(body) // sum(cuts) + 1):
        reader.feed(body[position : position + cut])
        position += cut
    found = reader.finish().files
    assert [(one.field, one.size) for one in found] == [("f" + name, len(value)) for name, value in parts]


def outcome(body: bytes, size: int) -> Form | GatewayError:
    try:
        return read(body, size=size)
    except GatewayError as error:
        return error


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_a_form_or_a_400(junk: bytes, size: int) -> None:
    for body in (junk, MODEL + junk, MODEL + junk + END):
        found = outcome(body, size)
        assert isinstance(found, Form) or found.status == 400


# The same form, whatever its boundary ------------------------------------------------------------------------


def digest(
    boundary: bytes, parts: list[tuple[str, str | None, bytes]], step: int = 7, secret: bytes = SECRET
) -> bytes:
    body = b""
    for name, filename, data in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'Content-Disposition: form-data; name="{name}"{file}'
        body += b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"
    body += b"--" + boundary + b"--\r\n"
    reader = FormReader(boundary, FormLimits(), secret)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    reader.finish()
    return reader.digest


PARTS: list[tuple[str, str | None, bytes]] = [
    ("model", None, b"m"),
    ("image", "a.png", b"\r\n--x"),
    ("prompt", None, b""),
]


def test_a_form_s_digest_does_not_know_its_boundary() -> None:
    found = {digest(boundary, PARTS, step) for boundary in (b"one", b"another-2") for step in (1, 7, 10_000)}
    assert len(found) == 1


@pytest.mark.parametrize(
    "other",
    [
        PARTS[:2],
        [*PARTS, ("prompt2", None, b"")],
        [PARTS[1], PARTS[0], PARTS[2]],
        [("model", None, b"M"), *PARTS[1:]],
        [PARTS[0], ("image", "b.png", b"\r\n--x"), PARTS[2]],
        [PARTS[0], ("image", None, b"\r\n--x"), PARTS[2]],
        [PARTS[0], ("images", "a.png", b"\r\n--x"), PARTS[2]],
        [("model", None, b"mi"), ("mage", "a.png", b"\r\n--x"), PARTS[2]],
    ],
)
def test_another_form_has_another_digest(other: list[tuple[str, str | None, bytes]]) -> None:
    assert digest(b"one", other) != digest(b"one", PARTS)


def test_a_form_s_digest_is_another_for_another_secret() -> None:
    assert len(digest(b"one", PARTS)) == 32
    assert digest(b"one", PARTS, secret=b"other") != digest(b"one", PARTS)
