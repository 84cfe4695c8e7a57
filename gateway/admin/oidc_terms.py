"""What signing in with a provider is told and what comes of it: values, failures, and the role a group gives. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.access.admin_tokens import Role

LONGEST_NAME = 200
LONGEST_SUBJECT = 255  # the specification's own


class OidcUnavailableError(Exception):
    """Single sign-on is configured, and the extra it needs is not installed."""

    def __init__(self, missing: str) -> None:
        super().__init__(
            f"admin.oidc_issuer is set, but the package '{missing}' is not installed; install pixapi-gateway[oidc]"
        )


class ProviderError(Exception):
    """The provider cannot be asked, or answers what is not OpenID Connect. Nobody's fault who signs in."""


class TokenRefusedError(Exception):
    """What the provider said about this person cannot be believed; the message says why and holds no token."""


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """The client this gateway is at the provider, and which groups may do what."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]
    groups_claim: str
    admin_groups: tuple[str, ...]
    viewer_groups: tuple[str, ...]
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says this is."""

    subject: str
    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What binds a sign-in to its browser and to one answer of the provider."""

    state: str
    nonce: str
    verifier: str


class Provider(Protocol):
    """An OpenID Connect provider. Both verbs raise ProviderError."""

    options: OidcOptions

    async def authorization_url(self, secrets: Secrets) -> str:
        """Where the browser goes."""

    async def identity(self, code: str, secrets: Secrets) -> Identity:
        """Who came back with this code; TokenRefusedError when that cannot be believed."""


def role_of(groups: Sequence[str], options: OidcOptions) -> Role | None:
    """The most these groups may do; None when none of them may do anything."""
    if set(groups) & set(options.admin_groups):
        return "admin"
    return "viewer" if set(groups) & set(options.viewer_groups) else None


def groups_of(claims: Mapping[str, Any], claim: str) -> tuple[str, ...] | None:
    """The groups in a claim: a list of texts, or one. A name with dots leads into objects (`realm_access.roles`).

    None when the claim is not there at all; anything else in it counts for nothing.
    """
    found: Any = claims
    if claim in claims:
        found = claims[claim]
    else:
        for part in claim.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return None
            found = found[part]
    if isinstance(found, str):
        return (found,)
    return tuple(entry for entry in found if isinstance(entry, str)) if isinstance(found, list) else ()


def shown_name(claims: Mapping[str, Any]) -> str:
    """What the pages call this person: name and address, as far as the provider tells them."""
    name, mail = (_text(claims.get(key)) for key in ("name", "email"))
    name = name or _text(claims.get("preferred_username"))
    both = f"{name} <{mail}>" if name and mail else name or mail or _text(claims.get("sub"))
    return both[:LONGEST_NAME]


def _text(value: object) -> str:
    return "".join(sign for sign in value if sign.isprintable()).strip() if isinstance(value, str) else ""
