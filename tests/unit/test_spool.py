"""The spool: memory, disk, budget, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.spool import PIECE, SpoolBudget, SpooledBody

MEBIBYTE = 1024 * 1024


def unnamed_files() -> int:
    """Deleted files this process has open (0 where the system does not say)."""
    folder = Path("/proc/self/fd")
    links = [link.readlink() for link in folder.iterdir() if link.is_symlink()] if folder.is_dir() else []
    return sum(link.name.endswith("(deleted)") for link in links)


async def whole(body: SpooledBody, piece: int = 256 * 1024) -> bytes:
    return b"".join([part async for part in body.chunks(piece)])


@pytest.fixture
def budget(tmp_path: Path) -> SpoolBudget:
    return SpoolBudget(16 * MEBIBYTE, tmp_path)


@pytest.fixture(autouse=True)
async def nothing_is_left_behind(tmp_path: Path) -> AsyncIterator[None]:
    before = unnamed_files()
    yield
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 5
    while unnamed_files() != before and time.monotonic() < deadline:
        await asyncio.sleep(0.01)  # a thread whose task was cancelled closes its file itself
    assert unnamed_files() == before


async def test_a_small_body_stays_in_memory(budget: SpoolBudget) -> None:
    async with budget.body() as body:
        await body.write(b"abc")
        await body.write(b"")
        await body.write(b"def")
        assert (body.size, body.in_memory, body.read_small()) == (6, True, b"abcdef")
        assert [part async for part in body.chunks(4)] == [b"abcd", b"ef"]
        assert budget.used == 0


async def test_an_empty_body_has_no_chunks(budget: SpoolBudget) -> None:
    async with budget.body() as body:
        assert (await whole(body), body.read_small()) == (b"", b"")


@pytest.mark.parametrize(("size", "in_memory"), [(MEBIBYTE, True), (MEBIBYTE + 1, False)])
async def test_the_limit_of_memory_is_exact(budget: SpoolBudget, size: int, in_memory: bool) -> None:
    data = os.urandom(size)
    async with budget.body() as body:
        for start in range(0, size, 65536):
            await body.write(data[start : start + 65536])
        assert body.in_memory is in_memory
        assert await whole(body) == data


async def test_a_large_body_is_on_disk_without_a_name_and_reads_again(
    budget: SpoolBudget, tmp_path: Path
) -> None:
    data = os.urandom(3 * MEBIBYTE + 17)
    async with budget.body() as body:
        for start in range(0, len(data), 50_000):
            await body.write(data[start : start + 50_000])
        assert list(tmp_path.iterdir()) == []
        assert 2 * MEBIBYTE < budget.used <= len(data)
        with pytest.raises(ValueError, match="on disk"):
            body.read_small()
        assert await whole(body) == data
        first, second = await asyncio.gather(whole(body, 70_001), whole(body, 1000))
        assert first == second == data
    assert budget.used == 0


async def test_all_bodies_share_one_budget(tmp_path: Path) -> None:
    budget = SpoolBudget(4 * MEBIBYTE, tmp_path)
    first, second = budget.body(), budget.body()
    await first.write(bytes(3 * MEBIBYTE))
    with pytest.raises(GatewayError) as caught:
        await second.write(bytes(2 * MEBIBYTE))
    assert (caught.value.status, caught.value.type, caught.value.reason) == (503, "overloaded", "spool_full")
    assert budget.used == 3 * MEBIBYTE
    first.close()
    first.close()
    assert budget.used == 0
    async with budget.body() as third:
        await third.write(bytes(4 * MEBIBYTE))
    assert budget.used == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
async def test_a_failing_disk_is_overloaded(
    budget: SpoolBudget, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    body = budget.body()
    await body.write(bytes(2 * MEBIBYTE))

    def fail(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(GatewayError) as caught:
        await body.write(bytes(MEBIBYTE))
    assert (caught.value.status, caught.value.reason) == (503, "spool_full")
    assert budget.used == 0
    with pytest.raises(ValueError, match="closed"):
        await body.write(b"x")


async def test_a_missing_folder_is_overloaded(tmp_path: Path) -> None:
    budget = SpoolBudget(16 * MEBIBYTE, tmp_path / "gone")
    async with budget.body() as body:
        with pytest.raises(GatewayError) as caught:
            await body.write(bytes(2 * MEBIBYTE))
    assert caught.value.reason == "spool_full"
    assert budget.used == 0


@pytest.mark.parametrize(("every", "lines"), [(60.0, 1), (0.0, 3)])
async def test_why_the_folder_fails_is_in_the_log_once_in_a_while(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    every: float,
    lines: int,
) -> None:
    monkeypatch.setattr("gateway.spool.LOG_EVERY_SECONDS", every)
    budget = SpoolBudget(16 * MEBIBYTE, tmp_path / "gone")
    for _ in range(3):
        with pytest.raises(GatewayError):
            await budget.body().write(bytes(2 * MEBIBYTE))
    found = [(record.name, vars(record)["reason"], vars(record)["detail"]) for record in caplog.records]
    assert found == [("gateway.spool", "No such file or directory", str(tmp_path / "gone"))] * lines


async def test_short_writes_are_continued(budget: SpoolBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:100_003], offset))
    data = os.urandom(2 * MEBIBYTE)
    async with budget.body() as body:
        await body.write(data)
        assert await whole(body) == data


@pytest.mark.parametrize("answer", [b"", OSError(errno.EIO, "broken")])
async def test_a_file_that_cannot_be_read_back_is_an_error(
    budget: SpoolBudget, monkeypatch: pytest.MonkeyPatch, answer: bytes | OSError
) -> None:
    def read(descriptor: int, count: int, offset: int) -> bytes:
        if isinstance(answer, OSError):
            raise answer
        return answer

    async with budget.body() as body:
        await body.write(bytes(2 * MEBIBYTE))
        monkeypatch.setattr(os, "pread", read)
        monkeypatch.setattr("gateway.spool._NO_WAIT", None)
        with pytest.raises(GatewayError) as caught:
            await whole(body)
    assert caught.value.status == 500


async def test_a_cancelled_write_closes_the_file_only_when_its_thread_is_done(
    budget: SpoolBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    pwrite = os.pwrite
    inodes: list[int] = []

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        begun.set()
        assert go_on.wait(10)
        inodes.append(os.fstat(descriptor).st_ino)  # still the same open file
        written = pwrite(descriptor, data, offset)
        ended.set()
        return written

    monkeypatch.setattr(os, "pwrite", slow)
    body = budget.body()
    writing = asyncio.create_task(body.write(bytes(2 * MEBIBYTE)))
    assert await asyncio.to_thread(begun.wait, 10)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert budget.used == 0
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert len(inodes) == 1
    with pytest.raises(ValueError, match="closed"):
        await body.write(b"x")


async def test_a_closed_body_cannot_be_used(budget: SpoolBudget) -> None:
    body = budget.body()
    await body.write(b"abcdef")
    reading = body.chunks(2)
    assert await anext(reading) == b"ab"
    body.close()
    with pytest.raises(ValueError, match="closed"):
        await anext(reading)
    with pytest.raises(ValueError, match="closed"):
        body.read_small()


async def test_a_body_on_disk_that_is_closed_gives_no_piece_more(budget: SpoolBudget) -> None:
    body = budget.body()
    await body.write(bytes(3 * MEBIBYTE))
    reading = body.chunks()
    assert len(await anext(reading)) == PIECE
    body.close()
    with pytest.raises(ValueError, match="closed"):
        await anext(reading)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What threads were asked for."""
    asked: list[str] = []
    to_thread = asyncio.to_thread

    async def noted(work: Callable[..., Any], *arguments: Any) -> Any:
        asked.append(work.__name__)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    return asked


