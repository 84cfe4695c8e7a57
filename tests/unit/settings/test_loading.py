"""Precedence, defaults, all problems at once, and what is shown."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.settings import Problem, Settings, SettingsError, load, masked
from gateway.settings.model import FIELDS, environment_name
from gateway.settings.secrets import MASK

Load = Callable[..., Settings]
Problems = Callable[..., list[Problem]]

CONTRACT = {
    "server": "host port workers public_url allowed_hosts trusted_proxies keep_alive max_paid_in_flight "
    "drain_seconds drain_min_seconds header_timeout body_idle_timeout max_json_bytes max_multipart_bytes "
    "max_file_bytes max_files max_fields spool_dir spool_max_bytes",
    "database": "url pool_size pool_wait statement_timeout lock_timeout",
    "redis": "url connect_timeout timeout breaker_failures breaker_seconds",
    "upstream": "base_url proxy ca_file max_connections connect_timeout pool_wait sync_timeout submit_timeout "
    "read_timeout reads_per_second",
    "cache": "principal task_unfinished task_finished models_fresh models_stale",
    "credits": "unpriced default_hold task_max_age settle_unknown_after",
    "repeats": "idempotency_retention join join_window",
    "secrets": "master_keys key_pepper",
    "admin": "bootstrap_token session_idle session_absolute oidc_issuer oidc_client_id oidc_client_secret oidc_scopes "
    "oidc_groups_claim oidc_admin_groups oidc_viewer_groups oidc_ca_file",
    "metrics": "public token",
    "tracing": "endpoint sample",
    "alerts": "every quota_thresholds",
    "log": "level format",
}


def test_sections_and_fields_are_exactly_the_fixed_ones() -> None:
    fixed = {f"{section}.{name}" for section, names in CONTRACT.items() for name in names.split()}
    assert set(FIELDS) == fixed


def test_defaults(load_with: Load, tmp_path: Path) -> None:
    settings = load_with()
    shown = masked(settings)
    assert settings.config_dir == tmp_path
    assert settings.warnings == ()
    assert shown["server"] == {
        "host": "127.0.0.1",
        "port": 8080,
        "workers": 1,
        "public_url": None,
        "allowed_hosts": [],
        "trusted_proxies": [],
        "keep_alive": 75,
        "max_paid_in_flight": 1000,
        "drain_seconds": 620,
        "drain_min_seconds": 0,
        "header_timeout": 10,
        "body_idle_timeout": 30,
        "max_json_bytes": 2 * 1024**2,
        "max_multipart_bytes": 64 * 1024**2,
        "max_file_bytes": 25 * 1024**2,
        "max_files": 16,
        "max_fields": 100,
        "spool_dir": tempfile.gettempdir(),
        "spool_max_bytes": 8 * 1024**3,
    }
    assert (settings.database.pool_size, settings.database.pool_wait) == (10, 1)
    assert (settings.database.statement_timeout, settings.database.lock_timeout) == (2, 1)
    assert (settings.redis.connect_timeout, settings.redis.timeout) == (0.1, 0.15)
    assert (settings.redis.breaker_failures, settings.redis.breaker_seconds) == (5, 30)
    assert shown["upstream"] == {
        "base_url": "https://api.pixapi.ai",
        "proxy": None,
        "ca_file": None,
        "max_connections": None,
        "connect_timeout": 5,
        "pool_wait": 2,
        "sync_timeout": 590,
        "submit_timeout": 60,
        "read_timeout": 10,
        "reads_per_second": 5,
    }
    assert settings.upstream_connections == 1100
    assert list(shown["cache"].values()) == [10, 2, 3600, 300, 86400]
    assert list(shown["credits"].values()) == ["refuse", None, 86400, 86400]
    assert list(shown["repeats"].values()) == [86400, "sdk", 600]
    scopes = ["openid", "email", "profile"]
    own = [None, 1800, 28800, None, None, None, scopes, "groups", [], [], None]
    assert list(shown["admin"].values()) == own
    assert list(shown["metrics"].values()) == [False, None]
    assert list(shown["log"].values()) == ["info", "json"]


def test_later_sources_win(load_with: Load) -> None:
    toml = "[server]\nport = 1001\nworkers = 2\nmax_files = 3\n"
    environ = {"GATEWAY_SERVER__PORT": "1002", "GATEWAY_SERVER__WORKERS": "4"}
    settings = load_with(environ, toml, {"server": {"port": 1003, "host": None}})
    assert (settings.server.port, settings.server.workers, settings.server.max_files) == (1003, 4, 3)
    assert settings.server.host == "127.0.0.1"


def test_text_of_the_environment_is_read_by_type(load_with: Load) -> None:
    settings = load_with(
        {
            "GATEWAY_METRICS__PUBLIC": "yes",
            "GATEWAY_REDIS__TIMEOUT": "0.25",
            "GATEWAY_SERVER__ALLOWED_HOSTS": "Gateway.Example.com, [::1],",
            "GATEWAY_SERVER__TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8, 192.0.2.7",
            "GATEWAY_CREDITS__DEFAULT_HOLD": "0.000001",
            "GATEWAY_UPSTREAM__MAX_CONNECTIONS": "7",
            "GATEWAY_LOG__LEVEL": "WARNING",
            "GATEWAY_SERVER__PUBLIC_URL": "https://Gateway.Example.com:8443/",
            "GATEWAY_SERVER__SPOOL_DIR": "",
            "GATEWAY_METRICS__TOKEN": "",
        }
    )
    assert settings.metrics.public is True
    assert settings.metrics.token is None
    assert settings.redis.timeout == 0.25
    assert settings.server.allowed_hosts == ("gateway.example.com", "::1")
    assert settings.server.trusted_proxies == tuple(
        ip_network(text) for text in ("10.0.0.0/8", "fd00::/8", "192.0.2.7/32")
    )
    assert settings.credits.default_hold == Decimal("0.000001")
    assert settings.upstream_connections == 7
    assert settings.log.level == "warning"
    assert settings.server.public_url == "https://gateway.example.com:8443"
    assert settings.server.spool_dir == Path(tempfile.gettempdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False), ("no", False)],
)
def test_booleans(load_with: Load, text: str, expected: bool) -> None:
    assert load_with({"GATEWAY_METRICS__PUBLIC": text}).metrics.public is expected


def test_numbers_of_the_file_stay_exact(load_with: Load) -> None:
    settings = load_with(toml="[credits]\ndefault_hold = 0.1\n[redis]\ntimeout = 0.2\n")
    assert settings.credits.default_hold == Decimal("0.1")
    assert settings.redis.timeout == 0.2
    assert isinstance(settings.redis.timeout, float)
    assert masked(settings)["credits"]["default_hold"] == "0.1"


def test_a_credit_of_the_file_is_never_rounded_to_fit(problems_with: Problems) -> None:
    (problem,) = problems_with(toml="[credits]\ndefault_hold = 0.10000000000000000000001\n")
    assert problem.setting == "credits.default_hold"


WRONG = {
    "GATEWAY_SERVER__HOST": "http://x",
    "GATEWAY_SERVER__PORT": "70000",
    "GATEWAY_SERVER__WORKERS": "0",
    "GATEWAY_SERVER__PUBLIC_URL": "https://gateway.example.com/path",
    "GATEWAY_SERVER__ALLOWED_HOSTS": "*.example.com",
    "GATEWAY_SERVER__TRUSTED_PROXIES": "10.0.0.1/8",
    "GATEWAY_SERVER__KEEP_ALIVE": "inf",
    "GATEWAY_SERVER__MAX_FILES": "1.5",
    "GATEWAY_SERVER__MAX_JSON_BYTES": "2 MiB",
    "GATEWAY_SERVER__SPOOL_DIR": "/no/such/directory",
    "GATEWAY_DATABASE__URL": "postgres://u:hunter2hunter2@h/db",
    "GATEWAY_DATABASE__POOL_SIZE": "-1",
    "GATEWAY_REDIS__URL": "http://h",
    "GATEWAY_REDIS__TIMEOUT": "nan",
    "GATEWAY_UPSTREAM__BASE_URL": "https://api.pixapi.ai/v1",
    "GATEWAY_UPSTREAM__PROXY": "socks5://u:hunter2hunter2@proxy:1080",
    "GATEWAY_UPSTREAM__CA_FILE": "/no/such.pem",
    "GATEWAY_CREDITS__UNPRICED": "maybe",
    "GATEWAY_CREDITS__DEFAULT_HOLD": "0.0000001",
    "GATEWAY_REPEATS__JOIN": "all",
    "GATEWAY_SECRETS__MASTER_KEYS": "short",
    "GATEWAY_SECRETS__KEY_PEPPER": "changeme-changeme-changeme-changeme",
    "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": "x" * 40,
    "GATEWAY_METRICS__PUBLIC": "perhaps",
    "GATEWAY_METRICS__TOKEN": "abcabcabcabcabcabcabcabcabcabcabcabc",
    "GATEWAY_LOG__LEVEL": "loud",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_problem_at_its_source(problems_with: Problems, name: str) -> None:
    (problem,) = problems_with({name: WRONG[name]})
    assert environment_name(problem.setting) == name
    assert problem.source == f"environment {name}"
    assert len(problem.message) > 15
    assert "hunter2hunter2" not in str(problem)


def test_all_problems_at_once(problems_with: Problems) -> None:
    problems = problems_with(
        {**WRONG, "GATEWAY_SERVER__PROT": "1"},
        "[serve]\nport = 1\n[cache]\nprincipals = 5\n[admin]\nsession_idle = 0\n",
        {"server": {"nope": 1}},
    )
    found = {problem.setting for problem in problems}
    wrong = {setting for setting in FIELDS if environment_name(setting) in WRONG}
    assert found == wrong | {"server.prot", "serve", "cache.principals", "admin.session_idle", "server.nope"}
    assert len(problems) == len(found)


def test_everything_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, {})
    lines = str(caught.value).splitlines()
    assert [problem.setting for problem in caught.value.problems] == [
        "database.url",
        "redis.url",
        "secrets.master_keys",
        "secrets.key_pepper",
    ]
    assert all(problem.source == "not set" for problem in caught.value.problems)
    assert len(lines) == 4
    for line, name in zip(lines, sorted(["DATABASE__URL", "REDIS__URL"]), strict=False):
        assert f"GATEWAY_{name}" in line
        assert f"GATEWAY_{name}_FILE" in line
    assert "openssl rand" in lines[2]


@pytest.mark.parametrize(
    ("toml", "setting", "words"),
    [
        ("[server]\nmax_file_bytes = 999999999\n", "server.max_file_bytes", "server.max_multipart_bytes"),
        ("[server]\ndrain_min_seconds = 700\n", "server.drain_min_seconds", "server.drain_seconds"),
        ("[database]\nlock_timeout = 3\n", "database.lock_timeout", "database.statement_timeout"),
        ("[admin]\nsession_idle = 30000\n", "admin.session_idle", "admin.session_absolute"),
        ('[credits]\nunpriced = "hold_default"\n', "credits.default_hold", "GATEWAY_CREDITS__DEFAULT_HOLD"),
    ],
)
def test_contradictions(problems_with: Problems, toml: str, setting: str, words: str) -> None:
    (problem,) = problems_with(toml=toml)
    assert problem.setting == setting
    assert words in problem.message
    assert problem.source.endswith("gateway.toml")


ONE_OIDC_GROUP = '[server]\npublic_url = "https://g.example.com"\n[admin]\noidc_admin_groups = ["ops"]\n'


@pytest.mark.parametrize(
    ("toml", "settings"),
    [
        (
            '[admin]\noidc_issuer = "https://id.example.com"\n',
            {
                "admin.oidc_client_id",
                "admin.oidc_client_secret",
                "server.public_url",
                "admin.oidc_admin_groups",
            },
        ),
        (
            '[admin]\noidc_client_id = "c"\noidc_viewer_groups = ["eng"]\n',
            {"admin.oidc_issuer", "admin.oidc_client_secret", "server.public_url"},
        ),
        (
            ONE_OIDC_GROUP + 'oidc_client_id = "c"\noidc_client_secret = "short"\n'
            'oidc_issuer = "http://id.example.com"\n',
            {"admin.oidc_issuer"},
        ),
        (ONE_OIDC_GROUP, set()),
        ('[admin]\noidc_scopes = ["email"]\n', {"admin.oidc_scopes"}),
    ],
)
def test_single_sign_on_is_complete_or_every_missing_setting_is_named(
    load_with: Load, problems_with: Problems, toml: str, settings: set[str]
) -> None:
    if not settings:
        assert load_with(toml=toml).admin.oidc_issuer is None
        return
    assert {problem.setting for problem in problems_with(toml=toml)} == settings


def test_single_sign_on_takes_the_provider_s_secret_as_it_is(load_with: Load) -> None:
    settings = load_with(
        {"GATEWAY_ADMIN__OIDC_CLIENT_SECRET": "short"},
        toml=ONE_OIDC_GROUP + 'oidc_client_id = "c"\noidc_issuer = "https://id.example.com/realms/x/"\n',
    )
    secret = settings.admin.oidc_client_secret
    assert secret is not None
    assert secret.get_secret_value() == "short"
    assert masked(settings)["admin"]["oidc_client_secret"] == "********"
    assert settings.admin.oidc_issuer == "https://id.example.com/realms/x/", "kept to the letter"


def test_contradictions_are_found_beside_other_problems(problems_with: Problems) -> None:
    problems = problems_with(
        {
            "GATEWAY_SERVER__PORT": "x",
            "GATEWAY_DATABASE__URL": "x",
            "GATEWAY_SERVER__MAX_FILE_BYTES": "99999999",
        }
    )
    assert {problem.setting for problem in problems} == {
        "server.port",
        "database.url",
        "server.max_file_bytes",
    }


def test_nothing_is_compared_with_a_value_that_is_wrong_itself(problems_with: Problems) -> None:
    environ = {"GATEWAY_SERVER__MAX_MULTIPART_BYTES": "x", "GATEWAY_SERVER__MAX_FILE_BYTES": "99999999"}
    (problem,) = problems_with(environ)
    assert problem.setting == "server.max_multipart_bytes"


def test_lowering_a_ceiling_alone_is_no_contradiction(load_with: Load) -> None:
    settings = load_with(
        {"GATEWAY_SERVER__MAX_MULTIPART_BYTES": "4096", "GATEWAY_ADMIN__SESSION_ABSOLUTE": "5"}
    )
    assert settings.server.max_multipart_bytes == 4096


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[upstream]\nbase_url = "http://pixapi.example"\n', "unencrypted"),
        ('[server]\ntrusted_proxies = ["0.0.0.0/0"]\n', "trusts every address"),
        ("[server]\nspool_max_bytes = 1\n", "spool_max_bytes"),
        ("[upstream]\nmax_connections = 1\n", "max_connections"),
    ],
)
def test_doubts(load_with: Load, toml: str, words: str) -> None:
    (warning,) = load_with(toml=toml).warnings
    assert words in warning


def test_plain_http_on_this_machine_is_no_doubt(load_with: Load) -> None:
    assert load_with({"GATEWAY_UPSTREAM__BASE_URL": "http://127.0.0.1:9000/"}).warnings == ()


def test_one_secret_for_two_purposes_is_doubted(load_with: Load, required: dict[str, str]) -> None:
    shared = required["GATEWAY_SECRETS__MASTER_KEYS"]
    (warning,) = load_with({"GATEWAY_METRICS__TOKEN": shared}).warnings
    assert "secrets.master_keys and metrics.token" in warning
    assert shared not in warning


def test_an_empty_configuration_directory_is_doubted(tmp_path: Path, required: dict[str, str]) -> None:
    (warning,) = load(tmp_path, required).warnings
    assert "neither gateway.toml nor models.toml" in warning


def test_settings_are_frozen(load_with: Load) -> None:
    settings = load_with()
    with pytest.raises(ValidationError):
        settings.server.port = 1


def test_problems_stay_on_one_printable_line(problems_with: Problems) -> None:
    (problem,) = problems_with({"GATEWAY_SERVER__WORKERS": "two\nlines\udcff\x1b[31m"})
    assert len(str(problem).splitlines()) == 1
    assert "\x1b" not in str(problem)
    str(problem).encode("utf-8")


def test_masked_keeps_what_helps_and_hides_the_rest(load_with: Load) -> None:
    settings = load_with(
        {"GATEWAY_REDIS__URL": "rediss://:pa%2Fss@cache:6380/2", "GATEWAY_SERVER__PORT": "9"}
    )
    shown = masked(settings)
    assert shown["server"]["port"] == 9
    assert shown["database"]["url"] == f"postgresql+psycopg://gateway:{MASK}@db.internal:5432/gateway"
    assert shown["redis"]["url"] == f"rediss://:{MASK}@cache:6380/2"
    assert shown["secrets"] == {"master_keys": [MASK], "key_pepper": [MASK]}
    assert {f"{section}.{name}" for section, table in shown.items() for name in table} == set(FIELDS)
    json.dumps(shown)


# Written as they are in JSON and in a message, so that a leak is found as a substring.
SECRET_TAIL = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters=',"\\'),
    min_size=32,
    max_size=64,
)
SECRET_TEXT = st.builds(
    "".join, st.tuples(st.sampled_from(("zQ08wX7m", "zQ08wX7m", "changeme")), SECRET_TAIL)
)
PASSWORD = st.from_regex(r"[A-Za-z0-9!$%^()_+=~;?&#/:-]{12,40}", fullmatch=True)


@examples(deadline=None)
@given(
    secrets=st.lists(SECRET_TEXT, min_size=4, max_size=4, unique=True),
    passwords=st.lists(PASSWORD, min_size=2, max_size=2),
    in_query=st.booleans(),
)
def test_no_secret_is_ever_shown(secrets: list[str], passwords: list[str], in_query: bool) -> None:
    database, redis = passwords
    redis = redis.translate(str.maketrans("/?#%&;", "aaaaaa"))
    environ = {
        "GATEWAY_DATABASE__URL": f"postgresql+psycopg://gateway:{database}@db/gateway",
        "GATEWAY_REDIS__URL": f"redis://cache/0?password={redis}"
        if in_query
        else f"redis://:{redis}@cache/0",
        "GATEWAY_SECRETS__MASTER_KEYS": secrets[0],
        "GATEWAY_SECRETS__KEY_PEPPER": secrets[1],
        "GATEWAY_ADMIN__BOOTSTRAP_TOKEN": secrets[2],
        "GATEWAY_METRICS__TOKEN": secrets[3],
    }
    hidden = [*secrets, database, redis]
    try:
        settings = load(Path(tempfile.gettempdir()), environ)
    except SettingsError as error:
        shown = str(error)
    else:
        shown = json.dumps(masked(settings), ensure_ascii=False) + repr(settings)
        assert settings.secrets.master_keys[0].get_secret_value() == secrets[0]
    assert [text for text in hidden if text in shown] == []


def test_loading_imports_neither_the_database_nor_the_web() -> None:
    program = (
        "import sys, gateway.settings\n"
        "print(sorted({'sqlalchemy', 'starlette', 'redis', 'aiohttp', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
