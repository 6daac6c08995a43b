"""The console in headless Chromium, over a real cluster that `headrace up` started with it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson

from deploy.controller_client import TIMEOUT_S, asked
from deploy.release_files import read_release
from deploy.settings import PROJECT_ROOT
from protos.headrace.v1 import cluster_service_pb2 as pb
from router.credentials import NOTHING
from services.codec import release_to_proto
from tests.deploy.console.browser import Browser, Keys, browsing
from tests.deploy.running_cluster import (
    PATIENT,
    RunningCluster,
    make_workspace,
    run,
    running_cluster,
    wait_until,
)
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster

SCREENSHOTS = PROJECT_ROOT / "build" / "console"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    workspace = make_workspace(tmp_path_factory.mktemp("console"))
    options = ("--shards", "2", "--replicas", "1", "--console-port", "0", "--console-operate")
    with running_cluster(workspace, *options) as running:
        yield running


@pytest.fixture(scope="module")
def browser(cluster: RunningCluster) -> Iterator[Browser]:
    with browsing(cluster.console, SCREENSHOTS) as opened:
        yield opened
        assert opened.complaints() == []


def holder_of(cluster: RunningCluster, model: str) -> str:
    """Return the shard that routers ask for a model."""

    async def listed() -> pb.ListModelsResponse:
        request = pb.ListModelsRequest()
        return await asked(cluster.controller, NOTHING, lambda s: s.ListModels(request, timeout=TIMEOUT_S))

    found = next(m for m in asyncio.run(listed()).models if m.model.model == model)
    return found.shard_ids[0]


def test_pages_are_reached_by_keys_alone(browser: Browser) -> None:
    browser.open("/shards")
    browser.wait_for(".shard h2", "shard-1")
    browser.press(Keys.TAB)
    assert browser.focused().text == "Skip to the content"
    browser.press(Keys.ENTER)
    assert browser.focused().get_attribute("id") == "main"
    browser.press("?")
    assert browser.find("dialog[open]").text.startswith("Keyboard")
    browser.press(Keys.ESCAPE)
    assert browser.all("dialog[open]") == []
    browser.press("t")
    assert browser.find("html").get_attribute("data-theme") == "dark"
    browser.press("t")
    assert browser.find("html").get_attribute("data-theme") == "light"
    browser.forget_theme()
    for key, heading in (
        ("p", "Plan"),
        ("r", "Releases"),
        ("g", "Gate"),
        ("o", "Operations"),
        ("s", "Search"),
    ):
        browser.press("g", key)
        browser.wait_for("h1", heading)
        if browser.focused().tag_name == "input":
            browser.press(Keys.ESCAPE)
    browser.press("g", "m")
    browser.wait_for("h1", "Shard map")
    browser.press("/")
    browser.wait_for("h1", "Search")
    assert browser.focused().get_attribute("name") == "q"


def test_a_search_is_explained(browser: Browser) -> None:
    browser.open("/search")
    browser.press("red mug")
    browser.find("input[name=user]").send_keys("u1", Keys.ENTER)
    browser.wait_for(".item .what", "item-")
    browser.wait_for("#said", "10 items found")
    assert "q=red%20mug" in browser.driver.current_url
    first, second = browser.all(".item summary")[:2]
    assert len(browser.all(".item:first-child .why .bars tr")) > 3
    second.send_keys(Keys.ENTER)
    assert browser.find(".item:nth-child(2) .why").is_displayed()
    browser.wait_for("#answer", "two_tower")
    for part in ("#funnel", "#times", "#moves", "#gate-decision", "#stages"):
        assert browser.find(part).is_displayed()
    assert first.is_displayed()
    browser.looks("search")


def test_a_move_is_planned_applied_and_watched_to_its_end(browser: Browser, cluster: RunningCluster) -> None:
    holder = holder_of(cluster, "ranker")
    taker = {"shard-0": "shard-1", "shard-1": "shard-0"}[holder]
    browser.open("/plan")
    browser.choose("model", "ranker@1")
    browser.choose("from", holder)
    browser.choose("to", taker)
    browser.find("form[aria-label='Try a move'] button").click()
    browser.wait_for("#preview", "What it would do")
    browser.wait_for("td", "an operator asked for it")
    browser.looks("plan")
    browser.find("form[action='/plan/apply'] button").click()
    browser.wait_for("h1", "Apply 1 move")
    browser.wait_for("#operation .pill", "succeeded")
    browser.looks("operation")
    assert holder_of(cluster, "ranker") == taker
    browser.open("/shards")
    browser.wait_for(".shard h2", taker)
    browser.looks("shards")


def test_a_release_is_rolled_back(browser: Browser, cluster: RunningCluster, tmp_path: Path) -> None:
    newer = tmp_path / "r2.json"
    newer.write_text(MessageToJson(release_to_proto(replace(PATIENT, version="r2", merged=100))))
    folder = str(cluster.workspace.root)
    deployed = run("release", "deploy", str(newer), "--workspace", folder)
    assert deployed.returncode == 0, deployed.stderr
    browser.open("/releases")
    browser.wait_for("tbody tr:first-child", "r2")
    browser.find(".action > summary").click()
    browser.looks("releases")
    browser.find("form[action='/releases/rollback'] button").click()
    browser.wait_for("#operation .pill", "succeeded")
    browser.open("/releases")
    browser.wait_for("tbody tr:first-child", PATIENT.version)
    # The next start of this workspace's cluster deploys what is live now.
    wait_until(lambda: read_release(cluster.workspace, SURFACE).version == PATIENT.version)


def test_the_gate_is_live(browser: Browser) -> None:
    browser.open("/gate")
    browser.wait_for(".tile", "Trigger rate now")
    browser.looks("gate")
