"""Whether an ID token is the provider's word for this very sign-in. No I/O.

joserfc checks the signature and Authlib the claims; both come with the extra `oidc`. Which algorithms count is said
here, not by the token: none of them is symmetric, so a public key can never pass for a shared secret.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from gateway.admin.oidc_terms import LONGEST_SUBJECT, OidcOptions, TokenRefusedError

KEY_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
}
LEEWAY = 60  # seconds two clocks may be apart


class UnknownKeyError(TokenRefusedError):
    """No key of the provider's list fits the token: the list may be older than the key."""


def verified(
    token: str,
    keys: Sequence[Mapping[str, Any]],
    options: OidcOptions,
    nonce: str,
    access_token: str | None,
    now: float,
) -> dict[str, Any]:
    """The claims of `token`; TokenRefusedError says what is wrong, UnknownKeyError that its key is not listed."""
    header = _header(token)
    algorithm = str(header.get("alg"))
    if algorithm not in KEY_TYPES:
        raise TokenRefusedError("the ID token is signed by an algorithm that does not count")
    fitting = [key for key in keys if _fits(key, header)]
    if not fitting:
        raise UnknownKeyError("the ID token is signed with a key the provider does not list")
    claims = _signed_claims(token, fitting, algorithm)
    checked = CodeIDToken(
        claims,
        header,
        {
            "iss": {"essential": True, "value": options.issuer},
            "aud": {"essential": True, "value": options.client_id},
        },
        {"nonce": nonce, "client_id": options.client_id, "access_token": access_token},
    )
    try:
        checked.validate(now=int(now), leeway=LEEWAY)
    except (JoseError, TypeError, ValueError) as error:
        raise TokenRefusedError(f"the ID token is not for this sign-in: {_said(error)}") from None
    subject = claims["sub"]
    if not (isinstance(subject, str) and 0 < len(subject) <= LONGEST_SUBJECT and subject.isprintable()):
        raise TokenRefusedError("the ID token names nobody")
    return claims


def _header(token: str) -> dict[str, Any]:
    part = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise TokenRefusedError("the ID token cannot be read")
    return header


def _fits(key: Mapping[str, Any], header: Mapping[str, Any]) -> bool:
    """Whether this may be the key: its type, its use, and its id if the token names one."""
    algorithm = header["alg"]
    return (
        key.get("kty") == KEY_TYPES[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and ("kid" not in header or key.get("kid") == header["kid"])
    )


def _signed_claims(token: str, keys: Sequence[Mapping[str, Any]], algorithm: str) -> dict[str, Any]:
    said = "no key"
    for key in keys:
        try:
            return dict(jwt.decode(token, JWKRegistry.import_key(dict(key)), algorithms=[algorithm]).claims)
        except (JoseError, ValueError) as error:
            said = _said(error)
    raise TokenRefusedError(f"the signature of the ID token is wrong: {said}")


def _said(error: Exception) -> str:
    """What a library says, short; its messages hold names of claims and no values."""
    claim = getattr(error, "claim", None)
    return f"{getattr(error, 'error', type(error).__name__)}{f' ({claim})' if claim else ''}"
