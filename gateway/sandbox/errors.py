"""Both error shapes Pixapi answers with, as one exception that a handler turns into a reply."""

import secrets

NUMERIC = "numeric"
STRING = "string"

_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    402: "insufficient_credits",
    403: "prompt_rejected",
    404: "model_not_found",
    429: "rate_limited",
    503: "model_unavailable",
}
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class SandboxError(Exception):
    """A refusal: `status` is the HTTP status, `code` the string code, or None for the numeric shape."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code

    def body(self) -> dict[str, object]:
        """The JSON object of the refusal, in the shape this error belongs to."""
        if self.code is None:
            return numeric(self.status, self.message)
        return string(self.code, self.message)


def numeric(status: int, message: str) -> dict[str, object]:
    """The shape of the API reference: `code` is the HTTP status as a number, `type` a word."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"code": status, "message": message, "type": kind}}


def string(code: str, message: str) -> dict[str, object]:
    """The shape of the guides: `code` is a word, and `request_id` starts with `req_`."""
    return {"error": {"code": code, "message": message, "request_id": "req_" + secrets.token_hex(12)}}


def word_for(status: int) -> str:
    """The string code the guides use for a status."""
    return _CODES.get(status, "internal_error" if status >= 500 else "invalid_request")


def invalid(message: str) -> SandboxError:
    """400 in the numeric shape: a field is missing or wrong."""
    return SandboxError(400, message)


def unauthorized() -> SandboxError:
    """401 in the string shape: no key, another form of key, or a revoked one."""
    return SandboxError(401, "Invalid API key.", "unauthorized")


def insufficient_credits() -> SandboxError:
    """402 in the string shape: the account's balance does not cover the call."""
    return SandboxError(402, "Not enough credits for this request.", "insufficient_credits")


def model_not_found(name: str) -> SandboxError:
    """404 in the string shape: nobody, or not this account, has such a model."""
    return SandboxError(404, f"Model '{name}' not found.", "model_not_found")
