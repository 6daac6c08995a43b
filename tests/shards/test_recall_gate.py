"""A release whose replicas miss too much does not go live, and says why, unless there is a reason."""

from dataclasses import replace

import pytest

from shards.changes import RollbackRelease, SetTraffic
from shards.intent import OperationState
from shards.live_quality import UNKNOWN, LiveQuality, Recall
from shards.release import Release, ReleaseRole, Traffic
from shards.release_quality import ReleaseQuality
from tests.shards.controller_rig import Rig, release, version

SEVEN, EIGHT = release("7"), release("8", retriever="coarse")
LOW, HIGH = LiveQuality(golden=Recall.of(6.0, 8)), LiveQuality(golden=Recall.of(8.0, 8))
OVERRIDDEN = ReleaseQuality(override_reason="the index is new")


def live() -> Rig:
    rig = Rig("s1", "s2").live(SEVEN)
    rig.state = replace(rig.state, settings=replace(rig.state.settings, min_recall=0.9))
    return rig


def deploy(
    rig: Rig,
    wanted: Release,
    quality: LiveQuality,
    role: ReleaseRole = ReleaseRole.LIVE,
    percent: float = 100.0,
) -> None:
    """Deploy a release, of whose bundle "coarse" the shards measure this as they load it."""
    rig.quality[version("coarse")] = quality
    rig.work(rig.deploy(wanted, role=role, percent=percent))
    rig.see()


def measured(rig: Rig, quality: LiveQuality) -> None:
    """Let every shard tell this of bundle "coarse" from now on."""
    for held in rig.held.values():
        for model, replica in list(held.items()):
            if model.model == "coarse":
                held[model] = replace(replica, quality=quality)
    rig.see()


def test_a_release_that_misses_too_much_is_refused_and_the_old_one_stays() -> None:
    rig = live()
    deploy(rig, EIGHT, LOW)
    operation = rig.operation()
    assert operation.state is OperationState.FAILED
    for told in ("coarse@1", "0.750", "8 searches", "least of 0.9", "--override-reason"):
        assert told in operation.detail
    assert rig.state.placement.releases["web"] == SEVEN


@pytest.mark.parametrize("quality", [HIGH, UNKNOWN])
def test_one_that_does_not_goes_live(quality: LiveQuality) -> None:
    rig = live()
    deploy(rig, EIGHT, quality)
    assert rig.state.placement.releases["web"] == EIGHT


def test_so_does_one_that_has_a_reason() -> None:
    rig = live()
    deploy(rig, replace(EIGHT, quality=OVERRIDDEN), LOW)
    assert rig.state.placement.releases["web"].version == "8"


def test_nothing_is_asked_for_unless_it_is_set() -> None:
    rig = Rig("s1", "s2").live(SEVEN)
    deploy(rig, EIGHT, LOW)
    assert rig.state.placement.releases["web"] == EIGHT


def test_a_first_release_answers_however_poorly() -> None:
    rig = Rig("s1", "s2")
    rig.see()
    rig.state = replace(rig.state, settings=replace(rig.state.settings, min_recall=0.9))
    deploy(rig, EIGHT, LOW)
    assert rig.state.placement.releases["web"] == EIGHT


def canary(rig: Rig) -> None:
    deploy(rig, EIGHT, LOW, ReleaseRole.CANARY, 5.0)
    assert rig.state.placement.traffic["web"].canary == EIGHT


def promote(rig: Rig, quality: ReleaseQuality | None = None) -> None:
    rig.change(SetTraffic(surface="web", version="8", percent=100.0, quality=quality), "promote")


def test_a_canary_is_let_through_and_promoted_by_what_its_searches_tell() -> None:
    rig = live()
    canary(rig)
    promote(rig)
    assert "recall of coarse@1" in rig.operation("promote").detail
    assert rig.state.placement.releases["web"] == SEVEN
    measured(rig, replace(LOW, live=Recall.of(299.0, 300)))
    promote(rig)
    assert rig.state.placement.releases["web"] == EIGHT


def test_a_canary_whose_live_recall_is_low_is_not_promoted_but_for_a_reason() -> None:
    rig = live()
    canary(rig)
    measured(rig, replace(HIGH, live=Recall.of(240.0, 300)))
    promote(rig)
    assert "0.800" in rig.operation("promote").detail
    promote(rig, OVERRIDDEN)
    assert rig.state.placement.releases["web"].version == "8"


def test_a_rollback_always_goes_through() -> None:
    rig = live()
    deploy(rig, replace(EIGHT, quality=OVERRIDDEN), LOW)
    rig.change(RollbackRelease(surface="web"), "back")
    rig.change(RollbackRelease(surface="web"), "again")
    assert rig.state.placement.releases["web"].version == "8"
    assert rig.state.placement.traffic["web"] == Traffic(previous=SEVEN)
