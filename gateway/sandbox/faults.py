"""The catalogue of faults a prompt or the control API can ask for, and how a marker is read."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the catalogue.

    `value` says what may follow the `=`: empty for nothing, a word in brackets when it may be left out.
    `where`: `answer` faults change one HTTP answer, `task` faults a task and its reads, `both` what is delivered.
    """

    name: str
    value: str
    where: str
    summary: str

    @property
    def label(self) -> str:
        """`name`, `name=VALUE`, or `name[=VALUE]` when the value may be left out."""
        if self.value.startswith("["):
            return f"{self.name}[={self.value[1:-1]}]"
        return f"{self.name}={self.value}" if self.value else self.name


CATALOGUE: tuple[Fault, ...] = (
    Fault(
        "delay", "SECONDS", "answer", "wait before doing anything else (real seconds, not scaled by speed)"
    ),
    Fault("status", "CODE", "answer", "refuse with this status; nothing is executed"),
    Fault("shape", "WORD", "answer", "body of an error status: string, numeric, html or none"),
    Fault("retry_after", "TEXT", "answer", "add Retry-After to an error status"),
    Fault("echo_key", "[CODE]", "answer", "refuse (400) with a message that contains the key used"),
    Fault("html", "", "answer", "200 with an HTML page; nothing is executed"),
    Fault("redirect", "[CODE]", "answer", "307 to /v1/moved; nothing is executed"),
    Fault("reset", "", "answer", "TCP reset before answering; nothing is executed"),
    Fault("hang", "[SECONDS]", "answer", "accept and never answer (closes after 700 s); nothing is executed"),
    Fault("reset_after_execute", "", "answer", "execute, bill, then TCP reset instead of an answer"),
    Fault("hang_after_execute", "[SECONDS]", "answer", "execute, bill, then never answer"),
    Fault("executes_then_500", "[CODE]", "answer", "execute, bill, then answer 500"),
    Fault("empty_204", "", "answer", "execute, bill, then 204 without a body"),
    Fault("no_data", "", "answer", "execute, bill, then JSON without data, result and id"),
    Fault("bad_json", "", "answer", "execute, bill, then 200 with JSON that stops midway"),
    Fault("half_body", "", "answer", "execute, bill, then close in order after half of the promised body"),
    Fault("cut", "", "answer", "execute, bill, then TCP reset after half of the promised body"),
    Fault("drip", "SECONDS", "answer", "the body arrives in small pieces over this time"),
    Fault("big", "MEGABYTES", "answer", "answer a b64_json of this many megabytes, streamed"),
    Fault("gzip", "", "answer", "the body is gzip encoded, asked for or not"),
    Fault("set_cookie", "", "answer", "two Set-Cookie headers on the answer"),
    Fault("hop_headers", "", "answer", "hop-by-hop headers on the answer: Connection: X-Up, Keep-Alive, …"),
    Fault("data_empty", "", "both", "completes with an empty data list and bills nothing"),
    Fault("fewer_images", "[COUNT]", "both", "delivers and bills COUNT images (one less than asked)"),
    Fault("duration", "SECONDS", "task", "the task takes this long (real seconds, not scaled by speed)"),
    Fault("stuck", "", "task", "the task never ends"),
    Fault("task_fail", "[CODE]", "task", "the task fails with this error code (content_policy_violation)"),
    Fault("fail_with_cost", "CREDITS", "task", "the task fails and bills this much"),
    Fault("cost", "JSON", "task", 'raw text of credits_cost: null, -1, NaN, "1.5", 1e400, 0.5; or missing'),
    Fault("no_url", "", "task", "the task completes with items that have no url"),
    Fault("odd_status", "WORD", "task", "the status says WORD while the task is at work"),
    Fault("extra_fields", "", "task", "task reads carry fields the reference does not know"),
    Fault(
        "duplicate_terminal", "", "task", "from the second terminal read on: failed, cost 0, later completed"
    ),
    Fault("poll_404_first", "COUNT", "task", "the first COUNT reads answer 404"),
    Fault("poll_status", "CODE[:COUNT]", "task", "the first COUNT reads (all) answer this status"),
    Fault("poll_hang", "[COUNT]", "task", "the first COUNT reads (all) are never answered"),
)

