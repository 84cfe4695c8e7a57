"""Every metric of the gateway, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge

from gateway.telemetry.counting import Children, Counter, Histogram

HOLD_EVENTS = ("placed", "settled", "released", "unknown")
MICRO = 1_000_000


class Metrics:
    """The process's Prometheus metrics; names and labels are listed in docs/metrics.md.

    `registry` is about this process; `scrape` about one answer to Prometheus, which may be of several processes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.scrape = CollectorRegistry()
        self.requests = Counter(
            "gateway_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "gateway_request_seconds",
            "From the complete request head to the end of the answer, upstream's time included.",
            ("route",),
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 180, 600),
        )
        self.own_seconds = Histogram(
            "gateway_own_seconds",
            "The gateway's own part of a paid call: all of it but the time Pixapi took.",
            registry=self.registry,
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
        )
        self.upstream_attempts = Counter(
            "gateway_upstream_attempts",
            "Sends to Pixapi on behalf of paid calls, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self.upstream_keys = Gauge(
            "gateway_upstream_keys",
            "Upstream keys, by their state.",
            ("state",),
            registry=self.registry,
        )
        self.upstream_key_rests = Gauge(
            "gateway_upstream_key_rests",
            "1 while an upstream key may not be used, by the label of the key.",
            ("upstream_key", "use"),
            registry=self.registry,
        )
        self.cache_results = Counter(
            "gateway_cache_results",
            "Answers to task polls and model lists, by where they came from: hit, miss, coalesced or stale.",
            ("route", "result"),
            registry=self.registry,
        )
        self.paid_in_flight = Gauge(
            "gateway_paid_calls_in_flight", "Paid calls under way in this process.", registry=self.registry
        )
        self.spool_bytes = Gauge(
            "gateway_spool_bytes", "Bytes of bodies on disk in this process.", registry=self.registry
        )
        self.price_book_refused = Gauge(
            "gateway_price_book_refused",
            "1 while models.toml has a mistake and the prices before it stay in force.",
            registry=self.registry,
        )
        self.tasks_settled = Counter(
            "gateway_tasks_settled",
            "Tasks whose end was written down, by whose read showed it.",
            ("by",),
            registry=self.registry,
        )
        self.coalesced = Counter(
            "gateway_coalesced",
            "Reads that were not made because another caller, or another process, was making the same one.",
            ("what",),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "gateway_waiting_clients",
            "Clients of this process that wait for a task to change.",
            registry=self.registry,
        )
        self.odd_costs = Counter(
            "gateway_odd_costs",
            "Ended tasks without a usable credits_cost, settled at their quote.",
            registry=self.registry,
        )
        self.open_tasks = Gauge(
            "gateway_open_tasks", "Tasks of all processes that have not ended.", registry=self.registry
        )
        self.reconciler_lag = Gauge(
            "gateway_reconciler_lag_seconds",
            "How long the task that is due longest waits to be read.",
            registry=self.registry,
        )
        self.reconciler_stretched = Gauge(
            "gateway_reconciler_stretched",
            "By how much task reads are rarer than promised; 1 while there are reads for all open tasks.",
            registry=self.registry,
        )
        self.aged_holds = Counter(
            "gateway_aged_holds",
            "Holds past their time, by what they became: unknown or settled.",
            ("state",),
            registry=self.registry,
        )
        self.alerts_open = Gauge(
            "gateway_alerts_open",
            "Alerts of the whole installation that are raised and not resolved.",
            ("kind", "severity"),
            registry=self.registry,
        )
        self.alerts_raised = Counter(
            "gateway_alerts_raised", "Alerts this process has raised.", ("kind",), registry=self.registry
        )
        self.alert_deliveries = Counter(
            "gateway_alert_deliveries",
            "Tries to deliver an alert to a webhook, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self.redis_open = Gauge(
            "gateway_redis_open",
            "1 while Redis is left alone after failures in a row.",
            registry=self.registry,
        )
        self.redis_failures = Counter(
            "gateway_redis_failures",
            "What Redis did not do, by how.",
            ("kind",),
            registry=self.registry,
        )
        self.limits_local = Counter(
            "gateway_limits_local",
            "Requests whose limits were counted in this process alone, because Redis was gone.",
            ("lane",),
            registry=self.registry,
        )
        self.refusals_dropped = Counter(
            "gateway_refusals_dropped",
            "Refusals that were not kept for explanations, by why.",
            ("why",),
            registry=self.registry,
        )
        self.sign_ins = Counter(
            "gateway_sign_ins",
            "What people did at the sign-in pages, and what other sites tried with their sessions.",
            ("result",),
            registry=self.registry,
        )
        self.revocation_lag = Histogram(
            "gateway_revocation_lag_seconds",
            "From the announcement of a changed key or team to its being forgotten by this process.",
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )

        self.build_info = Gauge(
            "gateway_build_info", "1, by the version that runs.", ("version",), registry=self.registry
        )
        self.workers = Gauge(
            "gateway_workers",
            "Worker processes behind this answer: answered, or silent and so missing in it.",
            ("state",),
            registry=self.scrape,
        )
        self.loop_lag = Histogram(
            "gateway_loop_lag_seconds",
            "How much later than asked the event loop came back to a sleeper.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )
        self.requests_by = Children(self.requests)
        self.seconds_by = Children(self.seconds)
        self.cache_results_by = Children(self.cache_results)
        self.upstream_attempts_by = Children(self.upstream_attempts)
        self._add_credits()

    def _add_credits(self) -> None:
        self.refusals = Counter(
            "gateway_refusals",
            "Paid calls that were refused before anything was sent to Pixapi, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.holds = Counter(
            "gateway_holds",
            "Holds placed, and what became of holds: settled, released or unknown.",
            ("event",),
            registry=self.registry,
        )
        self.hold_events = {event: self.holds.labels(event) for event in HOLD_EVENTS}
        self.open_holds = Gauge(
            "gateway_open_holds",
            "Holds of all processes that have not ended, by state: held or unknown.",
            ("state",),
            registry=self.registry,
        )
        self.credits_settled = Counter(
            "gateway_credits_settled",
            "Credits settled, by team and model.",
            ("team", "model"),
            registry=self.registry,
        )
        self.credits_settled_by = Children(self.credits_settled)
        self.ledger_batch_size = Histogram(
            "gateway_ledger_batch_size",
            "Verbs of the ledger that went to Postgres in one statement.",
            ("verb",),
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.ledger_seconds = Histogram(
            "gateway_ledger_seconds",
            "How long a statement of the ledger took, the wait for a connection included.",
            ("verb",),
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )
        self.database_connections = Gauge(
            "gateway_database_connections",
            "Connections to Postgres that paid calls take, of this process: in_use, or free to be taken.",
            ("state",),
            registry=self.registry,
        )

    def hold_ended(self, state: str, settled: int | None, team: str, model: str) -> None:
        """Counts a hold's end; `settled` in micro-credits."""
        self.hold_events[state].inc()
        if settled:
            self.credits_settled_by[team, model].inc(settled / MICRO)

    def set_open_alerts(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Shows the open alerts as they are, by kind and severity."""
        self.alerts_open.clear()
        for (kind, severity), count in counts.items():
            self.alerts_open.labels(kind, severity).set(count)

    def set_upstream_keys(self, keys: Iterable[tuple[str, str, Mapping[str, bool]]]) -> None:
        """Shows the pool as it is: each key's label, its state, and whether it rests, by use."""
        self.upstream_keys.clear()
        self.upstream_key_rests.clear()
        for label, state, rests in keys:
            self.upstream_keys.labels(state).inc()
            for use, resting in rests.items():
                self.upstream_key_rests.labels(label, use).set(resting)
