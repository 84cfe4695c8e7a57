"""The composition root: every collaborator is built once here, from the settings. Nothing is connected by building."""

from __future__ import annotations

import math

from prometheus_client import ProcessCollector

from gateway import __version__, tracing
from gateway.access import revocation
from gateway.access.admin_sessions import AdminSessions
from gateway.access.admin_tokens import AdminTokens
from gateway.access.authenticator import Authenticator
from gateway.access.key_format import Peppers
from gateway.access.refusals import Refusals
from gateway.access.session_rules import SessionRules, bootstrap_digests
from gateway.access.sign_in_attempts import SignInAttempts
from gateway.access.team_sessions import TeamSessions
from gateway.admin.announcements import Announcements
from gateway.admin.api.route import AdminApi
from gateway.admin.callers import Callers
from gateway.admin.oidc import OidcSignIn
from gateway.admin.oidc_terms import OidcOptions, OidcUnavailableError, Provider
from gateway.admin.sign_in_pages import SignInPages
from gateway.alerts.evaluator import Evaluator
from gateway.alerts.sender import Sender
from gateway.cache.client import CacheClient
from gateway.cache.events import Events
from gateway.catalog.model_entries import ModelEntries
from gateway.catalog.model_list import ModelList
from gateway.catalog.price_file import PriceFile
from gateway.clock import Clock, SystemClock
from gateway.credits.aging import Ages, Aging, longest_call
from gateway.credits.amount import from_decimal
from gateway.credits.ledger import Ledger
from gateway.credits.rollups import Rollups
from gateway.db.engine import Database
from gateway.limits.limits import Limits
from gateway.pages.assets import Assets
from gateway.pages.rendering import Pages
from gateway.pages.team_visits import TeamVisits
from gateway.pool.caps import Caps
from gateway.pool.checks import Checks
from gateway.pool.dispatch import SENDS, Dispatcher
from gateway.pool.pool import Pool
from gateway.pool.vault import Vault
from gateway.proxy.paid_calls import PaidCalls
from gateway.repeats.files import AnswerFiles
from gateway.repeats.records import Records
from gateway.repeats.repeats import Repeats, Rules
from gateway.repeats.shelf import Shelf
from gateway.runtime import REPEATS_SECONDS, Runtime
from gateway.settings import ADMIN_CONNECTIONS, Settings
from gateway.siblings import Seat, Siblings
from gateway.spool import SpoolBudget
from gateway.tasks.due import DueTasks
from gateway.tasks.entries import TaskEntries
from gateway.tasks.reader import TaskReader
from gateway.tasks.reconciler import Reconciler
from gateway.tasks.registry import ReadRules, Registry
from gateway.tasks.schedule import Pace
from gateway.tasks.watch import Watch
from gateway.telemetry import Metrics
from gateway.upstream.client import UpstreamClient

LEASE_SECONDS = 10.0  # beyond a read's own time-out


