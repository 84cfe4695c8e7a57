"""Sends deliveries to their webhooks. Runs in every process; a row is claimed by one of them at a time.

It speaks to addresses an admin has chosen: no redirect is followed, of an answer only its status is kept, and
connections go to the very addresses that were checked, so no name leads to a link-local or metadata address. A proxy
looks names up itself, though: then it is the proxy that has to refuse what has changed since it was checked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
import urllib.request
from random import Random
from urllib.parse import urlsplit

import httpx

from gateway.alerts import deliveries, messages, webhooks
from gateway.alerts.deliveries import Claimed, Sent
from gateway.db.engine import Database
from gateway.errors import GatewayError
from gateway.pool.vault import Vault, VaultError
from gateway.telemetry import Metrics
from gateway.trust import trusting
from gateway.upstream.transport import Transport

log = logging.getLogger("gateway.alerts")

TIMEOUT_SECONDS = 10.0
CONNECT_SECONDS = 5.0
BATCH = 20
GONE = 410


class Sender:
    """`every` seconds it looks for what is due, and at once when it is woken. `proxy` overrides HTTPS_PROXY."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        metrics: Metrics,
        *,
        every: float = 5.0,
        proxy: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._database = database
        self._vault = vault
        self._metrics = metrics
        self._every = every
        self._proxy = proxy
        self._tls = trusting(ca_file)
        self._random = Random()  # noqa: S311 - spreads load, guards nothing
        self._woken = asyncio.Event()
        self._starting: asyncio.Task[list[asyncio.Task[None]]] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There is something to send."""
        self._woken.set()

    async def run(self) -> None:
        """Sends what is due, for ever; trouble is logged and tried again."""
        while True:
            self._starting = asyncio.create_task(self._start())
            try:
                # Cancelled, what is claimed is still sent and written down, see `close`.
                await asyncio.shield(self._starting)
            except GatewayError as error:
                log.warning("deliveries wait", extra={"reason": error.reason})
            except Exception:
                log.exception("deliveries wait")
            await self._pause()

    async def once(self) -> int:
        """Sends what is due now, as much as may be under way at once, to its end; how many tries that was."""
        started = await self._start()
        await asyncio.gather(*started)
        return len(started)

    async def close(self) -> None:
        """Lets what is being sent end."""
        if self._starting is not None and not self._starting.done():
            await asyncio.wait({self._starting}, timeout=CONNECT_SECONDS)
        if self._sending:
            await asyncio.wait(self._sending, timeout=TIMEOUT_SECONDS + CONNECT_SECONDS)

    async def _start(self) -> list[asyncio.Task[None]]:
        """Claims what there is room for and begins to send it; its ends wake whoever waits for room."""
        room = BATCH - len(self._sending)
        if room <= 0:
            return []
        async with self._database.autocommit() as connection:
            claimed = await deliveries.claim(connection, room)
        started = [asyncio.create_task(self._deliver(one)) for one in claimed]
        for task in started:
            self._sending.add(task)
            task.add_done_callback(self._ended)
        return started

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a delivery's outcome was not written down", exc_info=error)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._every):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    async def _deliver(self, claimed: Claimed) -> None:
        sent = await self._try(claimed)
        self._metrics.alert_deliveries.labels(_outcome(sent)).inc()
        if not sent.delivered:
            log.warning(
                "alert not delivered",
                extra={"detail": f"webhook {claimed.webhook_id}, try {claimed.tries}: {sent.error}"},
            )
        async with self._database.autocommit() as connection:
            await deliveries.conclude(connection, claimed, sent)
        if sent.status == GONE:
            async with self._database.transaction() as connection:
                await webhooks.give_up(connection, claimed.webhook_id, "its receiver answered 410 Gone")

    async def _try(self, claimed: Claimed) -> Sent:
        try:
            secret = self._vault.open(claimed.webhook_id, claimed.secret)
        except VaultError:
            return self._failed(claimed, None, "no master key opens the webhook's secret")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status = await self._post(claimed, secret)
        except TimeoutError:
            return self._failed(claimed, None, f"no answer within {TIMEOUT_SECONDS:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return self._failed(claimed, None, _reason(error))
        if 200 <= status < 300:
            return Sent(delivered=True, status=status)
        # Its words stay there: an address may be one that viewers could not read from themselves.
        return self._failed(claimed, status, f"answered {status}")

    def _failed(self, claimed: Claimed, status: int | None, error: str) -> Sent:
        wait = None if status == GONE else messages.wait_after(claimed.tries, self._random.random())
        return Sent(delivered=False, status=status, error=error, wait=wait)

    async def _post(self, claimed: Claimed, secret: str) -> int:
        """The answer's status."""
        host = urlsplit(claimed.url).hostname or ""
        if messages.is_metadata(host):
            raise ForbiddenAddressError
        headers = messages.headers(claimed.id, secret, claimed.body, int(time.time()))
        proxy = _proxy_for(claimed.url, self._proxy)
        if proxy is not None:
            await self._check_name(host)
        request = httpx.Request(
            "POST",
            claimed.url,
            headers=headers,
            content=claimed.body.encode(),
            extensions={"timeout": {"connect": CONNECT_SECONDS}},
        )
        way = Transport(request.url, self._tls, httpx.URL(proxy) if proxy is not None else None, _check)
        try:
            answer = await way.handle_async_request(request)
            await answer.aclose()
        finally:
            await way.aclose()
        return answer.status_code

    async def _check_name(self, host: str) -> None:
        """A proxy looks names up itself. What is known of them here is checked; some are known to it alone."""
        with contextlib.suppress(socket.gaierror):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            if any(messages.is_metadata(str(address[0])) for *_, address in found):
                raise ForbiddenAddressError


class ForbiddenAddressError(OSError):
    """The webhook's host is, or stands for, an address that is never sent to."""


def _check(address: str) -> None:
    if messages.is_metadata(address):
        raise ForbiddenAddressError


def _outcome(sent: Sent) -> str:
    return "delivered" if sent.delivered else "failed" if sent.wait is None else "retried"


def _reason(error: Exception) -> str:
    """Words of ours: those of the client name addresses, whose paths may be secrets."""
    cause = error.__cause__ or error
    if isinstance(cause, ForbiddenAddressError):
        return "its host is a link-local or metadata address"
    if isinstance(error, httpx.ProxyError):
        return "the proxy did not connect: check upstream.proxy"
    if isinstance(cause, ssl.SSLError):
        return "TLS failed: its certificate is not trusted"
    if isinstance(cause, socket.gaierror):
        return "its name was not found"
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "no connection"
    return f"no usable answer ({type(error).__name__})"


def _proxy_for(url: str, configured: str | None) -> str | None:
    """The proxy on the way to this address: the configured one, else that of the environment; none within NO_PROXY."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies_environment()
    proxy = configured or proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
