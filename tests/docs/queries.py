"""The queries of deploy/monitoring."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.docs.pages import page

DASHBOARD = "deploy/monitoring/grafana-dashboard.json"
RULES = "deploy/monitoring/alerts.rules.yml"
SCRAPES = "deploy/monitoring/prometheus.yml"


@dataclass(frozen=True)
class Query:
    """An expression of a panel, with the text of its legend."""

    panel: str
    expression: str
    legend: str

    def at_once(self) -> str:
        """The expression as Prometheus takes it, without Grafana's variables."""
        return self.expression.replace("$__rate_interval", "1m")


@cache
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page(DASHBOARD))
    return found


@cache
def panel_queries() -> list[Query]:
    """Every query of the dashboard."""
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


@cache
def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(page(RULES))["groups"]
    return [rule for group in groups for rule in group["rules"]]
