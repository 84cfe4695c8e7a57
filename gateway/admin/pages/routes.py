"""The whole dashboard on one page: read this first. Paths are below `/admin`.

The role is the least a row takes; a `viewer` sees every page and changes nothing. `serving.py` serves the rows. What a
page changes, it changes by a row of the admin API, so checks, announcements and audit are the same for both.
"""

from __future__ import annotations

from gateway.admin.pages import (
    access,
    alerts,
    audit,
    connect,
    deliveries,
    holds,
    keys,
    overview,
    prices,
    requests,
    tasks,
    teams,
    upstream_keys,
    usage,
)
from gateway.admin.pages.page import PageRoute

# fmt: off
PAGES: tuple[PageRoute, ...] = (
    PageRoute("GET", "/", "viewer", overview.show),

    PageRoute("GET", "/teams", "viewer", teams.listing),
    PageRoute("GET", "/teams/new", "admin", teams.new),
    PageRoute("POST", "/teams/new", "admin", teams.create),
    PageRoute("GET", "/teams/{team}", "viewer", teams.show),
    PageRoute("POST", "/teams/{team}", "admin", teams.update),
    PageRoute("POST", "/teams/{team}/quotas", "admin", teams.put_quota),
    PageRoute("POST", "/teams/{team}/quotas/remove", "admin", teams.remove_quota),
    PageRoute("POST", "/teams/{team}/keys", "admin", teams.issue_key),
    PageRoute("GET", "/teams/{team}/suspend", "admin", teams.confirm_suspend),
    PageRoute("POST", "/teams/{team}/suspend", "admin", teams.suspend),
    PageRoute("POST", "/teams/{team}/resume", "admin", teams.resume),

    PageRoute("GET", "/keys", "viewer", keys.listing),
    PageRoute("GET", "/keys/{id}", "viewer", keys.show),
    PageRoute("POST", "/keys/{id}", "admin", keys.update),
    PageRoute("POST", "/keys/{id}/quotas", "admin", keys.put_quota),
    PageRoute("POST", "/keys/{id}/quotas/remove", "admin", keys.remove_quota),
    PageRoute("GET", "/keys/{id}/rotate", "admin", keys.ask_rotate),
    PageRoute("POST", "/keys/{id}/rotate", "admin", keys.rotate),
    PageRoute("GET", "/keys/{id}/revoke", "admin", keys.ask_revoke),
    PageRoute("POST", "/keys/{id}/revoke", "admin", keys.revoke),

    PageRoute("GET", "/requests", "viewer", requests.listing),
    PageRoute("GET", "/requests/{request_id}", "viewer", requests.show),
    PageRoute("GET", "/tasks", "viewer", tasks.listing),
    PageRoute("GET", "/tasks/{id}", "viewer", tasks.show),
    PageRoute("GET", "/holds", "viewer", holds.listing),
    PageRoute("GET", "/holds/{id}/resolve", "admin", holds.ask_resolve),
    PageRoute("POST", "/holds/{id}/resolve", "admin", holds.resolve),

    PageRoute("GET", "/upstream-keys", "viewer", upstream_keys.listing),
    PageRoute("POST", "/upstream-keys", "admin", upstream_keys.add),
    PageRoute("GET", "/upstream-keys/{id}", "viewer", upstream_keys.show),
    PageRoute("POST", "/upstream-keys/{id}", "admin", upstream_keys.update),
    PageRoute("POST", "/upstream-keys/{id}/drain", "admin", upstream_keys.drain),
    PageRoute("POST", "/upstream-keys/{id}/enable", "admin", upstream_keys.enable),
    PageRoute("GET", "/upstream-keys/{id}/disable", "admin", upstream_keys.confirm_disable),
    PageRoute("POST", "/upstream-keys/{id}/disable", "admin", upstream_keys.disable),
    PageRoute("GET", "/upstream-keys/{id}/remove", "admin", upstream_keys.confirm_remove),
    PageRoute("POST", "/upstream-keys/{id}/remove", "admin", upstream_keys.remove),

    PageRoute("GET", "/prices", "viewer", prices.show),
    PageRoute("GET", "/usage", "viewer", usage.show),

    PageRoute("GET", "/alerts", "viewer", alerts.listing),
    PageRoute("GET", "/alerts/deliveries", "viewer", deliveries.listing),
    PageRoute("POST", "/alerts/deliveries/{id}/redeliver", "admin", deliveries.redeliver),
    PageRoute("POST", "/alerts/webhooks", "admin", alerts.add),
    PageRoute("POST", "/alerts/webhooks/{id}/test", "admin", alerts.test),
    PageRoute("POST", "/alerts/webhooks/{id}/enable", "admin", alerts.enable),
    PageRoute("GET", "/alerts/webhooks/{id}/disable", "admin", alerts.confirm_disable),
    PageRoute("POST", "/alerts/webhooks/{id}/disable", "admin", alerts.disable),
    PageRoute("GET", "/alerts/webhooks/{id}/remove", "admin", alerts.confirm_remove),
    PageRoute("POST", "/alerts/webhooks/{id}/remove", "admin", alerts.remove),

    PageRoute("GET", "/access", "viewer", access.listing),
    PageRoute("POST", "/access", "admin", access.issue),
    PageRoute("GET", "/access/{id}/revoke", "admin", access.confirm_revoke),
    PageRoute("POST", "/access/{id}/revoke", "admin", access.revoke),
    PageRoute("POST", "/access/sessions/{id}/end", "admin", access.end_session),
    PageRoute("GET", "/audit", "viewer", audit.show),
    PageRoute("GET", "/connect", "viewer", connect.show),
)
# fmt: on