def build(settings: Settings, clock: Clock | None = None, seat: Seat | None = None) -> Runtime:
    """Every collaborator, connected to nothing yet; `seat` is that of one of several worker processes.

    Raises PriceBookError for a models.toml that cannot be used, TracingUnavailableError for tracing and
    OidcUnavailableError for single sign-on without its extra.
    """
    clock = clock or SystemClock()
    server, upstream = settings.server, settings.upstream
    database = _database(settings, settings.database.pool_size)
    # Of its own, so that paid calls never wait for what the admin side reads, however long that takes.
    admin_database = _database(settings, ADMIN_CONNECTIONS)
    peppers = Peppers([secret.get_secret_value() for secret in settings.secrets.key_pepper])
    vault = Vault([secret.get_secret_value() for secret in settings.secrets.master_keys])
    spool = SpoolBudget(server.spool_max_bytes, server.spool_dir)
    client = upstream_client(settings, spool)
    metrics = Metrics()
    metrics.build_info.labels(__version__).set(1)
    ProcessCollector(registry=metrics.registry)
    cache, events = _redis(settings, clock, metrics)
    limits = Limits(cache, clock, metrics)

    def key_changed(key: str) -> None:
        events.publish("upstream-key", key)

    pool = Pool(
        database,
        vault,
        clock,
        reads_per_second=upstream.reads_per_second,
        caps=Caps(limits),
        announce=key_changed,
    )
    dispatcher = Dispatcher(pool, client, clock, upstream.read_timeout)
    ledger = Ledger(database, metrics)
    registry, due = Registry(database, _read_rules(settings)), DueTasks(database)
    entries = TaskEntries(
        cache, clock, unfinished=settings.cache.task_unfinished, finished=settings.cache.task_finished
    )
    watch = Watch(registry, due, entries, events, clock, lambda: sum(pool.read_room().values()))
    pace = Pace(settings.credits.task_max_age)
    reader = TaskReader(
        registry,
        ledger,
        dispatcher,
        clock,
        entries=entries,
        watch=watch,
        pace=pace,
        metrics=metrics,
    )
    authenticator = Authenticator(
        database, peppers, clock, settings.cache.principal, hears=lambda: events.connected
    )
    revocation.follow(events, authenticator, clock, metrics)
    callers = _callers(settings, admin_database, peppers, clock, metrics)
    attempts = SignInAttempts(admin_database)
    pages = Pages(Assets())
    sign_in_pages = SignInPages(pages, callers, clock, provider=settings.admin.oidc_issuer is not None)
    sender = _sender(settings, database, vault, metrics)
    return Runtime(
        settings=settings,
        clock=clock,
        metrics=metrics,
        tracing=tracing.begin(settings.tracing.endpoint, settings.tracing.sample),
        siblings=Siblings(seat),
        database=database,
        admin_database=admin_database,
        cache=cache,
        events=events,
        limits=limits,
        spool=spool,
        client=client,
        pool=pool,
        key_checks=Checks(database, pool, dispatcher, clock, key_changed),
        dispatcher=dispatcher,
        models=ModelList(
            pool,
            dispatcher,
            ModelEntries(cache, settings.cache.models_stale),
            clock,
            fresh=settings.cache.models_fresh,
            stale=settings.cache.models_stale,
        ),
        prices=_prices(settings),
        ledger=ledger,
        entries=entries,
        watch=watch,
        reader=reader,
        reconciler=Reconciler(
            due,
            reader,
            pool,
            pace,
            metrics=metrics,
            clock=clock,
            reads_per_second=upstream.reads_per_second,
            lease=upstream.read_timeout + LEASE_SECONDS,
        ),
        aging=Aging(database, _ages(settings), metrics),
        rollups=Rollups(admin_database),
        alerts=Evaluator(
            database,
            metrics=metrics,
            clock=clock,
            thresholds=settings.alerts.quota_thresholds,
            every=settings.alerts.every,
            news=sender.wake,
        ),
        sender=sender,
        refusals=Refusals(database, clock, metrics),
        paid_calls=PaidCalls(server.max_paid_in_flight),
        repeats=_repeats(settings, database, cache, events, clock),
        authenticator=authenticator,
        admin_tokens=callers.tokens,
        callers=callers,
        sign_in_attempts=attempts,
        oidc=OidcSignIn(_provider(settings, clock), callers, attempts, peppers, clock, sign_in_pages),
        pages=pages,
        sign_in_pages=sign_in_pages,
        team_visits=TeamVisits(_team_sessions(settings, admin_database), callers, pages, clock),
        admin_api=AdminApi(
            database=admin_database,
            peppers=peppers,
            vault=vault,
            clock=clock,
            changed=Announcements(authenticator, pool, events),
            sessions=_session_rules(settings, peppers),
        ),
    )


def _database(settings: Settings, connections: int) -> Database:
    own = settings.database
    return Database(
        own.url,
        pool_size=connections,
        pool_wait=own.pool_wait,
        statement_timeout=own.statement_timeout,
        lock_timeout=own.lock_timeout,
    )


def upstream_client(settings: Settings, spool: SpoolBudget) -> UpstreamClient:
    """The one client that speaks to Pixapi."""
    upstream = settings.upstream
    return UpstreamClient(
        upstream.base_url,
        spool,
        proxy=upstream.proxy,
        ca_file=None if upstream.ca_file is None else str(upstream.ca_file),
        max_connections=settings.upstream_connections,
        connect_timeout=upstream.connect_timeout,
        pool_wait=upstream.pool_wait,
    )


def _callers(
    settings: Settings, database: Database, peppers: Peppers, clock: Clock, metrics: Metrics
) -> Callers:
    secret = settings.admin.bootstrap_token
    bootstrap = None if secret is None else secret.get_secret_value()
    sessions = AdminSessions(database, _session_rules(settings, peppers))
    tokens = AdminTokens(database, peppers, bootstrap, clock)
    return Callers(tokens, sessions, metrics, settings.server.public_url)


