"""The whole dashboard on one page: read this first. Paths are below `/admin`.

The role is the least a row takes; a `viewer` sees every page and changes nothing. `serving.py` serves the rows. What a
page changes, it changes by a row of the admin API, so checks, announcements and audit are the same for both.
"""

from __future__ import annotations

from gateway.admin.pages import overview, teams
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
)
# fmt: on
