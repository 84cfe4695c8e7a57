"""A simulated task: its course through time as a pure function of the clock."""

import os
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import msgspec

from gateway.sandbox.faults import Faults

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SUBMITTED_SHARE = 0.1


@dataclass(slots=True)
class Task:
    """A task and what reads have done to it. Times are Unix seconds, `seconds` the duration at work.

    `files` are the names of the results under /files; `price` is what a clean completion costs.
    """

    id: str
    account: str
    model: str
    category: str
    files: tuple[str, ...]
    price: Decimal
    created: float
    seconds: float
    faults: Faults
    entry_id: int
    reads: int = 0
    terminal_reads: int = 0
    billed: Decimal | None = None

    @property
    def ends_at(self) -> float:
        """The moment the task ends; infinite for a stuck one."""
        return float("inf") if "stuck" in self.faults else self.created + self.seconds

    @property
    def fails(self) -> bool:
        """Whether the task will end as failed."""
        return "task_fail" in self.faults or "fail_with_cost" in self.faults

    def bill(self) -> Decimal:
        """Credits deducted when the task ends: the cost it will state, where that is a possible amount."""
        if "fail_with_cost" in self.faults:
            return Decimal(self.faults.text("fail_with_cost"))
        if self.fails:
            return Decimal(0)
        stated = _amount(self.faults.text("cost"))
        return self.price if stated is None else stated


def new_task_id(now: float) -> str:
    """`task_` and a ULID: 48 bits of milliseconds, 80 random bits, Crockford base 32."""
    number = (int(now * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    return "task_" + "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -5, -5))


def describe(task: Task, now: float, base_url: str, faults: Faults) -> dict[str, object]:
    """The answer to `GET /v1/tasks/{id}` at `now`; counts a terminal read in `task`.

    `faults` are those of the task together with those armed for this read.
    """
    share = progress_share(task, now)
    if share < 1 or "stuck" in faults:
        answer = _at_work(task, share, faults)
    else:
        task.terminal_reads += 1
        answer = _ended(task, base_url, faults)
        if "duplicate_terminal" in faults and task.terminal_reads > 1:
            answer = _contradiction(task)
    if "extra_fields" in faults:
        answer |= {"estimated_time": 100, "progress_detail": {"stage": "render"}, "trace": [None, True, "x"]}
    return answer


def progress_share(task: Task, now: float) -> float:
    """How much of the work is done, 0 to 1. A stuck task creeps towards 0.99."""
    elapsed = max(0.0, now - task.created)
    if "stuck" in task.faults:
        return min(0.99, elapsed / (elapsed + max(task.seconds, 0.001)))
    return 1.0 if now >= task.ends_at else elapsed / task.seconds


def _at_work(task: Task, share: float, faults: Faults) -> dict[str, object]:
    submitted = share < _SUBMITTED_SHARE
    status = "submitted" if submitted else faults.text("odd_status", "processing")
    return {
        "id": task.id,
        "status": status,
        "credits_cost": 0,
        "model": task.model,
        "progress": 0 if submitted else min(99, int(100 * (1 - (1 - share) ** 1.6))),
        "created": int(task.created),
    }


def _ended(task: Task, base_url: str, faults: Faults) -> dict[str, object]:
    failed = "task_fail" in faults or "fail_with_cost" in faults
    answer: dict[str, object] = {"id": task.id, "status": "failed" if failed else "completed"}
    cost = faults.text("cost")
    if cost != "missing":
        answer["credits_cost"] = msgspec.Raw(cost.encode()) if cost else _stated(task, faults)
    answer |= {"model": task.model, "progress": 100}
    if failed:
        code = faults.text("task_fail", "content_policy_violation")
        answer["error"] = {"code": code, "message": f"The task failed: {code}."}
    else:
        answer["result"] = {"type": task.category, "data": _items(task, base_url, faults)}
    ended = task.created if task.ends_at == float("inf") else task.ends_at
    return answer | {"created": int(task.created), "completed": int(ended)}


def _stated(task: Task, faults: Faults) -> Decimal:
    if "fail_with_cost" in faults:
        return Decimal(faults.text("fail_with_cost"))
    return Decimal(0) if "task_fail" in faults else task.bill()


def _items(task: Task, base_url: str, faults: Faults) -> list[dict[str, str]]:
    if "no_url" in faults:
        return [{} for _ in task.files]
    return [{"url": f"{base_url}/files/{name}"} for name in task.files]


def _contradiction(task: Task) -> dict[str, object]:
    return {
        "id": task.id,
        "status": "failed",
        "credits_cost": 0,
        "model": task.model,
        "progress": 100,
        "error": {"code": "service_error", "message": "The task failed: service_error."},
        "created": int(task.created),
        "completed": int(task.ends_at) + 5,
    }


def _amount(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip('"'))
    except InvalidOperation:
        return None
    return value if value.is_finite() and 0 <= value < 1_000_000 else None
