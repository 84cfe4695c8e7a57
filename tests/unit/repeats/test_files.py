"""Large answers as files: whole, capped, private, and gone in the end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import UUID

import pytest

from gateway.errors import GatewayError
from gateway.repeats.answer import Bytes
from gateway.repeats.files import FOLDER, AnswerFiles

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture
def files(tmp_path: Path) -> AnswerFiles:
    return AnswerFiles(tmp_path, 1000, oldest=60)


async def content(files: AnswerFiles, name: str) -> bytes | None:
    found = await files.find(name)
    return None if found is None else b"".join([chunk async for chunk in found.chunks()])


async def test_what_is_written_is_read_back(files: AnswerFiles, tmp_path: Path) -> None:
    body = os.urandom(700)
    name = await files.write(ONE, Bytes(body))
    assert name is not None
    assert await content(files, name) == body
    folder = tmp_path / FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / name).stat().st_mode & 0o777 == 0o600


async def test_what_does_not_fit_is_not_kept(files: AnswerFiles) -> None:
    first = await files.write(ONE, Bytes(bytes(700)))
    assert first is not None
    assert await files.write(TWO, Bytes(bytes(400))) is None
    await files.remove([first])
    assert await files.write(TWO, Bytes(bytes(400))) is not None


async def test_a_disk_that_fails_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file in the folder's place")
    files = AnswerFiles(tmp_path, 1000, oldest=60)
    assert await files.write(ONE, Bytes(b"x")) is None
    assert await files.find(ONE.hex) is None


async def test_a_file_that_has_gone_is_an_error_of_ours(files: AnswerFiles) -> None:
    name = await files.write(ONE, Bytes(b"x"))
    assert name is not None
    found = await files.find(name)
    assert found is not None
    await files.remove([name])
    with pytest.raises(GatewayError) as caught:
        _ = [chunk async for chunk in found.chunks()]
    assert caught.value.reason == "answer_not_kept"


async def test_what_lay_too_long_is_removed(files: AnswerFiles, tmp_path: Path) -> None:
    await files.clear()  # before there is anything
    old, new = await files.write(ONE, Bytes(b"x")), await files.write(TWO, Bytes(b"x"))
    assert old is not None
    assert new is not None
    long_ago = time.time() - 61
    os.utime(tmp_path / FOLDER / old, (long_ago, long_ago))
    await files.clear()
    assert (await content(files, old), await content(files, new)) == (None, b"x")
