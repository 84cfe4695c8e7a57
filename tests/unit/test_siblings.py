"""Workers that ask each other for their pages."""

from __future__ import annotations

import asyncio
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.access.admin_tokens import AdminTokens
from gateway.endpoints.health import Exposition
from gateway.proxy.exchange import Exchange, begin
from gateway.server.serve import LONGEST_PLACE, meeting_place
from gateway.siblings import SEAT, Seat, Siblings, seat_in
from gateway.telemetry import Metrics


def page_of(number: int) -> Callable[[], bytes]:
    return lambda: f"# HELP x X.\n# TYPE x counter\nx_total {number}.0\n".encode()


@asynccontextmanager
async def workers(folder: Path, count: int) -> AsyncIterator[list[Siblings]]:
    found = [Siblings(Seat(number, count, folder)) for number in range(count)]
    for number, one in enumerate(found):
        await one.open(page_of(number))
    yield found
    for one in found:
        await one.close()


async def test_each_gets_the_pages_of_all_others(tmp_path: Path) -> None:
    async with workers(tmp_path, 3) as found:
        assert await found[1].pages() == {0: page_of(0)(), 2: page_of(2)()}
        large = b"y 1\n" * 500_000
        replaced = Siblings(Seat(0, 3, tmp_path))  # its socket is in the way
        await replaced.open(lambda: large)
        assert (await found[1].pages())[0] == large
        await replaced.close()


async def test_who_is_silent_costs_half_a_second_and_is_left_out(tmp_path: Path) -> None:
    async with workers(tmp_path, 2) as found:
        seat = Seat(2, 4, tmp_path)
        stuck = socket.socket(socket.AF_UNIX)
        stuck.bind(seat.socket(2))
        stuck.listen()
        asked = Siblings(Seat(3, 4, tmp_path))
        began = time.monotonic()
        assert sorted(await asked.pages()) == [0, 1]
        assert 0.4 < time.monotonic() - began < 2
        stuck.close()
        await found[0].close()
        await found[1].close()
        Path(seat.socket(0)).unlink(missing_ok=True)
        assert await Siblings(Seat(4, 5, tmp_path)).pages() == {}


async def test_without_a_seat_there_is_nobody(tmp_path: Path) -> None:
    alone = Siblings()
    await alone.open(page_of(0))
    assert await alone.pages() == {}
    await alone.close()


async def test_a_folder_that_is_gone_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lost = Siblings(Seat(0, 2, tmp_path / "gone"))
    await lost.open(page_of(0))
    assert await lost.pages() == {}
    await lost.close()
    assert [record.getMessage() for record in caplog.records] == ["workers cannot meet"]


async def test_the_page_for_prometheus_is_of_all_and_says_who_is_silent(tmp_path: Path) -> None:
    async with workers(tmp_path, 2) as found:
        assert samples(await answer(exposition_of(found[0]))) == {
            ("x_total", "0", None): 0.0,
            ("x_total", "1", None): 1.0,
            ("gateway_workers", None, "answered"): 2.0,
            ("gateway_workers", None, "silent"): 0.0,
        }
        await found[1].close()
        await asyncio.sleep(0)
        Path(Seat(0, 2, tmp_path).socket(1)).unlink(missing_ok=True)
        after = samples(await answer(exposition_of(found[0])))
        assert after[("gateway_workers", None, "silent")] == 1.0
        assert ("x_total", "1", None) not in after
    single = samples(await answer(exposition_of(Siblings())))
    assert single[("x_total", None, None)] == 0.0
    assert single[("gateway_workers", None, "answered")] == 1.0


def exposition_of(siblings: Siblings) -> Exposition:
    return Exposition(
        Metrics(),
        page_of(0),
        siblings,
        public=True,
        token=None,
        admin_tokens=AdminTokens.__new__(AdminTokens),
    )


async def answer(exposition: Exposition) -> str:
    sent: list[bytes] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message.get("body", b""))

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope: dict[str, object] = {"type": "http", "method": "GET"}
    begin(scope, Exchange(request_id="r", started=0.0, client=None, headers=()))
    await exposition(scope, receive, send)
    return b"".join(sent).decode()


def samples(text: str) -> dict[tuple[str, str | None, str | None], float]:
    return {
        (sample.name, sample.labels.get("worker"), sample.labels.get("state")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_seat_is_what_the_server_says() -> None:
    assert seat_in({}) is None
    assert seat_in({SEAT: "1:3:/tmp/a:b"}) == Seat(1, 3, Path("/tmp/a:b"))


def test_only_their_user_may_enter_where_they_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * LONGEST_PLACE) / ("e" * LONGEST_PLACE)
    deep.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with meeting_place() as folder:
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert len(Seat(9, 10, Path(folder)).socket(9)) < 100
    assert not Path(folder).exists()