@pytest.mark.parametrize(("size", "most"), [(PIECE, 32), (65_000, 64)])
async def test_a_thread_writes_several_pieces_in_one_turn(
    budget: SpoolBudget, turns: list[str], size: int, most: int
) -> None:
    data = os.urandom(16 * MEBIBYTE)
    async with budget.body() as body:
        for start in range(0, len(data), size):
            await body.write(data[start : start + size])
        assert set(turns) == {"write_at"}
        assert len(turns) <= most
        assert await whole(body) == data


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system cannot be asked so")
@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([3 * PIECE], 0),  # all of it is in the kernel's memory
        (
            [PIECE, 1000, BlockingIOError(errno.EAGAIN, ""), 3 * PIECE],
            1,
        ),  # some of it has to be read from the disk
        ([OSError(errno.EOPNOTSUPP, "")], 3),  # the file system cannot say, and is not asked again
    ],
)
async def test_only_the_disk_is_read_in_a_thread(
    budget: SpoolBudget,
    turns: list[str],
    monkeypatch: pytest.MonkeyPatch,
    answers: list[int | OSError],
    asked: int,
) -> None:
    given = list(answers)

    def preadv(descriptor: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, OSError):
            raise answer
        found = os.pread(descriptor, min(answer, len(buffers[0])), offset)
        buffers[0][: len(found)] = found
        return len(found)

    data = os.urandom(3 * PIECE)
    async with SpoolBudget(MEBIBYTE, budget.folder, memory_limit=0).body() as body:
        await body.write(data)
        turns.clear()
        monkeypatch.setattr(os, "preadv", preadv)
        assert await whole(body) == data
    assert turns == ["read_at"] * asked


