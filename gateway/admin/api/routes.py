"""The whole admin API on one page: read this first. Paths are below `/admin/api`.

The role is the least a row takes: a `viewer` never changes anything. `http.py` serves the rows, `openapi.py`
describes them, and the command line runs them in its own process.
"""

from __future__ import annotations

from typing import Any

from gateway.admin.api import (
    admin_tokens,
    alert_deliveries,
    alerts,
    audit,
    explain,
    holds,
    keys,
    ledger,
    quotas,
    sessions,
    status,
    tasks,
    teams,
    upstream_keys,
    usage,
    webhooks,
)
from gateway.admin.api import requests as given
from gateway.admin.api.alert_answers import DeliveryAnswer, NewWebhookAnswer, WebhookAnswer
from gateway.admin.api.answers import (
    AdminTokenAnswer,
    AlertAnswer,
    AuditAnswer,
    IssuedAdminTokenAnswer,
    IssuedKeyAnswer,
    KeyAnswer,
    Listing,
    QuotaAnswer,
    SessionAnswer,
    StatusAnswer,
    TaskAnswer,
    TeamAnswer,
    UpstreamKeyAnswer,
)
from gateway.admin.api.credit_answers import (
    HoldAnswer,
    ProofAnswer,
    RepairAnswer,
    RequestAnswer,
    UsageAnswer,
)
from gateway.admin.api.explain_answers import ExplainAnswer
from gateway.admin.api.openapi import document
from gateway.admin.api.route import AdminApi, AdminCall, AdminRoute


async def openapi(_api: AdminApi, _call: AdminCall[given.Nothing, given.Nothing]) -> dict[str, Any]:
    return document(ROUTES)


