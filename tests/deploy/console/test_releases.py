"""Releases in the console: what its buttons ask for, and what stays for the next start."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.release_files import read_release
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import release_to_proto
from tests.deploy.console.visit import Visit, visiting
from tests.shards.bundles import RELEASE, SURFACE

LIVE, CANARY, BEFORE = (release_to_proto(replace(RELEASE, version=version)) for version in ("r2", "r3", "r1"))
DONE = pb.Operation(operation_id="done1", kind="rollback-release", state=pb.OPERATION_STATE_SUCCEEDED)


@pytest.fixture
def operating(tmp_path: Path) -> Iterator[Visit]:
    with visiting(operate=True, workspace=tmp_path) as visit:
        traffic = pb.Traffic(surface=SURFACE, canary=CANARY, canary_percent=5, previous=BEFORE)
        shown = pb.SurfaceReleases(surface=SURFACE, live=LIVE, traffic=traffic)
        visit.cluster.answers["ListReleases"] = pb.ListReleasesResponse(surfaces=[shown])
        visit.cluster.states = [DONE]
        yield visit


def test_what_is_loaded_is_shown_with_its_share(operating: Visit) -> None:
    page = operating.page("/releases")
    assert "95 % of the users get the live release, 5 % the canary" in page
    for expected in ("r1", "r2", "r3", "Roll back to r1", "Promote"):
        assert expected in page


def test_a_rollback_is_asked_for_and_kept(operating: Visit, tmp_path: Path) -> None:
    sent = operating.send("/releases/rollback", surface=SURFACE)
    assert sent.headers["location"] == "/operations/done1"
    assert operating.cluster.named("RollbackRelease") == [pb.RollbackReleaseRequest(surface=SURFACE)]
    deadline_s = time.monotonic() + 20
    while not list(tmp_path.glob("releases/*.json")):
        assert time.monotonic() < deadline_s
        operating.page("/releases")
    assert read_release(Workspace(tmp_path), SURFACE).version == "r2"


def test_shares_promotions_and_tries_are_asked_for(operating: Visit) -> None:
    chosen = {"surface": SURFACE, "version": "r3"}
    operating.send("/releases/share", **chosen, role="canary", percent="12.5")
    operating.send("/releases/promote", **chosen, why="looked at by hand")
    share, promotion = operating.cluster.named("SetTraffic")
    assert (share.release_version, share.percent) == ("r3", 12.5)
    assert (promotion.percent, promotion.quality.override_reason) == (100.0, "looked at by hand")
    operating.send("/releases/try", surface=SURFACE, role="shadow", percent="20")
    (tried,) = operating.cluster.named("DeployRelease")
    assert (tried.release, tried.role, tried.percent) == (BEFORE, pb.RELEASE_ROLE_SHADOW, 20.0)


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        ("/releases/share", {"role": "canary", "percent": "100"}, "by its promotion"),
        ("/releases/share", {"percent": "nan"}, "must be 0 to 100"),
        ("/releases/share", {"percent": "many"}, "must be 0 to 100"),
        ("/releases/promote", {"why": " "}, "say why"),
        ("/releases/try", {"role": "live", "percent": "5"}, "must be canary or shadow"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    operating: Visit, path: str, fields: dict[str, str], expected: str
) -> None:
    refused = operating.send(path, surface=SURFACE, version="r3", **fields)
    assert refused.status_code == 400
    assert expected in refused.text
    assert operating.cluster.named("SetTraffic") == []