def _session_rules(settings: Settings, peppers: Peppers) -> SessionRules:
    admin = settings.admin
    secret = admin.bootstrap_token
    return SessionRules(
        idle=admin.session_idle,
        absolute=admin.session_absolute,
        bootstrap=bootstrap_digests(peppers, None if secret is None else secret.get_secret_value()),
        issuer=admin.oidc_issuer,
    )


def _team_sessions(settings: Settings, database: Database) -> TeamSessions:
    admin = settings.admin
    return TeamSessions(database, idle=admin.session_idle, absolute=admin.session_absolute)


def _provider(settings: Settings, clock: Clock) -> Provider | None:
    """The sign-in provider. The settings are complete or absent as a whole."""
    admin, public_url = settings.admin, settings.server.public_url
    if admin.oidc_issuer is None or admin.oidc_client_secret is None or public_url is None:
        return None
    # Imported where it is used: these files need the extra `oidc`, which is only installed there, and takes half a
    # second to load.
    try:
        from gateway.admin.oidc_http import ProviderHttp
        from gateway.admin.oidc_provider import OidcProvider
    except ModuleNotFoundError as error:
        raise OidcUnavailableError(str(error.name)) from None
    options = OidcOptions(
        issuer=admin.oidc_issuer,
        client_id=admin.oidc_client_id or "",
        client_secret=admin.oidc_client_secret.get_secret_value(),
        scopes=admin.oidc_scopes,
        groups_claim=admin.oidc_groups_claim,
        admin_groups=admin.oidc_admin_groups,
        viewer_groups=admin.oidc_viewer_groups,
        redirect_uri=f"{public_url}/admin/oidc/callback",
    )
    authorities = None if admin.oidc_ca_file is None else str(admin.oidc_ca_file)
    return OidcProvider(options, ProviderHttp(authorities), clock)


def _ages(settings: Settings) -> Ages:
    upstream, credit = settings.upstream, settings.credits
    timeout = max(upstream.sync_timeout, upstream.submit_timeout)
    return Ages(
        longest_call=longest_call(timeout, upstream.pool_wait, SENDS),
        task_max_age=credit.task_max_age,
        settle_unknown_after=credit.settle_unknown_after,
    )


def _sender(settings: Settings, database: Database, vault: Vault, metrics: Metrics) -> Sender:
    upstream = settings.upstream
    return Sender(
        database,
        vault,
        metrics,
        every=settings.alerts.every,
        proxy=upstream.proxy,
        ca_file=None if upstream.ca_file is None else str(upstream.ca_file),
    )


def _prices(settings: Settings) -> PriceFile:
    credit = settings.credits
    default = credit.default_hold if credit.unpriced == "hold_default" else None
    return PriceFile(settings.config_dir / "models.toml", None if default is None else from_decimal(default))


def _redis(settings: Settings, clock: Clock, metrics: Metrics) -> tuple[CacheClient, Events]:
    options = settings.redis
    cache = CacheClient(
        options.url,
        connect_timeout=options.connect_timeout,
        timeout=options.timeout,
        breaker_failures=options.breaker_failures,
        breaker_seconds=options.breaker_seconds,
        clock=clock,
        metrics=metrics,
    )
    return cache, Events(options.url, cache, clock, connect_timeout=options.connect_timeout)


def _repeats(
    settings: Settings, database: Database, cache: CacheClient, events: Events, clock: Clock
) -> Repeats:
    server, repeats = settings.server, settings.repeats
    rules = Rules(
        join=repeats.join,
        window=repeats.join_window,
        retention=repeats.idempotency_retention,
        longest_call=_ages(settings).longest_call,
    )
    oldest = max(repeats.idempotency_retention, repeats.join_window) + REPEATS_SECONDS
    files = AnswerFiles(server.spool_dir, server.spool_max_bytes, oldest)
    records = Records(database)
    return Repeats(records, Shelf(records, files, cache), events, clock, rules)


def _read_rules(settings: Settings) -> ReadRules:
    """A window of as many slots as there are reads a second, rounded up, so that none sees more than its share."""
    slots = max(1, math.ceil(settings.upstream.reads_per_second))
    return ReadRules(
        every=settings.cache.task_unfinished, slots=slots, span=slots / settings.upstream.reads_per_second
    )
