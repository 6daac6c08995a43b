"""Releases that are worse than the live one, on a real controller with real shards."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson, Parse

from deploy.quality_gate import QualityRules, quality_rules
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import release_to_proto
from shards.diversity import Diversity
from shards.errors import InvalidInput, Refused
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from tests.deploy.background import in_background
from tests.deploy.small_cluster import RELEASE, write_workspace
from tests.deploy.test_operators import Operated, operating

GOOD = replace(
    RELEASE,
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("lexical", "1"), k=100),),
    pre_ranker=None,
    ranker=ReleaseScorer(model=ModelVersion("ranker", "1"), candidates=100),
    # The ranker of these bundles has never learned, and is better than chance when turned round.
    task_exponents={"click": -1.0},
)
WORSE = replace(GOOD, version="r2", task_exponents={})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    write_workspace(root)
    return root


@pytest.fixture
def cluster(tmp_path: Path, written: Path) -> Iterator[Operated]:
    root = Path(shutil.copytree(written, tmp_path / "workspace"))
    with in_background(operating(root)) as operated:
        assert deploy(operated, GOOD) == ""
        yield operated


def arguments(cluster: Operated, release: Release, *more: str) -> tuple[str, ...]:
    file, rules = cluster.root / f"{release.version}.json", cluster.root / "rules.json"
    file.write_text(MessageToJson(release_to_proto(release)))
    rules.write_text(json.dumps({"dataset": str(cluster.root / "data"), "queries": 0}))
    own = ("--quality", str(rules), "--workspace", str(cluster.root), *more)
    return ("release", "deploy", str(file), *own)


def deploy(cluster: Operated, release: Release, *more: str) -> str:
    """Deploy the release; returns why it was overridden."""
    cluster.done(*arguments(cluster, release, *more))
    return live(cluster).quality.override_reason


def live(cluster: Operated) -> pb.Release:
    found = Parse(cluster.done("release", "list", "--json"), pb.ListReleasesResponse()).surfaces[0]
    return found.live


def test_a_worse_release_is_refused_and_what_was_live_stays(cluster: Operated) -> None:
    reason = cluster.refused(Refused, *arguments(cluster, WORSE))
    assert "shop@r2 is worse than r1: ndcg_10 by 0." in reason
    assert "--override-reason" in reason
    assert live(cluster).version == "r1"
    assert "r2" not in cluster.done("ops", "list")


def test_a_reason_overrides_and_stays_with_operation_and_release(cluster: Operated) -> None:
    why = "the shop sells out"
    assert deploy(cluster, WORSE, "--override-reason", why) == why
    quality = live(cluster).quality
    lost = {each.name: each.gain for each in quality.measures}
    assert (quality.live_version, quality.queries) == ("r1", 60)
    assert lost["ndcg_10"] < -0.05
    assert lost["gauc"] < -0.05
    assert lost["ece"] == 0.0, "probabilities are the same in any order"
    (operation, *_) = [
        each
        for each in Parse(cluster.done("ops", "list", "--json"), pb.ListOperationsResponse()).operations
        if each.deploy_release.release.version == "r2"
    ]
    shown = " ".join(cluster.done("ops", "show", operation.operation_id).split())
    assert why in shown
    assert "against r1: ndcg_10 -0." in shown
    cluster.done("release", "rollback", WORSE.surface)
    assert live(cluster).version == "r1"


def test_an_equal_release_passes_and_carries_what_was_measured(cluster: Operated) -> None:
    assert deploy(cluster, replace(GOOD, version="r3", merged=140)) == ""
    quality = live(cluster).quality
    assert [each.gain for each in quality.measures if each.name == "ndcg_10"] == [0.0]


def test_a_canary_is_compared_before_it_is_promoted(cluster: Operated) -> None:
    deploy_file, rules = arguments(cluster, WORSE)[2], arguments(cluster, WORSE)[3:]
    cluster.done("release", "canary", deploy_file, "--percent", "5", "--workspace", str(cluster.root))
    assert "is worse" in cluster.refused(Refused, "release", "promote", WORSE.surface, *rules)
    full = ("release", "canary", WORSE.surface, "r2", "--percent", "100", *rules)
    assert "is worse" in cluster.refused(Refused, *full)
    assert live(cluster).version == "r1"
    cluster.done("release", "promote", WORSE.surface, *rules, "--override-reason", "a test of nerves")
    assert (live(cluster).version, live(cluster).quality.override_reason) == ("r2", "a test of nerves")


def test_a_release_that_cannot_answer_is_refused_by_the_field(cluster: Operated) -> None:
    broken = replace(GOOD, version="r4", diversity=Diversity(relevance=0.5, attributes=("brand",)))
    assert "'brand' is not an attribute" in cluster.refused(InvalidInput, *arguments(cluster, broken))


def test_what_has_to_be_compared_and_cannot_is_refused(cluster: Operated) -> None:
    named = arguments(cluster, WORSE)
    (cluster.root / "rules.json").write_text('{"dataset": "nowhere", "required": true}')
    assert "was not compared" in cluster.refused(Refused, *named)
    (cluster.root / "rules.json").write_text('{"dataset": "nowhere"}')
    cluster.done(*named)
    assert (live(cluster).version, live(cluster).HasField("quality")) == ("r2", False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"queries": -1}', "queries must not be negative"),
        ('{"tolerated": {"auc": -0.1}}', "auc must not be negative"),
        ('{"tolerated": {"clicks": 0}}', "clicks"),
        ("no json", "quality.json"),
    ],
)
def test_bad_rules_are_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "quality.json").write_text(text)
    with pytest.raises(InvalidInput, match=problem):
        quality_rules(None, Workspace(tmp_path))


def test_without_a_file_rules_are_the_defaults(tmp_path: Path) -> None:
    assert quality_rules(None, Workspace(tmp_path)) == QualityRules()
    with pytest.raises(InvalidInput, match=r"missing\.json"):
        quality_rules(tmp_path / "missing.json", Workspace(tmp_path))
