"""What a client makes of a placement is what the router makes of it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.routing_table import RoutingTable
from router.shard_directory import Owners, directory_of
from services.codec import placement_to_proto
from shards.errors import HeadraceError
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer, Stage

NAMES, VERSIONS, SHARDS = "abc", "12", ("s1", "s2", "s3")
MODELS = [ModelVersion(name, version) for name in NAMES for version in VERSIONS]
model = st.sampled_from(MODELS)
releases = st.builds(
    lambda surface, channel, parts, scorer: Release(
        surface=surface,
        version="r",
        channels=(ReleaseChannel(name="c", model=channel, partitions=parts),),
        ranker=scorer and ReleaseScorer(model=scorer, candidates=5),
    ),
    st.sampled_from("xy"),
    model,
    st.sampled_from([1, 2]),
    st.none() | model,
)
assignments = st.dictionaries(model, st.lists(st.sampled_from((*SHARDS, "unknown")), unique=True, max_size=3))


@given(assignments, st.lists(releases, max_size=2))
def test_it_sends_calls_where_a_router_would(
    holders: Mapping[ModelVersion, list[str]], live: list[Release]
) -> None:
    placement = Placement(
        generation=1,
        endpoints={shard_id: f"{shard_id}:1" for shard_id in SHARDS},
        assignments={
            held: Assignment(model=held, stage=Stage.RETRIEVAL, shard_ids=tuple(shard_ids))
            for held, shard_ids in holders.items()
        },
        releases={release.surface: release for release in live},
    )
    table, directory = RoutingTable(placement), directory_of(placement_to_proto(placement))
    for name in NAMES:
        for version in ("", *VERSIONS):
            assert directory.find(name, version) == routed(table, name, version)


def routed(table: RoutingTable, name: str, version: str) -> Owners | None:
    try:
        asked = ModelVersion(name, version) if version else table.live_version(name)
        replicas = table.replicas(asked)
    except HeadraceError:
        return None
    return Owners(asked.version, tuple(each.address for each in replicas)) if replicas else None


@pytest.mark.parametrize("version", ["", "1"])
def test_it_knows_nothing_of_an_empty_placement(version: str) -> None:
    assert directory_of(placement_to_proto(Placement())).find("a", version) is None
