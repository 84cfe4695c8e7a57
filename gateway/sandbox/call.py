"""One request under /v1 as it is known before its body is read: journal entry, key, account."""

from dataclasses import dataclass

from starlette.requests import Request

from gateway.sandbox.errors import unauthorized
from gateway.sandbox.faults import NO_FAULTS, Faults
from gateway.sandbox.journal import Entry, Key, masked_headers, read_key
from gateway.sandbox.world import Account, World


@dataclass(slots=True)
class Call:
    """What a request has become so far. `token` is the key as sent, for the fault that echoes it."""

    request: Request
    world: World
    entry: Entry
    key: Key
    account: Account
    token: str
    faults: Faults = NO_FAULTS

    @property
    def base_url(self) -> str:
        """What is put before `/files/…` in answers."""
        public = self.world.options.public_url
        if public is not None:
            return public.rstrip("/")
        return f"{self.request.url.scheme}://{self.request.headers.get('host', 'localhost')}"

    def meet(self, marked: Faults, model: str | None) -> None:
        """Collect the faults of this request: those armed for it, then those of its prompt."""
        self.entry.model = model
        self.faults = self.world.take_faults(self.request.url.path, model, self.key) | marked
        self.entry.faults = self.faults.labels()


def open_call(request: Request) -> Call:
    """Write the request to the journal and find its account. Raises SandboxError (401)."""
    world: World = request.app.state.world
    world.bill_ended_tasks()
    line = (request.method, request.url.path, request.url.query)
    entry = world.journal.open(world.clock(), line, masked_headers(request.headers.raw))
    request.state.entry = entry
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    key = read_key(token.strip())
    if key is None or scheme.lower() != "bearer":
        raise unauthorized()
    entry.account, entry.key_last4, entry.key_sha256 = key.account, key.last4, key.sha256
    world.journal.counter(key).requests += 1
    if key.sha256 in world.revoked:
        raise unauthorized()
    return Call(request, world, entry, key, world.account(key.account), token.strip())
