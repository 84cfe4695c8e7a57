"""Single sign-on needs an extra: without it the process says so and does not start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.admin.oidc_terms import OidcUnavailableError
from gateway.cli import serve
from gateway.composition import build
from gateway.db import schema
from gateway.settings import Settings, load

CONFIG = Path(__file__).parents[3] / "config"
ENVIRONMENT = {
    "GATEWAY_DATABASE__URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    "GATEWAY_REDIS__URL": "redis://127.0.0.1:1/0",
    "GATEWAY_SECRETS__MASTER_KEYS": "Zk3v9QxT1mB7nR5yW2hL8dC4fJ6gP0sA",
    "GATEWAY_SECRETS__KEY_PEPPER": "uE7iO3aY9tK1pN5rM8wV2xB6zQ4cD0fH",
}
SINGLE_SIGN_ON = {
    "GATEWAY_SERVER__PUBLIC_URL": "https://gateway.example.com",
    "GATEWAY_ADMIN__OIDC_ISSUER": "https://id.example.com",
    "GATEWAY_ADMIN__OIDC_CLIENT_ID": "gateway",
    "GATEWAY_ADMIN__OIDC_CLIENT_SECRET": "short",
    "GATEWAY_ADMIN__OIDC_ADMIN_GROUPS": "ops",
}


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gateway.admin.oidc_provider", "gateway.admin.oidc_tokens"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("authlib", "joserfc")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "authlib", None)
    monkeypatch.setitem(sys.modules, "joserfc", None)


def settings(**more: str) -> Settings:
    return load(CONFIG, {**ENVIRONMENT, **more})


@pytest.mark.usefixtures("without_the_extra")
def test_with_the_settings_it_is_missed() -> None:
    with pytest.raises(OidcUnavailableError, match=r"admin\.oidc_issuer is set.*pixapi-gateway\[oidc\]"):
        build(settings(**SINGLE_SIGN_ON))


@pytest.mark.usefixtures("without_the_extra")
def test_without_them_it_is_not() -> None:
    assert build(settings()).oidc.provider is None


def test_with_both_there_is_a_provider_and_nothing_was_asked_of_it() -> None:
    provider = build(settings(**SINGLE_SIGN_ON)).oidc.provider
    assert provider is not None
    assert provider.options.redirect_uri == "https://gateway.example.com/admin/oidc/callback"


@pytest.mark.usefixtures("without_the_extra")
def test_serve_says_so_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "check", lambda _: None)
    assert serve.serve(settings(**SINGLE_SIGN_ON)) == 2
    assert "pixapi-gateway[oidc]" in capsys.readouterr().err
