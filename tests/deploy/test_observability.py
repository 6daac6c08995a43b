"""Dashboard, alerts and documentation, held against what real processes export."""

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml

from deploy.settings import PROJECT_ROOT, ClusterSettings
from deploy.telemetry import telemetry
from deploy.workspace import Workspace
from services.telemetry_settings import CONTROLLER, ROUTER, SHARD, Telemetry
from tests.deploy.dashboard import ALERTS, DASHBOARD, alerts, dashboard_queries
from tests.deploy.observed_cluster import observed_cluster
from tests.deploy.promql import read_query
from tests.services.scraping import Scraped

PROMETHEUS = PROJECT_ROOT / "deploy" / "prometheus" / "prometheus.yml"
DOCUMENT = PROJECT_ROOT / "docs" / "observability.md"

ADDED_BY_PROMETHEUS = {"job", "instance", "role", "process", "le"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scraped]:
    """Return what each role exports."""

    async def main() -> dict[str, Scraped]:
        async with observed_cluster(tmp_path_factory.mktemp("exported")) as cluster:
            return await cluster.scrape()

    return asyncio.run(main())


def labels_by_metric(exported: dict[str, Scraped]) -> dict[str, set[str]]:
    """Return the labels of every metric that somebody exports, by the names that queries use."""
    known: dict[str, set[str]] = {"up": set()}
    for scraped in exported.values():
        for name, kind in scraped.kinds.items():
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            for suffix in suffixes:
                known[name + suffix] = scraped.labels(name) | ({"le"} if suffix == "_bucket" else set())
    return known


def check_query(text: str, known: dict[str, set[str]]) -> None:
    query = read_query(text)
    assert query.selected, text
    for metric, labels in query.selected.items():
        assert metric in known, f"{metric} of {text} is exported by nobody"
        assert labels <= known[metric] | ADDED_BY_PROMETHEUS, f"{labels} of {metric} in {text}"
    usable = set().union(*(known[metric] for metric in query.selected)) | ADDED_BY_PROMETHEUS
    assert query.grouped <= usable, f"{query.grouped} in {text}"


def test_every_query_of_the_dashboard_asks_for_what_is_exported(exported: dict[str, Scraped]) -> None:
    known = labels_by_metric(exported)
    queries = list(dashboard_queries())
    assert len(queries) > 20
    for _, text in queries:
        check_query(text, known)


def test_every_alert_asks_for_what_is_exported_and_is_explained(exported: dict[str, Scraped]) -> None:
    known = labels_by_metric(exported)
    explained = DOCUMENT.read_text()
    for rule in alerts():
        query = read_query(rule["expr"])
        check_query(rule["expr"], known)
        assert f"| `{rule['alert']}` |" in explained
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        kept = query.grouped or set().union(*(known[metric] for metric in query.selected))
        assert named <= kept | ({"process", "role"} if not query.grouped else set())


def test_the_dashboard_can_be_imported() -> None:
    document = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= document.keys()
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    cells = [
        (x, y)
        for panel in document["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells), "panels cover each other"
    assert max(x for x, _ in cells) < 24
    variables = {variable["name"] for variable in document["templating"]["list"]}
    used = {name for _, text in dashboard_queries() for name in re.findall(r"\$(\w+)", text)}
    assert used <= variables | {"__rate_interval"}


def test_variables_of_the_dashboard_are_labels_that_exist(exported: dict[str, Scraped]) -> None:
    known = labels_by_metric(exported)
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert found
            assert found[2] in known[found[1]]


def test_the_document_names_every_metric_with_its_labels(exported: dict[str, Scraped]) -> None:
    sections = re.split(r"^### ", DOCUMENT.read_text(), flags=re.MULTILINE)
    written: dict[str, dict[str, set[str]]] = {}
    for section in sections:
        rows = re.findall(r"^\| `(\w+)` \|([^|]*)\| [^|]+ \|$", section, flags=re.MULTILINE)
        written[section.partition("\n")[0]] = {name: set(re.findall(r"`(\w+)`", own)) for name, own in rows}
    every = written["Every process"]
    for role, heading in ((ROUTER, "Routers"), (SHARD, "Shards"), (CONTROLLER, "Controllers")):
        scraped = exported[role]
        own = {name: scraped.labels(name) for name in scraped.kinds}
        assert own == written[heading] | every


def test_every_metric_is_on_the_dashboard_or_in_an_alert(exported: dict[str, Scraped]) -> None:
    asked = {name for _, text in dashboard_queries() for name in read_query(text).selected}
    asked |= {name for rule in alerts() for name in read_query(rule["expr"]).selected}
    asked = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    ours = {name for scraped in exported.values() for name in scraped.kinds if name.startswith("headrace_")}
    assert ours - asked == set()


def test_prometheus_reads_what_processes_note() -> None:
    document = yaml.safe_load(PROMETHEUS.read_text())
    (job,) = document["scrape_configs"]
    (files,) = job["file_sd_configs"]
    (pattern,) = files["files"]
    assert Path(pattern).parent == Workspace(Path("/var/lib/headrace")).metrics_dir
    assert document["rule_files"] == [ALERTS.name]


def test_the_settings_in_the_document_are_the_defaults(tmp_path: Path) -> None:
    block = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    assert block
    path = tmp_path / "telemetry.json"
    path.write_text(block[1])
    assert telemetry(ClusterSettings(workspace="w", telemetry_path=str(path))) == Telemetry()
    named = {part: set(fields) for part, fields in json.loads(block[1]).items()}
    assert named == {
        "metrics": set(Telemetry().metrics.__dataclass_fields__),
        "traces": set(Telemetry().traces.__dataclass_fields__),
        "logs": set(Telemetry().logs.__dataclass_fields__),
    }


@pytest.mark.parametrize("wrong", ["rate(no_such_metric[5m])", 'headrace_router_gaps_total{colour="red"}'])
def test_a_query_for_what_nobody_exports_is_found(exported: dict[str, Scraped], wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_query(wrong, labels_by_metric(exported))
