"""Every failure the source can answer, found by reading it: which constructor is called with which reason."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from gateway import errors
from gateway.errors import RETRY_HINT_STATUSES, GatewayError

GATEWAY = Path(errors.__file__).parent
# The sandbox has errors of its own: it imitates Pixapi's.
OUTSIDE = (GATEWAY / "errors.py", GATEWAY / "sandbox")
# Reasons that are put together where they are raised: the expression, and every word it can become.
COMPUTED = {
    ("access/team_keys.py", "f'key_{state}'"): ("key_expired", "key_revoked"),
    ("repeats/shelf.py", "headers['reason']"): ("upstream_outcome_unknown", "upstream_error"),
    ("upstream/outcomes.py", "scrub(error.word or 'rejected_by_pixapi', secret)"): ("rejected_by_pixapi",),
}
# What a constructor needs besides its message and reason, and does not change its row of the table.
FILLERS: dict[str, object] = {"message": "…", "allowed": "GET", "limit": 1, "retry_after": 1.0}

Constructor = Callable[..., GatewayError]


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """One row of docs/errors.md. `retry` is the value of x-should-retry, `–` where the header is not sent."""

    reason: str
    status: str
    type: str
    retry: str


def constructors() -> dict[str, Constructor]:
    """The functions of `gateway.errors` that make a GatewayError, by name."""
    return {
        name: found
        for name, found in vars(errors).items()
        if isinstance(found, FunctionType) and found.__annotations__.get("return") == "GatewayError"
    }


def failures() -> set[Failure]:
    """What every constructor call outside `errors.py` answers."""
    return {failure for path in sources() for failure in _failures_in(path)}


def called() -> set[str]:
    """The constructors that are called anywhere outside `errors.py`, by name."""
    return {made.__name__ for path in sources() for made, _ in _calls(path) if made is not None}


def computed_reasons() -> set[tuple[str, str]]:
    """Reasons that are no plain text: the file below `gateway/` and the expression."""
    found = set()
    for path in sources():
        for _, reason in _calls(path):
            if reason is not None and not isinstance(reason, ast.Constant):
                found.add((str(path.relative_to(GATEWAY)), ast.unparse(reason)))
    return found


def sources() -> Iterator[Path]:
    for path in sorted(GATEWAY.rglob("*.py")):
        if not any(path == out or out in path.parents for out in OUTSIDE):
            yield path


def _failures_in(path: Path) -> Iterator[Failure]:
    for constructor, reason in _calls(path):
        if (
            constructor is None
        ):  # GatewayError itself: what Pixapi said, passed on with its own status and type
            yield Failure("rejected_by_pixapi", "Pixapi's", "Pixapi's", "true on 500 and 503, else false")
            continue
        for word in _words(path, reason):
            yield from _made(constructor, word)


def _calls(path: Path) -> Iterator[tuple[Constructor | None, ast.expr | None]]:
    """Each call of a constructor in a file with its reason, None where the default holds."""
    known = constructors()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = _called(node.func)
        if name == "GatewayError":
            yield None, node.args[2]
        elif name in known:
            yield known[name], _argument(node, known[name], "reason")


def _called(function: ast.expr) -> str | None:
    """`errors.bad_request(…)` and `bad_request(…)` alike; None for methods of anything else."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr if function.value.id == "errors" else None
    return function.id if isinstance(function, ast.Name) else None


def _argument(call: ast.Call, constructor: Constructor, name: str) -> ast.expr | None:
    names = list(inspect.signature(constructor).parameters)
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    position = names.index(name) if name in names else len(call.args)
    return call.args[position] if position < len(call.args) else None


def _words(path: Path, reason: ast.expr | None) -> tuple[str | None, ...]:
    if reason is None:
        return (None,)
    if isinstance(reason, ast.Constant):
        return (str(reason.value),)
    return COMPUTED.get((str(path.relative_to(GATEWAY)), ast.unparse(reason)), ())


def _made(constructor: Constructor, reason: str | None) -> Iterator[Failure]:
    """What the constructor makes; of one that tells time-outs apart, both."""
    needed = inspect.signature(constructor).parameters
    arguments = {name: FILLERS[name] for name in needed if name in FILLERS}
    if reason is not None:
        arguments["reason"] = reason
    for timed_out in (False, True) if "timed_out" in needed else (None,):
        more = {} if timed_out is None else {"timed_out": timed_out}
        error = constructor(**arguments, **more)
        hinted = error.status in RETRY_HINT_STATUSES
        retry = str(error.retry).lower() if hinted else "–"
        yield Failure(error.reason, str(error.status), error.type, retry)
