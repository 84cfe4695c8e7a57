"""Every setting: its type, its range, its default and the sentence the documentation says about it.

Times are seconds, sizes bytes, credits exact decimals. `config/gateway.toml` and `docs/configuration.md` are
printed from these classes (`python -m gateway.settings`), and a test holds them to it.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.settings.addresses import (
    Network,
    check_collector,
    check_database_url,
    check_host,
    check_issuer,
    check_origin,
    check_proxy,
    check_readable_file,
    check_redis_url,
    check_spool_directory,
    parse_network,
)
from gateway.settings.fields import (
    AnyCase,
    Distinct,
    GivenSecret,
    GroupName,
    Listed,
    ScopeName,
    SecretList,
    Section,
    with_openid,
)
from gateway.settings.secrets import Masking, Secret

MIB, GIB = 1024**2, 1024**3
DAY = 86_400
MONTH = 31 * DAY


class Server(Section):
    """The listening side: address, limits of what a client may send, shutdown."""

    host: Annotated[str, AfterValidator(check_host)] = Field(
        default="127.0.0.1", description="Address to listen on; 0.0.0.0 or :: for all."
    )
    port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(default=1, ge=1, le=128, description="Gateway processes that share the port.")
    public_url: Annotated[str, AfterValidator(check_origin)] | None = Field(
        default=None,
        description="Origin under which people reach the gateway; with https the session cookie is Secure.",
        examples=["https://gateway.example.com"],
    )
    allowed_hosts: Annotated[tuple[Annotated[str, AfterValidator(check_host)], ...], Listed, Distinct] = (
        Field(
            default=(),
            description="Host names that requests may carry, without port; empty accepts any well-formed Host.",
            examples=[["gateway.example.com", "localhost"]],
        )
    )
    trusted_proxies: Annotated[
        tuple[Annotated[Network, BeforeValidator(parse_network)], ...], Listed, Distinct
    ] = Field(
        default=(),
        description="Networks of proxies whose X-Forwarded-For is believed; empty ignores that header.",
        examples=[["10.0.0.0/8"]],
    )
    keep_alive: float = Field(
        default=75, ge=0.1, le=3_600, description="Seconds an idle client connection stays open."
    )
    max_paid_in_flight: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Paid calls under way in one process; the next one gets 503 overloaded.",
    )
    drain_seconds: float = Field(
        default=620,
        ge=0,
        le=DAY,
        description="Seconds after SIGTERM until paid calls still running are given up as unknown.",
    )
    drain_min_seconds: float = Field(
        default=0,
        ge=0,
        le=3_600,
        description="Seconds after SIGTERM in which paid calls are still taken while /readyz is 503, so that load "
        "balancers notice; a part of server.drain_seconds.",
    )
    header_timeout: float = Field(
        default=10, ge=0.05, le=600, description="Seconds for a client to send its request headers."
    )
    body_idle_timeout: float = Field(
        default=30,
        ge=0.05,
        le=3_600,
        description="Seconds in which a client neither sends of its body nor takes of its answer: it is given up.",
    )
    max_json_bytes: int = Field(
        default=2 * MIB, ge=1_024, le=GIB, description="Largest JSON request body in bytes."
    )
    max_multipart_bytes: int = Field(
        default=64 * MIB, ge=1_024, le=16 * GIB, description="Largest multipart request body in bytes."
    )
    max_file_bytes: int = Field(
        default=25 * MIB, ge=1, le=16 * GIB, description="Largest single file of a multipart body in bytes."
    )
    max_files: int = Field(default=16, ge=1, le=1_000, description="Files in one multipart body.")
    max_fields: int = Field(default=100, ge=1, le=10_000, description="Text fields in one multipart body.")
    spool_dir: Annotated[Path, BeforeValidator(check_spool_directory)] = Field(
        default=None,
        validate_default=True,
        description="Directory for bodies beyond 1 MiB; otherwise the system's temporary directory.",
        examples=["/var/tmp"],  # noqa: S108 - an example, nothing is created there
    )
    spool_max_bytes: int = Field(
        default=8 * GIB,
        ge=0,
        le=1_024 * GIB,
        description="Bytes all spooled bodies of a process may take; beyond it 503 overloaded.",
    )


class Database(Section):
    """Postgres: teams, keys, credits, tasks; every truth."""

    url: Annotated[str, AfterValidator(check_database_url), Masking.PASSWORD] = Field(
        repr=False,
        description="Address of the Postgres database. Required.",
        examples=["postgresql+psycopg://user:password@localhost:5432/gateway"],
    )
    pool_size: int = Field(
        default=10, ge=1, le=1_000, description="Connections of one process, besides 3 of the admin side."
    )
    pool_wait: float = Field(default=1, ge=0.01, le=60, description="Seconds to wait for a free connection.")
    statement_timeout: float = Field(
        default=2, ge=0.01, le=600, description="Seconds one statement of a request may take."
    )
    lock_timeout: float = Field(default=1, ge=0.01, le=600, description="Seconds to wait for a row lock.")


class Redis(Section):
    """Redis or Valkey: caches and rate counters; may be lost at any moment."""

    url: Annotated[str, AfterValidator(check_redis_url), Masking.PASSWORD] = Field(
        repr=False,
        description="Address of Redis or Valkey: redis://, rediss:// (TLS) or unix://. Required.",
        examples=["redis://localhost:6379/0"],
    )
    connect_timeout: float = Field(default=0.1, ge=0.001, le=10, description="Seconds to connect.")
    timeout: float = Field(default=0.15, ge=0.001, le=10, description="Seconds for one operation.")
    breaker_failures: int = Field(
        default=5, ge=1, le=1_000, description="Failures in a row after which Redis is left alone."
    )
    breaker_seconds: float = Field(
        default=30, ge=0.05, le=3_600, description="Seconds Redis is left alone before one probe."
    )


class Upstream(Section):
    """Pixapi, and how long the gateway waits for it."""

    base_url: Annotated[str, AfterValidator(check_origin)] = Field(
        default="https://api.pixapi.ai", description="Origin of Pixapi, without a path."
    )
    proxy: Annotated[Annotated[str, AfterValidator(check_proxy)] | None, Masking.PASSWORD] = Field(
        default=None,
        repr=False,
        description="HTTP proxy on the way to Pixapi; otherwise HTTPS_PROXY and NO_PROXY are obeyed.",
        examples=["http://proxy.example.com:3128"],
    )
    ca_file: Annotated[Path, AfterValidator(check_readable_file)] | None = Field(
        default=None,
        description="PEM file of certificate authorities to trust instead of the system's.",
        examples=["/etc/ssl/certs/company.pem"],
    )
    max_connections: int | None = Field(
        default=None,
        ge=1,
        le=200_000,
        description="Connections to Pixapi of one process; otherwise server.max_paid_in_flight + 100.",
        examples=[1_100],
    )
    connect_timeout: float = Field(default=5, ge=0.01, le=120, description="Seconds to connect.")
    pool_wait: float = Field(default=2, ge=0.01, le=120, description="Seconds to wait for a free connection.")
    sync_timeout: float = Field(
        default=590, ge=0.05, le=7_200, description="Seconds for the answer of a synchronous paid call."
    )
    submit_timeout: float = Field(
        default=60, ge=0.05, le=3_600, description="Seconds for the answer of an asynchronous submission."
    )
    read_timeout: float = Field(
        default=10, ge=0.05, le=600, description="Seconds for the answer of a task or model read."
    )
    reads_per_second: float = Field(
        default=5, ge=0.01, le=1_000, description="Task reads a second and upstream key, over all processes."
    )


class Cache(Section):
    """How long answers are kept."""

    principal: float = Field(
        default=10,
        ge=0,
        le=60,
        description="Seconds an authenticated key is kept; without Redis a revoked key works this long.",
    )
    task_unfinished: float = Field(
        default=2, ge=0.05, le=300, description="Seconds between two upstream reads of a running task."
    )
    task_finished: float = Field(
        default=3_600, ge=1, le=MONTH, description="Seconds a finished task stays in Redis."
    )
    models_fresh: float = Field(default=300, ge=0, le=DAY, description="Seconds the model list is fresh.")
    models_stale: float = Field(
        default=DAY, ge=0, le=MONTH, description="Seconds the model list is served while Pixapi fails."
    )


class Credits(Section):
    """What happens to credits when a price or an outcome is not known."""

    unpriced: Annotated[Literal["refuse", "hold_default"], AnyCase] = Field(
        default="refuse", description="A model without a price: refuse it, or hold credits.default_hold."
    )
    default_hold: Decimal | None = Field(
        default=None,
        gt=0,
        le=1_000_000_000,
        decimal_places=6,
        description="Credits held for a model without a price, at most six decimals.",
        examples=[25],
    )
    task_max_age: float = Field(
        default=DAY,
        ge=1,
        le=MONTH,
        description="Seconds after which a task not ended makes its hold unknown.",
    )
    settle_unknown_after: float = Field(
        default=DAY, ge=1, le=MONTH, description="Seconds after which an unknown hold settles at its quote."
    )


class Repeats(Section):
    """Repeated paid calls: Idempotency-Key, and retries of SDKs."""

    idempotency_retention: float = Field(
        default=DAY, ge=1, le=MONTH, description="Seconds the answer for an Idempotency-Key is kept."
    )
    join: Annotated[Literal["sdk", "any", "off"], AnyCase] = Field(
        default="sdk",
        description="Which repeats without a key join the earlier call: an SDK's retries, any, or none.",
    )
    join_window: float = Field(
        default=600, ge=0, le=DAY, description="Seconds after its end during which a call can be joined."
    )


class Secrets(Section):
    """Secrets of the installation; better in the environment or in files than here."""

    master_keys: SecretList = Field(
        description="Texts of 32 bytes or more; the first encrypts upstream keys, all decrypt. Required.",
        examples=[["…"]],
    )
    key_pepper: SecretList = Field(
        description="Texts of 32 bytes or more; the first signs team keys, all verify. Required.",
        examples=[["…"]],
    )


class Admin(Section):
    """Access to the admin API and the dashboard."""

    bootstrap_token: Annotated[Secret | None, Masking.WHOLE] = Field(
        default=None,
        description="An admin token that works while it is set; at least 32 bytes.",
        examples=["…"],
    )
    session_idle: float = Field(
        default=1_800, ge=1, le=MONTH, description="Seconds without a request that end a dashboard session."
    )
    session_absolute: float = Field(
        default=28_800, ge=1, le=MONTH, description="Seconds after sign-in that end a dashboard session."
    )
    oidc_issuer: Annotated[str, AfterValidator(check_issuer)] | None = Field(
        default=None,
        description="OpenID Connect provider people may sign in with, as its discovery document spells it.",
        examples=["https://id.example.com/realms/company"],
    )
    oidc_client_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="The gateway's name at the provider.",
        examples=["pixapi-gateway"],
    )
    oidc_client_secret: Annotated[GivenSecret | None, Masking.WHOLE] = Field(
        default=None, description="The secret the provider made for this client.", examples=["…"]
    )
    oidc_scopes: Annotated[tuple[ScopeName, ...], Listed, AfterValidator(with_openid), Distinct] = Field(
        default=("openid", "email", "profile"),
        description="What the provider is asked for; some give groups for a scope of their own.",
    )
    oidc_groups_claim: str = Field(
        default="groups",
        min_length=1,
        max_length=200,
        description="The claim with a person's groups; dots lead into objects, as in realm_access.roles.",
    )
    oidc_admin_groups: Annotated[tuple[GroupName, ...], Listed, Distinct] = Field(
        default=(), description="Groups whose people get the role admin.", examples=[["platform-team"]]
    )
    oidc_viewer_groups: Annotated[tuple[GroupName, ...], Listed, Distinct] = Field(
        default=(), description="Groups whose people get the role viewer.", examples=[["engineering"]]
    )
    oidc_ca_file: Annotated[Path, AfterValidator(check_readable_file)] | None = Field(
        default=None,
        description="PEM file of certificate authorities to trust for the provider instead of the system's.",
        examples=["/etc/ssl/certs/company.pem"],
    )


class Metrics(Section):
    """Who may read /metrics."""

    public: bool = Field(default=False, description="Whether /metrics is answered without a token.")
    token: Annotated[Secret | None, Masking.WHOLE] = Field(
        default=None,
        description="A token that reads /metrics and nothing else; at least 32 bytes.",
        examples=["…"],
    )


class Tracing(Section):
    """Traces of requests by OpenTelemetry; needs the extra otel."""

    endpoint: Annotated[str, AfterValidator(check_collector)] | None = Field(
        default=None,
        description="OTLP/HTTP address of a collector; without one nothing is traced.",
        examples=["http://collector:4318"],
    )
    sample: float = Field(
        default=1,
        ge=0,
        le=1,
        description="Share of requests that are traced, of those whose caller did not decide in its traceparent.",
    )


class Alerts(Section):
    """What people are told of: by the log, a metric and webhooks."""

    every: float = Field(
        default=5, ge=0.05, le=600, description="Seconds between two looks at what there is to tell of."
    )
    quota_thresholds: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000)], ...], Listed, Distinct] = Field(
        default=(50, 80, 95, 100),
        description="Percent of a quota's limit, settled and held, at which there is an alert; empty for none.",
    )


class Log(Section):
    """The log on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = Field(
        default="info", description="The least severe lines that are written."
    )
    format: Annotated[Literal["json", "text"], AnyCase] = Field(
        default="json", description="One JSON object a line, or text for people."
    )
