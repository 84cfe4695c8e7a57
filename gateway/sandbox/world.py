"""Everything the sandbox remembers: accounts, revoked keys, tasks, armed faults and the journal."""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from gateway.sandbox.errors import insufficient_credits
from gateway.sandbox.faults import NO_FAULTS, Faults
from gateway.sandbox.journal import Entry, Journal, Key
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.prices import ALIASES
from gateway.sandbox.tasks import Task

TASKS_KEPT = 100_000
PAID_PATHS = frozenset(
    {
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/async/images/generations",
        "/v1/async/images/edits",
        "/v1/async/videos/generations",
    }
)


@dataclass(slots=True)
class Account:
    """One Pixapi account. `credits` is its balance, None without a limit; `models` what it may use, None all."""

    name: str
    credits: Decimal | None = None
    models: frozenset[str] | None = None
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)

    def allows(self, model_id: str) -> bool:
        """Whether this account may use the model with this canonical id."""
        return self.models is None or model_id in self.models


@dataclass(slots=True)
class ArmedFault:
    """Faults waiting for requests. `times` None is for ever; without `path` only paid calls match.

    `path` may hold `*`; `model` is an alias or an id; `key` a SHA-256, an account name or a last four.
    """

    faults: Faults
    times: int | None = 1
    path: str | None = None
    model: str | None = None
    key: str | None = None

    def matches(self, path: str, model: str | None, key: Key | None) -> bool:
        """Whether a request of this path, model and key is one of those waited for."""
        fits_path = path in PAID_PATHS if self.path is None else fnmatchcase(path, self.path)
        if not fits_path or self.times == 0:
            return False
        if self.model is not None and canonical(self.model) != canonical(model):
            return False
        return self.key is None or (key is not None and self.key in (key.sha256, key.account, key.last4))


def canonical(model: str | None) -> str | None:
    """The canonical id of an alias; any other text unchanged."""
    return None if model is None else ALIASES.get(model, model)


class World:
    """The state of one sandbox. Not thread-safe: it belongs to one event loop."""

    def __init__(self, options: SandboxOptions, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget everything, as if just started."""
        self.accounts: dict[str, Account] = {}
        self.revoked: set[str] = set()
        self.tasks: dict[str, Task] = {}
        self.armed: list[ArmedFault] = []
        self.journal = Journal()
        self.executing = 0
        self.most_executing = 0
        self._ending: list[tuple[float, str]] = []
        self._billing: dict[str, tuple[Entry, Key]] = {}

    def account(self, name: str) -> Account:
        """The account of this name, made at first use."""
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = Account(name)
        return found

    def take_faults(self, path: str, model: str | None, key: Key | None) -> Faults:
        """The armed faults this request meets; each match uses up one of its times."""
        taken = NO_FAULTS
        for armed in self.armed:
            if armed.matches(path, model, key):
                taken = taken | armed.faults
                if armed.times is not None:
                    armed.times -= 1
        self.armed = [armed for armed in self.armed if armed.times != 0]
        return taken

    def reserve(self, account: Account, price: Decimal) -> None:
        """Set credits aside before work starts. Raises SandboxError (402) when the balance is too low."""
        if account.credits is not None and account.credits - account.reserved < price:
            raise insufficient_credits()
        account.reserved += price

    def charge(self, account: Account, reserved: Decimal, billed: Decimal) -> None:
        """Give back what was set aside and deduct what the work cost."""
        account.reserved -= reserved
        account.spent += billed
        if account.credits is not None:
            account.credits -= billed

    def record_bill(self, entry: Entry, key: Key, billed: Decimal) -> None:
        """Write a bill to the request that caused it and to its key."""
        entry.credits += billed
        self.journal.counter(key).credits += billed

    def record_execution(self, entry: Entry, key: Key) -> None:
        """Note that the request has really started work."""
        entry.executed = True
        self.journal.counter(key).executions += 1

    def add_task(self, task: Task, entry: Entry, key: Key) -> None:
        """Remember a started task; it is billed to `key` when it ends."""
        self.tasks[task.id] = task
        self._billing[task.id] = (entry, key)
        entry.task_id = task.id
        if len(self.tasks) > TASKS_KEPT:
            self._forget_oldest_task()
        if task.ends_at != float("inf"):
            heapq.heappush(self._ending, (task.ends_at, task.id))

    def bill_ended_tasks(self) -> None:
        """Bill every task whose end has passed. Called before anything is looked at."""
        now = self.clock()
        while self._ending and self._ending[0][0] <= now:
            _, task_id = heapq.heappop(self._ending)
            self._bill(self.tasks[task_id])

    def end_task(self, task: Task) -> None:
        """Let a task end now, whatever its duration; a stuck one too."""
        now = self.clock()
        task.faults = Faults({k: v for k, v in task.faults.values.items() if k != "stuck"})
        if task.ends_at > now:
            task.seconds = now - task.created
        if task.billed is None:
            self._bill(task)

    def _forget_oldest_task(self) -> None:
        """Drop the oldest task that is billed; those at work are always kept."""
        for task_id, task in self.tasks.items():
            if task.billed is not None:
                del self.tasks[task_id]
                return

    def _bill(self, task: Task) -> None:
        if task.billed is not None:
            return
        task.billed = task.bill()
        entry, key = self._billing.pop(task.id)
        self.charge(self.account(task.account), task.price, task.billed)
        self.record_bill(entry, key, task.billed)
