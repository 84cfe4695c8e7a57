"""JSON bodies: what two readers could read differently is refused, everything else is forwarded byte for byte."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.e2e.data_plane.rig import ASYNC, EDITS, SYNC, Rig, error_of

JSON = {"content-type": "application/json"}
START = b'{"model":"nano-banana","prompt":"A cup"'


def nested(depth: int) -> bytes:
    """An order whose deepest value lies this many levels down."""
    return START + b',"extra":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


REFUSED = {
    "empty": b"",
    "spaces": b"  \r\n",
    "not json": b"model=nano-banana",
    "cut": START,
    "single quotes": START.replace(b'"', b"'") + b"}",
    "trailing comma": START + b",}",
    "comment": START + b"/* x */}",
    "list": b"[" + START + b"}]",
    "text": b'"nano-banana"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "two documents": START + b"}" + START + b"}",
    "trailing data": START + b"} x",
    "trailing bracket": START + b"}}",
    "trailing nul": START + b"}\x00",
    "byte order mark": b"\xef\xbb\xbf" + START + b"}",
    "utf-16": (START + b"}").decode().encode("utf-16"),
    "bad utf-8": START + b',"x":"\xff"}',
    "overlong utf-8": START + b',"x":"\xc0\xaf"}',
    "surrogate bytes": START + b',"x":"\xed\xa0\x80"}',
    "lone surrogate": START + b',"x":"\\ud800"}',
    "swapped surrogates": START + b',"x":"\\udc00\\ud800"}',
    "surrogate key": START + b',"\\udfff":1}',
    "control character": START + b',"x":"a\nb"}',
    "bad escape": START + b',"x":"\\x41"}',
    "same key": START + b',"model":"nano-banana"}',
    "same key, other price": b'{"n":1,"model":"nano-banana","n":10,"prompt":"x"}',
    "same key escaped": START + b',"\\u006dodel":"veo"}',
    "same key below": START + b',"x":{"a":1,"b":2,"a":3}}',
    "same key in a list": START + b',"x":[{"a":1,"a":1}]}',
    "nan": START + b',"x":NaN}',
    "infinity": START + b',"x":Infinity}',
    "minus infinity": START + b',"x":[-Infinity]}',
    "too large a float": START + b',"x":1e999}',
    "huge integer": START + b',"x":' + b"9" * 5000 + b"}",
    "nineteen digits": START + b',"x":1234567890123456789}',
    "negative nineteen digits": START + b',"x":-1234567890123456789}',
    "leading zero": START + b',"n":01}',
    "hex": START + b',"n":0x1}',
    "plus": START + b',"n":+1}',
    "bare point": START + b',"x":.5}',
    "33 levels": nested(33),
    "100,000 brackets": b"[" * 100_000,
    "100,000 braces": b'{"a":' * 100_000,
    "deep behind a string": START + b',"s":"' + b"[" * 50 + b'","x":' + b"[" * 40 + b"]" * 40 + b"}",
    "a million values": START + b',"x":[' + b"0," * 1_000_000 + b"0]}",
}

FORWARDED = {
    "plain": START + b"}",
    "spaces": b'\r\n\t {  "model" :\t"nano-banana" ,\n\n"prompt":"A cup"  } \n\n',
    "unknown fields": START + b',"guidance_scale":7.5,"x":{"y":[null,true,-0.0,1e-7]},"user":"u-1"}',
    "order of fields": b'{"z":1,"prompt":"A cup","a":2,"model":"nano-banana","m":3}',
    "escapes": b'{"\\u006dodel":"nano\\u002dbanana","prompt":"\\ud83c\\udf75 \\/ \\u00e9"}',
    "unicode": '{"model":"nano-banana","prompt":"杯子 é 🍵"}'.encode(),
    "nul in a text": START + b',"x":"\\u0000"}',
    "18 digits": START + b',"seed":999999999999999999}',
    "float spellings": START + b',"x":[1.0,1.00,1E5,1e+05,0.1000]}',
    "32 levels": nested(32),
    "brackets in a string": START + b',"x":"' + b"[{" * 1000 + b'"}',
    "nulls": START + b',"n":null,"size":null,"quality":null}',
    "empty key": START + b',"":1}',
    "same key in other objects": START + b',"a":{"k":1},"b":{"k":1}}',
    "case differs": START + b',"Model":"veo","N":9}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_twice_is_refused(shared: Rig, name: str) -> None:
    answer = shared.client.post(SYNC, content=REFUSED[name], headers=JSON)
    error = error_of(answer, 400, "invalid_request_error")
    assert "nano-banana" not in error["message"]
    assert "A cup" not in error["message"]
    assert shared.untouched(answer)


@pytest.mark.parametrize("path", [EDITS, ASYNC])
def test_every_json_route_is_as_strict(shared: Rig, path: str) -> None:
    for name in ("same key, other price", "nan", "33 levels", "list"):
        answer = shared.client.post(path, content=REFUSED[name], headers=JSON)
        error_of(answer, 400, "invalid_request_error")
        assert shared.untouched(answer)


@pytest.mark.parametrize("name", FORWARDED)
def test_a_body_is_forwarded_byte_for_byte(shared: Rig, name: str) -> None:
    body = FORWARDED[name]
    answer = shared.client.post(SYNC, content=body, headers=JSON)
    assert answer.status_code == 200, answer.text
    [entry] = shared.sent(answer)
    assert entry["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert entry["body_length"] == len(body)
    assert entry["executed"]
    assert shared.held(answer).state == "settled"


def test_a_large_body_is_forwarded_byte_for_byte(shared: Rig) -> None:
    body = json.dumps({"model": "nano-banana", "prompt": "A cup", "x": "é" * 300_000}).encode()
    assert 1_048_576 < len(body) < 2_097_152  # beyond what is kept in memory
    answer = shared.client.post(SYNC, content=body, headers=JSON)
    assert answer.status_code == 200
    assert shared.sent(answer)[0]["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_the_process_outlives_all_of_them(shared: Rig) -> None:
    assert shared.gateway.process.child.poll() is None
    assert "Traceback" not in shared.gateway.process.text()
