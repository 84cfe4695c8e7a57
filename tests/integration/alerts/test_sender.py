"""Messages to a real receiver: signed, tried again, shared by processes, and never to where they must not go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from gateway.alerts import deliveries, webhooks
from gateway.errors import GatewayError
from tests.fakes.receiver import Receiver, receiving
from tests.integration.alerts.conftest import Alerting


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


async def _crossing(alerting: Alerting) -> None:
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    assert await alerting.one.kinds() == (["quota_threshold"], [])


async def _due_now(alerting: Alerting) -> None:
    await alerting.run("UPDATE alert_deliveries SET next_try_at = now(), leased_until = NULL")


async def test_a_message_is_signed_and_says_what_happened(alerting: Alerting, receiver: Receiver) -> None:
    _, secret = await alerting.webhook(receiver.url)
    await _crossing(alerting)
    assert await alerting.one.sender.once() == 1
    [message] = receiver.messages
    assert message.is_signed_with(secret)
    assert not message.is_signed_with("whsec_" + "A" * 44)
    [alert], [delivery] = await alerting.alerts(), await alerting.deliveries()
    assert message.id == delivery.message_id
    assert message.json["type"] == "alert.raised"
    assert message.json["data"] == deliveries.data_of(alert)
    assert (delivery.state, delivery.tries, delivery.last_status) == ("delivered", 1, 200)
    assert delivery.delivered_at is not None
    assert await alerting.one.sender.once() == 0


async def test_slack_gets_text(alerting: Alerting, receiver: Receiver) -> None:
    await alerting.webhook(receiver.url, format_="slack")
    await _crossing(alerting)
    await alerting.one.sender.once()
    [message] = receiver.messages
    assert message.json["text"].startswith("[info] quota_threshold: Team a-")


async def test_many_processes_send_each_message_once(alerting: Alerting, receiver: Receiver) -> None:
    for _ in range(30):
        await alerting.webhook(receiver.url)
    await _crossing(alerting)
    sent = 0
    while found := await asyncio.gather(*(one.sender.once() for one in (alerting.one, alerting.other) * 2)):
        sent += sum(found)
        if not any(found):
            break
    assert sent == 30
    assert len({message.id for message in receiver.messages}) == len(receiver.messages) == 30


async def test_a_failed_try_is_repeated_under_the_same_id_and_gives_up_in_the_end(
    alerting: Alerting, receiver: Receiver
) -> None:
    _, secret = await alerting.webhook(receiver.url)
    receiver.usual, receiver.text = 500, f"broken: {secret} " + "x" * 600
    await _crossing(alerting)
    for number in range(1, 9):
        assert await alerting.one.sender.once() == 1
        [delivery] = await alerting.deliveries()
        assert (delivery.tries, delivery.last_status) == (number, 500)
        assert delivery.state == ("pending" if number < 8 else "failed")
        if number == 1:
            assert await alerting.one.sender.once() == 0, "not before its time"
            wait = (delivery.next_try_at - (delivery.last_tried_at or delivery.next_try_at)).total_seconds()
            assert 4 <= wait <= 6
        await _due_now(alerting)
    assert await alerting.one.sender.once() == 0
    assert delivery.last_error == "answered 500", "viewers see it: none of the receiver's words"
    assert len({(message.id, message.body) for message in receiver.messages}) == 1
    receiver.usual = 200
    async with alerting.database.transaction() as connection:
        again = await deliveries.redeliver(connection, "test", str(delivery.id))
    assert (again.state, again.tries) == ("pending", 0)
    assert await alerting.one.sender.once() == 1
    assert [message.id for message in receiver.accepted] == [delivery.message_id]


async def test_what_a_killed_process_had_claimed_is_sent_by_another(
    alerting: Alerting, receiver: Receiver
) -> None:
    await alerting.webhook(receiver.url)
    await _crossing(alerting)
    async with alerting.database.autocommit() as connection:
        [claimed] = await deliveries.claim(connection, 10)
    assert await alerting.other.sender.once() == 0
    await alerting.run("UPDATE alert_deliveries SET leased_until = now() - interval '1 second'")
    assert await alerting.other.sender.once() == 1
    [message], [delivery] = receiver.messages, await alerting.deliveries()
    assert message.id == delivery.message_id
    assert (delivery.id, delivery.tries) == (claimed.id, 2)
    async with alerting.database.autocommit() as connection:
        assert not await deliveries.conclude(connection, claimed, deliveries.Sent(delivered=False)), (
            "too late"
        )


async def test_gone_disables_the_webhook(alerting: Alerting, receiver: Receiver) -> None:
    webhook, _ = await alerting.webhook(receiver.url)
    receiver.answers = [410]
    await _crossing(alerting)
    await alerting.one.sender.once()
    async with alerting.database.transaction() as connection:
        found = await webhooks.find(connection, str(webhook.id))
        assert (found.enabled, found.disabled_reason) == (False, "its receiver answered 410 Gone")
        with pytest.raises(GatewayError, match="webhook_disabled"):
            await deliveries.enqueue_test(connection, "test", str(webhook.id))
    [delivery] = await alerting.deliveries()
    assert (delivery.state, delivery.tries, delivery.last_status) == ("failed", 1, 410)
    [entry] = await alerting.run("SELECT * FROM audit_entries WHERE action = 'webhook.disable'")
    assert (entry.actor, entry.subject_id) == ("gateway", str(webhook.id))
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    await alerting.one.judge()
    assert len(await alerting.deliveries()) == 1, "nothing is made for it any more"


async def test_disabled_it_gives_up_what_waits(alerting: Alerting, receiver: Receiver) -> None:
    webhook, _ = await alerting.webhook(receiver.url)
    await _crossing(alerting)
    async with alerting.database.transaction() as connection:
        await webhooks.update(connection, "test", str(webhook.id), {"enabled": False})
    assert await alerting.one.sender.once() == 0
    [delivery] = await alerting.deliveries()
    assert (delivery.state, delivery.last_error) == ("failed", webhooks.GIVEN_UP)


async def test_redirects_are_not_followed(alerting: Alerting, receiver: Receiver) -> None:
    await alerting.webhook(receiver.url)
    with receiving() as elsewhere:
        receiver.usual, receiver.location = 307, elsewhere.url
        await _crossing(alerting)
        await alerting.one.sender.once()
        assert elsewhere.messages == []
    [delivery] = await alerting.deliveries()
    assert (delivery.state, delivery.last_status, delivery.last_error) == ("pending", 307, "answered 307")


async def test_link_local_addresses_are_refused_by_number_and_by_name(
    alerting: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alerting.webhook("http://169.254.169.254/latest")
    await alerting.webhook("http://metadata.example.com/latest")
    await alerting.webhook("http://0xa9fea9fe/latest")

    look_up = asyncio.get_running_loop().getaddrinfo

    async def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        if host != "metadata.example.com":
            return await look_up(host, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("urllib.request.getproxies_environment", dict)
    await _crossing(alerting)
    assert await alerting.one.sender.once() == 3
    found = {one.last_error for one in await alerting.deliveries()}
    assert found == {"its host is a link-local or metadata address"}


async def test_a_name_is_checked_before_a_proxy_is_asked(
    alerting: Alerting, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alerting.webhook("http://metadata.example.com/latest")
    await alerting.webhook("http://known-to-the-proxy.example.com/hook")

    async def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host.startswith("known"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("64:ff9b::a9fe:a9fe", 0, 0, 0))]

    sender = alerting.one.sender
    monkeypatch.setattr(sender, "_proxy", receiver.url.removesuffix("/hook"))
    monkeypatch.setattr("urllib.request.getproxies_environment", dict)
    check = sender._check_name

    async def checked(host: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
            await check(host)

    monkeypatch.setattr(sender, "_check_name", checked)
    await _crossing(alerting)
    assert await sender.once() == 2
    assert [message.path for message in receiver.messages] == ["http://known-to-the-proxy.example.com/hook"]
    found = {one.last_error for one in await alerting.deliveries()}
    assert found == {"its host is a link-local or metadata address", None}


async def test_a_receiver_that_hangs_holds_up_none_but_its_own(
    alerting: Alerting, receiver: Receiver
) -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hanging.append(writer)

    hanging: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    slow, _ = await alerting.webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    good, _ = await alerting.webhook(receiver.url)
    async with alerting.database.transaction() as connection:
        for _ in range(25):
            await deliveries.enqueue_test(connection, "test", str(slow.id))
        for _ in range(5):
            await deliveries.enqueue_test(connection, "test", str(good.id))
    sender = alerting.one.sender
    loop = asyncio.create_task(sender.run())
    try:
        async with asyncio.timeout(4):
            while len(receiver.messages) < 5:
                await asyncio.sleep(0.01)
        assert len(hanging) == deliveries.SHARE
    finally:
        loop.cancel()
        for writer in hanging:
            writer.close()
        await asyncio.wait([loop])
        await sender.close()
        server.close()
    assert len(sender._sending) == 0


async def test_errors_name_no_address(alerting: Alerting) -> None:
    await alerting.webhook("http://127.0.0.1:1/services/very-secret")
    await _crossing(alerting)
    await alerting.one.sender.once()
    [delivery] = await alerting.deliveries()
    assert (delivery.state, delivery.last_status, delivery.last_error) == ("pending", None, "no connection")


async def test_a_secret_that_cannot_be_opened_is_said(alerting: Alerting, receiver: Receiver) -> None:
    one, _ = await alerting.webhook(receiver.url)
    other, _ = await alerting.webhook(receiver.url)
    await alerting.run(
        "UPDATE webhooks w SET secret = o.secret FROM webhooks o WHERE w.id = :one AND o.id = :other",
        one=one.id,
        other=other.id,
    )
    await _crossing(alerting)
    await alerting.one.sender.once()
    errors: dict[UUID, str | None] = {
        found.webhook_id: found.last_error for found in await alerting.deliveries()
    }
    assert errors == {one.id: "no master key opens the webhook's secret", other.id: None}
    assert len(receiver.messages) == 1


async def test_woken_it_sends_at_once_and_closing_lets_a_send_end(
    alerting: Alerting, receiver: Receiver
) -> None:
    await alerting.webhook(receiver.url)
    sender = alerting.one.sender
    loop = asyncio.create_task(sender.run())
    try:
        await asyncio.sleep(0.1)
        await _crossing(alerting)
        sender.wake()
        async with asyncio.timeout(3):
            while not receiver.messages:
                await asyncio.sleep(0.01)
    finally:
        loop.cancel()
        await asyncio.wait([loop])
        await sender.close()
    [delivery] = await alerting.deliveries()
    assert delivery.state == "delivered"
