"""An OpenID Connect provider: its discovery document and keys, see oidc_documents; codes exchanged for who it is.

Nothing of it is asked at the start, and a provider that is down stops nothing but signing in with it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote_plus, urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from gateway.admin.oidc_documents import Documents, checked_discovery, checked_keys
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


class OidcProvider:
    """The provider of `options.issuer`."""

    def __init__(self, options: OidcOptions, http: ProviderHttp, clock: Clock) -> None:
        self.options = options
        self._http = http
        self._clock = clock
        self._documents = Documents(http.get, clock)

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
            keys = await self._documents.get(jwks_uri, checked_keys, again=again)
            listed = [key for key in keys["keys"] if isinstance(key, dict)]
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
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        return await self._documents.get(url, partial(checked_discovery, issuer))
