"""Large answers as files: whole, capped, private, and gone in the end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.errors import GatewayError
from gateway.repeats.answer import Bytes
from gateway.repeats.files import FOLDER, AnswerFiles
from gateway.spool import SpoolBudget, SpooledBody

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


async def spooled(folder: Path, data: bytes) -> SpooledBody:
    body = SpoolBudget(10_000, folder, memory_limit=100).body()
    await body.write(data[:-3])
    await body.write(data[-3:])
    return body


@pytest.mark.parametrize("linked", [True, False])
async def test_a_body_on_disk_is_kept_by_a_name_or_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    if not linked:
        monkeypatch.setattr("gateway.spool._TMPFILE", None)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("the system cannot name such files")
    files, data, copied = AnswerFiles(tmp_path, 1500, oldest=60), os.urandom(700), 0

    def noted(path: Any, *rest: Any, before: Any = os.open, **named: Any) -> int:
        nonlocal copied
        copied += str(path).endswith(".half")
        return int(before(path, *rest, **named))

    monkeypatch.setattr(os, "open", noted)
    body = await spooled(tmp_path, data)
    for _ in range(2):  # again, when its record could not be written
        assert await files.write(ONE, body) == ONE.hex
    assert bool(copied) is not linked
    file = tmp_path / FOLDER / ONE.hex
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (data, 0o600)
    assert [one.name for one in (tmp_path / FOLDER).iterdir()] == [ONE.hex]
    assert await files.write(TWO, Bytes(bytes(801))) is None, "it counts towards the cap"
    body.close()
    assert await content(files, ONE.hex) == data


async def test_who_has_begun_to_read_reads_to_the_end(files: AnswerFiles, tmp_path: Path) -> None:
    body = await spooled(tmp_path, data := os.urandom(700))
    files = AnswerFiles(tmp_path, 10_000_000, oldest=60)
    large = data * 1000
    assert await files.write(ONE, Bytes(large)) == ONE.hex
    assert await files.write(TWO, body) == TWO.hex
    body.close()
    for name, whole in ((ONE.hex, large), (TWO.hex, data)):
        found = await files.find(name)
        assert found is not None
        reading = found.chunks()
        begun = await anext(reading)
        await files.remove([name])
        assert begun + b"".join([chunk async for chunk in reading]) == whole


async def test_answers_of_use_for_seconds_leave_room_for_others(files: AnswerFiles) -> None:
    assert await files.write(ONE, Bytes(bytes(760)), brief=True) is None
    assert await files.write(ONE, Bytes(bytes(750)), brief=True) is not None
    assert await files.write(TWO, Bytes(bytes(1)), brief=True) is None
    assert await files.write(TWO, Bytes(bytes(250))) is not None


async def test_what_others_write_counts_without_a_look_at_every_file_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = 100.0, 0

    def noted(folder: Any, before: Any = os.scandir) -> Any:
        nonlocal looks
        looks += 1
        return before(folder)

    monkeypatch.setattr(os, "scandir", noted)
    monkeypatch.setattr("gateway.repeats.files.time.monotonic", lambda: now)
    files, others = (AnswerFiles(tmp_path, 1000, oldest=60) for _ in range(2))
    for number in range(10):
        assert await files.write(UUID(int=number), Bytes(bytes(10))) is not None
    assert looks == 1
    assert await others.write(UUID(int=10), Bytes(bytes(600))) is not None
    now += 1
    assert await files.write(UUID(int=11), Bytes(bytes(400))) is None
    assert looks == 3


async def test_what_lay_too_long_is_removed(files: AnswerFiles, tmp_path: Path) -> None:
    await files.clear()  # before there is anything
    old, new = await files.write(ONE, Bytes(b"x")), await files.write(TWO, Bytes(b"x"))
    assert old is not None
    assert new is not None
    long_ago = time.time() - 61
    os.utime(tmp_path / FOLDER / old, (long_ago, long_ago))
    await files.clear()
    assert (await content(files, old), await content(files, new)) == (None, b"x")


def _open_to_group(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o750)


def _open_to_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o701)


def _link(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def _file(folder: Path) -> None:
    folder.write_text("a file in the folder's place")


@pytest.mark.parametrize("made", [_open_to_group, _open_to_others, _link, _file])
async def test_a_folder_that_may_be_another_s_is_not_used(
    files: AnswerFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture, made: Callable[[Path], None]
) -> None:
    folder = tmp_path / FOLDER
    made(folder)
    if folder.is_dir():
        (folder / ONE.hex).write_bytes(b"not ours")
        long_ago = time.time() - 61
        os.utime(folder / ONE.hex, (long_ago, long_ago))
    with caplog.at_level(logging.WARNING, "gateway.repeats"):
        for hold_id in (ONE, TWO):
            assert await files.write(hold_id, Bytes(b"x")) is None
        assert await files.find(ONE.hex) is None
        await files.remove([ONE.hex])
        await files.clear()
    warnings = [one for one in caplog.records if "server.spool_dir" in one.getMessage()]
    assert [vars(one)["detail"] for one in warnings] == [str(folder)]
    if folder.is_dir():
        assert [(one.name, one.read_bytes()) for one in folder.iterdir()] == [(ONE.hex, b"not ours")]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away"
)
async def test_another_user_s_folder_is_not_used(files: AnswerFiles, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(mode=0o700)
    os.chown(folder, 12_345, -1)
    (folder / ONE.hex).write_bytes(b"not ours")
    assert await files.find(ONE.hex) is None
    assert await files.write(TWO, Bytes(b"x")) is None


async def test_no_call_of_the_system_is_made_on_the_loop(
    files: AnswerFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("open", "write", "mkdir", "scandir", "stat", "rename", "replace", "unlink")
    seen: set[str] = set()
    for called in names:
        before = getattr(os, called)

        def noted(*values: Any, called: str = called, before: Any = before, **named: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread(), called
            seen.add(called)
            return before(*values, **named)

        monkeypatch.setattr(os, called, noted)
    name = await files.write(ONE, Bytes(b"x"))
    assert name is not None
    assert await content(files, name) == b"x"
    await files.clear()
    await files.remove([name])
    monkeypatch.undo()
    assert {"open", "write", "mkdir", "scandir", "stat", "unlink"} <= seen