# fmt: off
ROUTES: tuple[AdminRoute, ...] = (
    AdminRoute("GET", "/openapi.json", "viewer", openapi, dict[str, Any], "This document"),
    AdminRoute("GET", "/status", "viewer", status.show, StatusAnswer, "Version, database and counts"),

    AdminRoute("POST", "/teams", "admin", teams.create, TeamAnswer, "Make a team",
               status=201, body=given.CreateTeam),
    AdminRoute("GET", "/teams", "viewer", teams.page, Listing[TeamAnswer], "List the teams",
               query=given.PageQuery),
    AdminRoute("GET", "/teams/{team}", "viewer", teams.show, TeamAnswer, "Show a team"),
    AdminRoute("PATCH", "/teams/{team}", "admin", teams.update, TeamAnswer, "Change a team",
               body=given.PatchTeam),
    AdminRoute("POST", "/teams/{team}/suspend", "admin", teams.suspend, TeamAnswer,
               "Refuse every key of a team"),
    AdminRoute("POST", "/teams/{team}/resume", "admin", teams.resume, TeamAnswer,
               "Let the keys of a team work again"),

    AdminRoute("GET", "/teams/{team}/quotas", "viewer", quotas.page, Listing[QuotaAnswer],
               "List a team's own quotas"),
    AdminRoute("GET", "/teams/{team}/quotas/{period}", "viewer", quotas.show, QuotaAnswer,
               "Show a team's quota"),
    AdminRoute("PUT", "/teams/{team}/quotas/{period}", "admin", quotas.put, QuotaAnswer, "Set a team's quota",
               body=given.PutQuota),
    AdminRoute("DELETE", "/teams/{team}/quotas/{period}", "admin", quotas.remove, QuotaAnswer,
               "Remove a team's quota"),
    AdminRoute("GET", "/keys/{id}/quotas", "viewer", quotas.page, Listing[QuotaAnswer], "List a key's quotas"),
    AdminRoute("GET", "/keys/{id}/quotas/{period}", "viewer", quotas.show, QuotaAnswer, "Show a key's quota"),
    AdminRoute("PUT", "/keys/{id}/quotas/{period}", "admin", quotas.put, QuotaAnswer, "Set a key's quota",
               body=given.PutQuota),
    AdminRoute("DELETE", "/keys/{id}/quotas/{period}", "admin", quotas.remove, QuotaAnswer,
               "Remove a key's quota"),

    AdminRoute("POST", "/teams/{team}/keys", "admin", keys.issue, IssuedKeyAnswer, "Issue a team key",
               status=201, body=given.IssueKey),
    AdminRoute("GET", "/teams/{team}/keys", "viewer", keys.page, Listing[KeyAnswer], "List a team's keys",
               query=given.PageQuery),
    AdminRoute("GET", "/keys", "viewer", keys.page_of_all, Listing[KeyAnswer], "List the keys of all teams",
               query=given.KeyQuery),
    AdminRoute("GET", "/keys/{id}", "viewer", keys.show, KeyAnswer, "Show a team key"),
    AdminRoute("PATCH", "/keys/{id}", "admin", keys.update, KeyAnswer, "Change a team key",
               body=given.PatchKey),
    AdminRoute("POST", "/keys/{id}/revoke", "admin", keys.revoke, KeyAnswer, "End a team key for good"),
    AdminRoute("POST", "/keys/{id}/rotate", "admin", keys.rotate, IssuedKeyAnswer,
               "Replace a team key; the old one goes on working for the overlap",
               status=201, body=given.RotateKey),

    AdminRoute("POST", "/upstream-keys", "admin", upstream_keys.add, UpstreamKeyAnswer,
               "Add a Pixapi key to the pool", status=201, body=given.AddUpstreamKey),
    AdminRoute("GET", "/upstream-keys", "viewer", upstream_keys.page, Listing[UpstreamKeyAnswer],
               "List the pool", query=given.PageQuery),
    AdminRoute("GET", "/upstream-keys/{id}", "viewer", upstream_keys.show, UpstreamKeyAnswer,
               "Show an upstream key"),
    AdminRoute("PATCH", "/upstream-keys/{id}", "admin", upstream_keys.update, UpstreamKeyAnswer,
               "Change an upstream key", body=given.PatchUpstreamKey),
    AdminRoute("POST", "/upstream-keys/{id}/drain", "admin", upstream_keys.drain, UpstreamKeyAnswer,
               "No new paid calls with this key"),
    AdminRoute("POST", "/upstream-keys/{id}/disable", "admin", upstream_keys.disable, UpstreamKeyAnswer,
               "No calls at all with this key"),
    AdminRoute("POST", "/upstream-keys/{id}/enable", "admin", upstream_keys.enable, UpstreamKeyAnswer,
               "Use this key again, forgetting its rests"),
    AdminRoute("DELETE", "/upstream-keys/{id}", "admin", upstream_keys.remove, UpstreamKeyAnswer,
               "Take an upstream key out for good", query=given.RemoveQuery),

    AdminRoute("GET", "/tasks", "viewer", tasks.page, Listing[TaskAnswer], "List the tasks",
               query=given.TaskQuery),
    AdminRoute("GET", "/tasks/{id}", "viewer", tasks.show, TaskAnswer, "Show a task"),
    AdminRoute("GET", "/usage", "viewer", usage.show, UsageAnswer,
               "Usage and its totals, as JSON or CSV", query=given.UsageQuery),
    AdminRoute("GET", "/holds", "viewer", holds.page, Listing[HoldAnswer], "List the holds",
               query=given.HoldQuery),
    AdminRoute("GET", "/holds/{id}", "viewer", holds.show, HoldAnswer, "Show a hold"),
    AdminRoute("POST", "/holds/{id}/resolve", "admin", holds.resolve, HoldAnswer,
               "End an unknown hold", body=given.ResolveHold),
    AdminRoute("GET", "/requests", "viewer", holds.requests, Listing[RequestAnswer],
               "List the holds with the sends of their calls", query=given.HoldQuery),
    AdminRoute("GET", "/requests/{request_id}/explain", "viewer", explain.explain, ExplainAnswer,
               "Tell what became of a request id"),
    AdminRoute("GET", "/ledger/verify", "viewer", ledger.verify, ProofAnswer,
               "Compare entries, counters, holds, usage and task costs", failures=frozenset({409})),
    AdminRoute("POST", "/ledger/repair", "admin", ledger.repair, RepairAnswer,
               "Rebuild counters and usage from entries and holds"),
    AdminRoute("GET", "/audit", "viewer", audit.page, Listing[AuditAnswer], "List who changed what",
               query=given.AuditQuery),

    AdminRoute("GET", "/alerts", "viewer", alerts.page, Listing[AlertAnswer], "List the alerts",
               query=given.AlertQuery),
    AdminRoute("POST", "/webhooks", "admin", webhooks.add, NewWebhookAnswer, "Add a webhook for alerts",
               status=201, body=given.AddWebhook),
    AdminRoute("GET", "/webhooks", "viewer", webhooks.page, Listing[WebhookAnswer], "List the webhooks",
               query=given.PageQuery),
    AdminRoute("PATCH", "/webhooks/{id}", "admin", webhooks.update, WebhookAnswer, "Change a webhook",
               body=given.PatchWebhook),
    AdminRoute("POST", "/webhooks/{id}/test", "admin", webhooks.test, DeliveryAnswer,
               "Send a test message to a webhook"),
    AdminRoute("DELETE", "/webhooks/{id}", "admin", webhooks.remove, WebhookAnswer,
               "Take a webhook out for good, its deliveries with it"),
    AdminRoute("GET", "/alert-deliveries", "viewer", alert_deliveries.page, Listing[DeliveryAnswer],
               "List what was sent to webhooks", query=given.DeliveryQuery),
    AdminRoute("POST", "/alert-deliveries/{id}/redeliver", "admin", alert_deliveries.redeliver, DeliveryAnswer,
               "Send a message once more, under its old id"),

    AdminRoute("POST", "/admin-tokens", "admin", admin_tokens.issue, IssuedAdminTokenAnswer,
               "Issue an admin token", status=201, body=given.IssueAdminToken),
    AdminRoute("GET", "/admin-tokens", "viewer", admin_tokens.page, Listing[AdminTokenAnswer],
               "List the admin tokens", query=given.PageQuery),
    AdminRoute("POST", "/admin-tokens/{id}/revoke", "admin", admin_tokens.revoke, AdminTokenAnswer,
               "End an admin token and its sessions for good"),

    AdminRoute("GET", "/sessions", "viewer", sessions.page, Listing[SessionAnswer], "List who is signed in",
               query=given.SessionQuery),
    AdminRoute("POST", "/sessions/{id}/end", "admin", sessions.end, SessionAnswer, "End a session"),
    AdminRoute("POST", "/sessions/end", "admin", sessions.end_all, Listing[SessionAnswer],
               "End every session of a person or token", body=given.EndSessions),
)
# fmt: on