BY_NAME: Mapping[str, Fault] = {fault.name: fault for fault in CATALOGUE}
SHAPES = ("string", "numeric", "html", "none")
_MARKER = re.compile(r"\[fault:([^\]]*)\]")
_STATUS = re.compile(r"[2-5][0-9][0-9]")
_POLL_STATUS = re.compile(r"[2-5][0-9][0-9](:[0-9]{1,6})?")
_MAX_NUMBER = 100_000.0


class UnknownFaultError(ValueError):
    """A marker names no fault of the catalogue, or gives it a value it cannot have."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults asked for, by name, with the raw text of their values (empty when none was given)."""

    values: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __or__(self, other: "Faults") -> "Faults":
        """Both together; where they name the same fault, the right one wins."""
        return Faults({**self.values, **other.values})

    def text(self, name: str, default: str = "") -> str:
        """The value of a fault, or `default` when it is not asked for or has no value."""
        return self.values.get(name) or default

    def number(self, name: str, default: float = 0.0) -> float:
        """The value of a fault as a number (checked when the marker was read)."""
        return float(self.values.get(name) or default)

    def labels(self) -> list[str]:
        """`name` or `name=value` of each, as the journal shows them."""
        return [f"{name}={value}" if value else name for name, value in self.values.items()]


NO_FAULTS = Faults()


def read_prompt(prompt: str) -> Faults:
    """Every `[fault:NAME]`, `[fault:NAME=VALUE]` and `[fault:A B=1]` of a prompt. Raises UnknownFaultError."""
    if "[fault:" not in prompt:
        return NO_FAULTS
    return collect(piece for marker in _MARKER.findall(prompt) for piece in marker.split())


def collect(pieces: Iterable[str]) -> Faults:
    """Faults from pieces of the form `NAME` or `NAME=VALUE`. Raises UnknownFaultError."""
    values: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.partition("=")
        _check(name, value)
        values[name] = value
    return Faults(values)


def _check(name: str, value: str) -> None:
    fault = BY_NAME.get(name)
    if fault is None:
        raise UnknownFaultError(f"Unknown fault '{name}'.")
    if not value:
        if fault.value and not fault.value.startswith("["):
            raise UnknownFaultError(f"Fault '{name}' needs a value: {name}={fault.value}.")
        return
    if not _fits(fault, value):
        raise UnknownFaultError(f"Fault '{name}' cannot have the value '{value}'.")


def _fits(fault: Fault, value: str) -> bool:
    if fault.name == "shape":
        return value in SHAPES
    if fault.name == "poll_status":
        return _POLL_STATUS.fullmatch(value) is not None
    kind = fault.value.strip("[]")
    if not kind:
        return False
    if kind == "CODE" and fault.name != "task_fail":
        return _STATUS.fullmatch(value) is not None
    if kind == "COUNT":
        return value.isascii() and value.isdigit() and len(value) < 6
    if kind in ("SECONDS", "MEGABYTES", "CREDITS"):
        return _is_number(value)
    return True


def _is_number(value: str) -> bool:
    try:
        number = float(value)
    except ValueError:
        return False
    return math.isfinite(number) and 0 <= number <= _MAX_NUMBER


def help_text() -> str:
    """The catalogue as lines of plain text, for a command's help."""
    lines = ["Faults: put [fault:NAME] or [fault:NAME=VALUE] into a prompt, or POST /sandbox/faults.", ""]
    lines += [f"  {fault.label:<28} {fault.summary}" for fault in CATALOGUE]
    return "\n".join(lines)