async def test_reading_what_is_in_memory_lets_others_run(budget: SpoolBudget) -> None:
    async with budget.body() as body:
        await body.write(bytes(16 * MEBIBYTE))
        reading = asyncio.create_task(whole(body))
        rounds = 0
        while not reading.done():
            await asyncio.sleep(0)
            rounds += 1
    assert rounds > 60


async def test_large_bodies_take_little_memory(tmp_path: Path) -> None:
    budget = SpoolBudget(256 * MEBIBYTE, tmp_path)
    chunk = os.urandom(64 * 1024)
    total = 0
    tracemalloc.start()
    try:
        async with budget.body() as body:
            for _ in range(64 * 16):
                await body.write(chunk)
            async for part in body.chunks():
                total += len(part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 64 * MEBIBYTE
    assert peak < 8 * MEBIBYTE


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system cannot name such files")
async def test_a_written_body_gets_a_name_at_no_copying(budget: SpoolBudget, tmp_path: Path) -> None:
    data, path = os.urandom(3 * MEBIBYTE + 17), tmp_path / "named"
    body = budget.body()
    for start in range(0, len(data), 50_000):
        await body.write(data[start : start + 50_000])
    reading = body.chunks(50_000)
    begun = [await anext(reading) for _ in range(60)]
    assert await body.link(path)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (data, 0o600)
    assert b"".join(begun + [part async for part in reading]) == data == await whole(body)
    assert budget.used == len(data)
    with pytest.raises(FileExistsError):
        await body.link(path)
    assert budget.used == len(data)
    body.close()
    assert (budget.used, path.read_bytes()) == (0, data)
    path.unlink()


async def test_where_a_body_gets_no_name_it_is_as_before(
    budget: SpoolBudget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = os.urandom(2 * MEBIBYTE + 17), tmp_path / "named"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    async with budget.body() as small:
        await small.write(b"x")
        assert not await small.link(path)
    async with budget.body() as body:
        await body.write(data[:-17])
        await body.write(data[-17:])
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", refuse)
            assert not await body.link(path)
        assert await whole(body) == data
        monkeypatch.setattr("gateway.spool._TMPFILE", None)
        async with SpoolBudget(16 * MEBIBYTE, tmp_path).body() as other:
            await other.write(data)
            assert not await other.link(path)
            assert await whole(other) == data
    assert budget.used == 0
    assert not path.exists()


async def test_without_room_for_its_end_a_body_gets_no_name(tmp_path: Path) -> None:
    budget = SpoolBudget(2 * MEBIBYTE, tmp_path)
    async with budget.body() as body:
        await body.write(bytes(2 * MEBIBYTE))
        await body.write(b"x")
        assert not await body.link(tmp_path / "named")
        assert len(await whole(body)) == 2 * MEBIBYTE + 1


async def test_many_tiny_writes_take_little_memory(budget: SpoolBudget) -> None:
    tracemalloc.start()
    try:
        async with budget.body() as body:
            for _ in range(50_000):
                await body.write(b"x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEBIBYTE // 2


@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.binary(max_size=300), max_size=12),
    memory=st.integers(0, 800),
    piece=st.integers(1, 1000),
)
async def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], memory: int, piece: int
) -> None:
    budget = SpoolBudget(MEBIBYTE, tmp_path_factory.getbasetemp(), memory_limit=memory)
    written = b""
    async with budget.body() as body:
        for chunk in chunks:
            await body.write(chunk)
            written += chunk
            assert await whole(body, piece) == written
        assert body.in_memory is (len(written) <= memory)
    assert budget.used == 0
