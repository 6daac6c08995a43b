"""What the dashboard asks and the alerts watch."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.settings import PROJECT_ROOT

DASHBOARD = PROJECT_ROOT / "deploy" / "grafana" / "headrace.json"
ALERTS = PROJECT_ROOT / "deploy" / "prometheus" / "alerts.yml"


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Give the title of each panel with each of its queries."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def filled_in(query: str) -> str:
    """Return a query with the values that Grafana would fill in."""
    return query.replace("$__rate_interval", "1m").replace("$surface", ".*")


def alerts() -> list[dict[str, Any]]:
    """Return the alert rules."""
    document = yaml.safe_load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]
