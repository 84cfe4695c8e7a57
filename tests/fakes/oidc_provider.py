"""An OpenID Connect provider on this machine: real HTTP, real keys, and every lie a test asks for.

It lets everybody in who comes with a proper request, and checks what a provider checks: client, redirect, PKCE, and
that a code is used once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT, SECRET = "gateway client", "s3cret of/the:client"
Key = RSAKey | ECKey
Claims = dict[str, Any]


@dataclass
class FakeProvider:
    """What it says; tests change any of it."""

    base: str = ""
    key: Key = field(default_factory=lambda: new_key("first"))
    listed: list[Key] = field(default_factory=list)
    claims: Claims = field(default_factory=dict)  # over the honest ones; None takes one away
    userinfo: Claims | None = None
    sign: Callable[[FakeProvider, Claims], str] | None = None
    down: bool = False
    discovery: Claims = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    codes: dict[str, Claims] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.listed = [self.key]

    def authorize(self, address: str) -> str:
        """What a browser brings back from the provider: the query of the callback."""
        given = dict(parse_qsl(urlsplit(address).query))
        assert address.startswith(f"{self.base}/authorize?")
        assert given["response_type"] == "code"
        assert given["client_id"] == CLIENT
        assert given["code_challenge_method"] == "S256"
        assert "openid" in given["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = given
        return urlencode({"code": code, "state": given["state"], "iss": self.base})

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        honest: Claims = {
            "iss": self.base,
            "sub": "ada-1815",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "name": "Ada Lovelace",
            "email": "ada@example.com",
            "groups": ["platform", "everybody"],
        }
        claims = {name: value for name, value in (honest | self.claims).items() if value is not None}
        return signed(self, claims) if self.sign is None else self.sign(self, claims)

    def answer(self, method: str, path: str, headers: Any, form: Claims) -> tuple[int, Claims]:
        """Status and JSON of one request."""
        self.asked.append(path)
        if self.down:
            return 503, {"error": "down"}
        if path == "/.well-known/openid-configuration":
            own = {
                "issuer": self.base,
                "authorization_endpoint": f"{self.base}/authorize",
                "token_endpoint": f"{self.base}/token",
                "jwks_uri": f"{self.base}/keys",
                "userinfo_endpoint": f"{self.base}/me",
            }
            return 200, own | self.discovery
        if path == "/keys":
            return 200, {"keys": [public(key) for key in self.listed]}
        if path == "/me":
            assert headers["authorization"] == "Bearer access"
            return 200, self.userinfo or {"sub": "ada-1815"}
        assert (method, path) == ("POST", "/token")
        return self._token(headers, form)

    def _token(self, headers: Any, form: Claims) -> tuple[int, Claims]:
        basic = base64.b64decode((headers["authorization"] or "").removeprefix("Basic ")).decode()
        if [unquote_plus(part) for part in basic.split(":")] != [CLIENT, SECRET]:
            return 401, {"error": "invalid_client"}
        given = self.codes.pop(form.get("code", ""), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            given is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != given["redirect_uri"]
            or base64.urlsafe_b64encode(challenge).decode().rstrip("=") != given["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {
            "access_token": "access",
            "token_type": "Bearer",
            "id_token": self.id_token(given["nonce"]),
        }


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}, private=True)


def public(key: Key) -> Claims:
    return dict(key.as_dict(private=False))


def signed(provider: FakeProvider, claims: Claims) -> str:
    """As an honest provider signs."""
    algorithm = "RS256" if isinstance(provider.key, RSAKey) else "ES256"
    return jwt.encode({"alg": algorithm, "kid": provider.key.kid}, claims, provider.key)


def unsigned(_: FakeProvider, claims: Claims) -> str:
    """`alg: none`."""
    return f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{_encoded(claims)}."


def signed_with_the_public_key(provider: FakeProvider, claims: Claims) -> str:
    """HS256 with the text everybody can read: the confusion of a key pair with a shared secret."""
    assert isinstance(provider.key, RSAKey)
    content = f"{_encoded({'alg': 'HS256', 'kid': provider.key.kid})}.{_encoded(claims)}"
    signature = hmac.digest(provider.key.as_pem(private=False), content.encode(), "sha256")
    return f"{content}.{_text(signature)}"


def _encoded(part: Claims) -> str:
    return _text(json.dumps(part).encode())


def _text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def signed_by_another(provider: FakeProvider, claims: Claims) -> str:
    """Under the listed key's name with a key of one's own."""
    return jwt.encode({"alg": "RS256", "kid": provider.key.kid}, claims, new_key("forged"))


@contextmanager
def oidc_provider() -> Iterator[FakeProvider]:
    """Serves one until the block ends."""
    provider = FakeProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(*provider.answer("GET", urlsplit(self.path).path, self.headers, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._reply(*provider.answer("POST", self.path, self.headers, form))

        def _reply(self, status: int, answer: Claims) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
