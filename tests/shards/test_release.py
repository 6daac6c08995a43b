from shards.release import ModelVersion, Release, ReleaseChannel, Stage

TOWER, WORDS = ModelVersion("tower", "1"), ModelVersion("words", "1")
RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(
        ReleaseChannel(name="ann", model=TOWER, partitions=2),
        ReleaseChannel(name="lexical", model=WORDS),
    ),
)


def test_partitions_are_pinned_in_place_of_the_model() -> None:
    parts = ModelVersion("tower.0-of-2", "1"), ModelVersion("tower.1-of-2", "1")
    assert RELEASE.models() == dict.fromkeys((*parts, WORDS), Stage.RETRIEVAL)
    assert RELEASE.partition_groups() == dict.fromkeys(parts, "tower@1")
