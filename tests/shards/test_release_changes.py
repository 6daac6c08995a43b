"""Canary, shadow, promotion, rollback and aliases: each flips by one commit, or says why not."""

from dataclasses import replace

import pytest

from shards.changes import Change, DeployRelease, FreezeCluster, RollbackRelease, SetAlias, SetTraffic
from shards.cluster_events import CommitPlacement, LoadModel, RefuseChange
from shards.errors import Conflict, HeadraceError, InvalidInput, NotFound, Refused
from shards.intent import OperationState
from shards.release import ReleaseRole, Traffic
from tests.shards.controller_rig import Rig, only, release

SEVEN, EIGHT = release("7"), release("8", ranker="new-ranker")


def live() -> Rig:
    return Rig("s1", "s2").live(SEVEN)


def traffic(rig: Rig) -> Traffic:
    return rig.state.placement.traffic.get("web", Traffic())


def refused(rig: Rig, change: Change) -> HeadraceError:
    """Return the error; an operation that failed with it is to be seen, and nothing is committed."""
    generation = rig.state.placement.generation
    (refusal,) = only(RefuseChange, rig.change(change, "refused"))
    assert rig.operation("refused").state is OperationState.FAILED
    assert rig.operation("refused").detail == str(refusal.error)
    assert rig.state.placement.generation == generation
    return refusal.error


def test_a_canary_answers_its_share_once_it_is_loaded_everywhere() -> None:
    rig = live()
    loads = rig.deploy(EIGHT, "canary", role=ReleaseRole.CANARY, percent=5.0)
    assert traffic(rig) == Traffic()
    rig.work(loads)
    assert traffic(rig) == Traffic(canary=EIGHT, canary_percent=5.0)
    assert rig.state.placement.releases["web"] == SEVEN
    assert rig.holders("new-ranker") == ("s1", "s2")
    rig.change(SetTraffic(surface="web", version="8", percent=20.0), "more")
    assert traffic(rig).canary_percent == 20.0
    assert rig.operation("more").detail == "20 %"


def test_a_canary_is_promoted_by_one_commit() -> None:
    rig = live()
    rig.work(rig.deploy(EIGHT, "canary", role=ReleaseRole.CANARY, percent=5.0))
    actions = rig.change(SetTraffic(surface="web", version="8", percent=100.0), "promote")
    assert len(only(CommitPlacement, actions)) == 1
    assert rig.state.placement.releases["web"] == EIGHT
    assert traffic(rig) == Traffic(previous=SEVEN)
    assert rig.operation("promote").state is OperationState.SUCCEEDED


@pytest.mark.parametrize("role", [ReleaseRole.CANARY, ReleaseRole.SHADOW])
def test_what_is_ended_is_unloaded(role: ReleaseRole) -> None:
    rig = live()
    rig.work(rig.deploy(EIGHT, "beside", role=role, percent=5.0))
    rig.change(SetTraffic(surface="web", version="8", percent=0.0), "end")
    assert traffic(rig) == Traffic()
    rig.run(10_000)
    assert {model.model for held in rig.held.values() for model in held} == {"towers", "ranker"}


def test_a_rollback_to_what_is_loaded_is_one_commit_and_back_again() -> None:
    rig = live()
    rig.work(rig.deploy(EIGHT, "next"))
    assert traffic(rig) == Traffic(previous=SEVEN)
    for there, back in ((SEVEN, EIGHT), (EIGHT, SEVEN)):
        actions = rig.change(RollbackRelease(surface="web"), f"to-{there.version}")
        assert len(only(CommitPlacement, actions)) == 1
        assert rig.state.placement.releases["web"] == there
        assert traffic(rig) == Traffic(previous=back)


def test_a_rollback_to_what_is_gone_loads_it_first() -> None:
    rig = live()
    rig.work(rig.deploy(EIGHT, "next"))
    for held in rig.held.values():
        held.pop(SEVEN.ranker.model)  # type: ignore[union-attr]
    rig.state = replace(rig.state, failures={})
    loads = rig.see()
    rig.change(RollbackRelease(surface="web"), "back")
    assert rig.operation("back").running
    assert rig.state.placement.releases["web"] == EIGHT
    rig.work(loads)
    rig.run(3_000)
    assert rig.state.placement.releases["web"] == SEVEN


def test_what_makes_no_sense_of_a_surface_is_refused_with_a_reason() -> None:
    rig = live()
    cases: list[tuple[Change, type[HeadraceError], str]] = [
        (RollbackRelease(surface="web"), Refused, "web has no release before '7' to go back to"),
        (RollbackRelease(surface="gifts"), NotFound, "surface 'gifts'"),
        (SetTraffic(surface="web", version="9", percent=5), NotFound, "'web@9'"),
        (SetAlias(alias="web", target="web"), InvalidInput, "alias: hides the surface 'web'"),
        (SetAlias(alias="shop", target="gifts"), NotFound, "surface 'gifts'"),
        (SetAlias(alias="shop", target="web@9"), NotFound, "release 'web@9'"),
        (SetAlias(alias="shop", target="web@canary"), NotFound, "release 'web@canary'"),
        (SetAlias(alias="shop", target=""), NotFound, "alias 'shop'"),
        (DeployRelease(release=SEVEN, role=ReleaseRole.CANARY, percent=5), InvalidInput, "is live already"),
        (
            DeployRelease(release=release("1", surface="gifts"), role=ReleaseRole.SHADOW),
            Refused,
            "gifts has no live release",
        ),
    ]
    for change, kind, words in cases:
        error = refused(rig, change)
        assert isinstance(error, kind), change
        assert words in str(error)


def test_an_alias_stands_for_a_surface_until_it_is_removed() -> None:
    rig = live()
    rig.change(SetAlias(alias="shop", target="web@live"), "name")
    assert rig.state.placement.aliases == {"shop": "web@live"}
    assert "is an alias of" in str(refused(rig, DeployRelease(release=release("1", surface="shop"))))
    rig.change(SetAlias(alias="shop", target=""), "remove")
    assert rig.state.placement.aliases == {}


def test_two_operators_do_not_change_one_surface_at_once() -> None:
    rig = live()
    rig.deploy(EIGHT, "first", role=ReleaseRole.CANARY, percent=5.0)
    error = refused(rig, RollbackRelease(surface="web"))
    assert isinstance(error, Conflict)
    assert str(error) == "operation first (deploy-release) is changing web"


def test_a_frozen_cluster_flips_and_is_unfrozen_and_does_nothing_else() -> None:
    rig = live()
    rig.work(rig.deploy(EIGHT, "next"))
    rig.change(FreezeCluster(frozen=True), "freeze")
    assert rig.state.placement.intent.frozen
    error = refused(rig, DeployRelease(release=release("9")))
    assert isinstance(error, Refused)
    assert error.reason == "CLUSTER_FROZEN"
    rig.change(RollbackRelease(surface="web"), "back")
    assert rig.state.placement.releases["web"] == SEVEN
    rig.held["s2"] = {}
    assert only(LoadModel, rig.see(after_ms=10_000)) == []
    rig.work(rig.change(FreezeCluster(frozen=False), "go on"))
    rig.run(5_000)
    assert rig.held["s2"]
