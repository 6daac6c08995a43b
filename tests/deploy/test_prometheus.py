"""Configuration, rules and dashboard as a real Prometheus takes them, over processes that really run."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.telemetry_settings import CONTROLLER, ROUTER, SHARD
from tests.deploy.dashboard import alerts, dashboard_queries, filled_in
from tests.deploy.observed_cluster import ObservedCluster, observed_cluster
from tests.deploy.prometheus_server import CONFIGURATION, PrometheusServer, promtool, running_prometheus
from tests.shards.bundles import SURFACE

CASES = Path(__file__).with_name("alert_cases.yml")
DEGRADED = "HeadraceAnswersDegraded"
_WITHIN_S = 60.0


@pytest.mark.parametrize("name", ["prometheus.yml", "kubernetes.yml"])
def test_prometheus_takes_the_configuration(tmp_path: Path, name: str) -> None:
    document = yaml.safe_load((CONFIGURATION / name).read_text())
    for job in document["scrape_configs"]:
        # Debian's Prometheus is built without it.
        job.pop("kubernetes_sd_configs", None)
    (tmp_path / name).write_text(yaml.safe_dump(document))
    checked = promtool("check", "config", "--syntax-only", str(tmp_path / name))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_takes_the_rules() -> None:
    checked = promtool("check", "rules", "--lint-fatal", str(CONFIGURATION / "alerts.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_raised_where_it_shall_be_and_not_else() -> None:
    checked = promtool("test", "rules", str(CASES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    well, ill = yaml.safe_load(CASES.read_text())["tests"]
    tested = [[case["alertname"] for case in cases["alert_rule_test"]] for cases in (well, ill)]
    assert tested == [[rule["alert"] for rule in alerts()]] * 2
    assert not any("exp_alerts" in case for case in well["alert_rule_test"])
    assert all(case["exp_alerts"] for case in ill["alert_rule_test"])


async def scraped_twice(prometheus: PrometheusServer, cluster: ObservedCluster) -> None:
    """Search until Prometheus has seen the number of searches grow, which rates need."""
    async with asyncio.timeout(_WITHIN_S):
        while not any(
            float(series["value"][1]) > 0
            for series in await prometheus.query("rate(headrace_router_gaps_total[1m])")
        ):
            await cluster.visit()
            await asyncio.sleep(0.2)


async def all_up(prometheus: PrometheusServer) -> None:
    """Return once the newest scrape of every process has succeeded; one may be late on a busy machine."""
    wanted = {(role, role): "1" for role in (ROUTER, SHARD, CONTROLLER)}
    up: dict[tuple[str, str], str] = {}
    give_up_s = time.monotonic() + _WITHIN_S
    while up != wanted:
        assert time.monotonic() < give_up_s, up
        await asyncio.sleep(0.2)
        up = {
            (series["metric"]["role"], series["metric"]["process"]): series["value"][1]
            for series in await prometheus.query('up{job="headrace"}')
        }


async def rules_at_work(prometheus: PrometheusServer) -> list[dict[str, Any]]:
    """Return the rules once they have been looked at, and have found that answers lack something."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            (group,) = (await prometheus.ask("rules"))["groups"]
            rules: list[dict[str, Any]] = group["rules"]
            if any(rule["name"] == DEGRADED and rule["alerts"] for rule in rules):
                return rules
            await asyncio.sleep(0.2)


def test_every_query_finds_what_it_asks_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            observed_cluster(tmp_path / "w") as cluster,
            running_prometheus(tmp_path / "prometheus", tmp_path / "w") as prometheus,
        ):
            await scraped_twice(prometheus, cluster)
            await all_up(prometheus)
            for title, text in dashboard_queries():
                found = await prometheus.query(filled_in(text))
                # A comparison, and calls that fail, may well find nothing.
                assert found or ">" in text or "!=" in text, f"{title}: nothing for {text}"
            rules = await rules_at_work(prometheus)
            assert [rule["name"] for rule in rules] == [rule["alert"] for rule in alerts()]
            assert {rule["health"] for rule in rules} == {"ok"}
            # Every answer lacks the ranker, whose shard is gone.
            (labels,) = (
                each["labels"] for rule in rules if rule["name"] == DEGRADED for each in rule["alerts"]
            )
            assert (labels["surface"], labels["stage"]) == (SURFACE, "ranking")

    asyncio.run(main())
