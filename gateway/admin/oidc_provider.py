"""An OpenID Connect provider: its discovery document and keys, kept for an hour; codes exchanged for who it is.

Nothing of it is asked at the start, and a provider that is down stops nothing but signing in with it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from gateway.admin.oidc_http import ProviderHttp
from gateway.admin.oidc_terms import (
    Identity,
    OidcOptions,
    ProviderError,
    Secrets,
    TokenRefusedError,
    groups_of,
    shown_name,
)
from gateway.admin.oidc_tokens import UnknownKeyError, verified
from gateway.clock import Clock

KEPT_SECONDS = 3600.0
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class OidcProvider:
    """The provider of `options.issuer`."""

    def __init__(self, options: OidcOptions, http: ProviderHttp, clock: Clock) -> None:
        self.options = options
        self._http = http
        self._clock = clock
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._asking = asyncio.Lock()

    async def authorization_url(self, secrets: Secrets) -> str:
        """Where the browser goes, with PKCE's challenge."""
        options, address = self.options, (await self._discovered())["authorization_endpoint"]
        query = urlencode(
            {
                "response_type": "code",
                "client_id": options.client_id,
                "redirect_uri": options.redirect_uri,
                "scope": " ".join(options.scopes),
                "state": secrets.state,
                "nonce": secrets.nonce,
                "code_challenge": create_s256_code_challenge(secrets.verifier),
                "code_challenge_method": "S256",
            }
        )
        return f"{address}{'&' if '?' in address else '?'}{query}"

    async def identity(self, code: str, secrets: Secrets) -> Identity:
        """Who this code stands for; its groups from the ID token, else from the userinfo endpoint."""
        found = await self._discovered()
        tokens = await self._exchange(found, code, secrets)
        token, access = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(token, str):
            raise TokenRefusedError("the provider answered no ID token")
        access = access if isinstance(access, str) else None
        claims = await self._claims(found["jwks_uri"], token, secrets.nonce, access)
        groups = groups_of(claims, self.options.groups_claim)
        if groups is None and access is not None and isinstance(found.get("userinfo_endpoint"), str):
            told = await self._http.get(found["userinfo_endpoint"], access)
            if told.get("sub") != claims["sub"]:
                raise TokenRefusedError("the userinfo is about somebody else")
            claims, groups = {**told, **claims}, groups_of(told, self.options.groups_claim)
        return Identity(claims["sub"], shown_name(claims), groups or ())

    async def _claims(self, jwks_uri: str, token: str, nonce: str, access: str | None) -> dict[str, Any]:
        """The token's claims; keys that do not hold its own are read once more, since providers replace them."""
        for again in (False, True):
            keys = await self._document(jwks_uri, again=again)
            listed = [key for key in keys.get("keys", ()) if isinstance(key, dict)]
            try:
                return verified(token, listed, self.options, nonce, access, self._clock.now().timestamp())
            except UnknownKeyError:
                if again:
                    raise
        raise AssertionError("unreachable")

    async def _exchange(self, found: Mapping[str, Any], code: str, secrets: Secrets) -> dict[str, Any]:
        options = self.options
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": options.redirect_uri,
            "code_verifier": secrets.verifier,
        }
        headers: dict[str, str] = {}
        methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            pair = f"{quote_plus(options.client_id)}:{quote_plus(options.client_secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            fields |= {"client_id": options.client_id, "client_secret": options.client_secret}
        status, answer = await self._http.post(found["token_endpoint"], fields, headers)
        if status == 200:
            return answer
        word = str(answer.get("error"))[:60]
        if word in ("invalid_client", "unauthorized_client"):
            raise ProviderError(f"the provider does not know this client ({word}): see admin.oidc_client_id")
        raise TokenRefusedError(f"the provider refused the code: {word}")

    async def _discovered(self) -> dict[str, Any]:
        issuer = self.options.issuer
        found = await self._document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise ProviderError(
                f"the discovery document is not that of {issuer}: admin.oidc_issuer must be its 'issuer'"
            )
        for name in ENDPOINTS:
            parts = urlsplit(found[name]) if isinstance(found.get(name), str) else None
            if parts is None or not parts.hostname or parts.scheme not in ("https", urlsplit(issuer).scheme):
                raise ProviderError(f"the discovery document has no usable {name}")
        return found

    async def _document(self, url: str, *, again: bool = False) -> dict[str, Any]:
        """A document of the provider, at most an hour old; older while it cannot be asked. One look at a time."""
        async with self._asking:
            read, kept = self._kept.get(url, (0.0, None))
            if kept is not None and not again and self._clock.monotonic() < read + KEPT_SECONDS:
                return kept
            try:
                found = await self._http.get(url)
            except ProviderError:
                if kept is None or again:
                    raise
                return kept
            self._kept[url] = (self._clock.monotonic(), found)
            return found
