import pytest

from router.routing_table import NO_PLACEMENT, Endpoint, RoutingTable
from shards.errors import InvalidInput, NotFound
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Release, ReleaseChannel, Stage, Traffic

TOWER_1, TOWER_2 = ModelVersion("tower", "1"), ModelVersion("tower", "2")
WORDS = ModelVersion("words", "1")


def release(surface: str, *models: ModelVersion) -> Release:
    return Release(
        surface=surface,
        version="r1",
        channels=tuple(ReleaseChannel(name=model.model, model=model) for model in models),
    )


def assigned(model: ModelVersion, *shard_ids: str) -> Assignment:
    return Assignment(model=model, stage=Stage.RETRIEVAL, shard_ids=shard_ids)


TABLE = RoutingTable(
    Placement(
        generation=7,
        endpoints={"s1": "h1:1", "s2": "h2:2"},
        assignments={
            TOWER_1: assigned(TOWER_1, "s1", "s2", "gone"),
            TOWER_2: assigned(TOWER_2, "gone"),
            WORDS: assigned(WORDS, "s2"),
        },
        releases={"gifts": release("gifts", TOWER_1, WORDS), "films": release("films", WORDS)},
    )
)


def test_replicas_are_the_shards_that_can_be_reached() -> None:
    assert TABLE.replicas(TOWER_1) == (Endpoint("s1", "h1:1"), Endpoint("s2", "h2:2"))
    assert TABLE.replicas(TOWER_2) == ()
    assert TABLE.generation == 7


def test_models_are_together_where_going_to_all_of_them_at_once_gives_up_no_replica() -> None:
    both = {"one": ("s1", "s2"), "two": ("s2", "s1"), "half": ("s1",), "three": ("s2", "s3"), "gone": ("s9",)}
    models = {name: ModelVersion(name, "1") for name in both}
    table = RoutingTable(
        Placement(
            endpoints={"s1": "h1:1", "s2": "h2:2", "s3": "h3:3"},
            assignments={models[name]: assigned(models[name], *shards) for name, shards in both.items()},
        )
    )
    for names, together in (
        (("one", "two"), True),
        (("one",), True),
        (("one", "half"), False),
        (("one", "three"), False),
        (("one", "gone"), False),
        (("gone",), False),
    ):
        assert table.together(tuple(models[name] for name in names)) is together, names
    assert table.replicas(models["one"], models["three"]) == (Endpoint("s2", "h2:2"),)
    with pytest.raises(NotFound, match="ghost"):
        table.together((models["one"], ModelVersion("ghost", "1")))


def test_an_unknown_model_or_version_is_not_found() -> None:
    with pytest.raises(NotFound, match="model 'tower@3' does not exist"):
        TABLE.replicas(ModelVersion("tower", "3"))


def test_a_release_is_found_by_its_surface() -> None:
    assert TABLE.release("films").channels[0].model == WORDS
    with pytest.raises(NotFound, match="surface 'books' does not exist") as caught:
        TABLE.release("books")
    assert caught.value.kind == "surface"


def test_the_live_version_is_the_one_releases_pin() -> None:
    assert TABLE.live_version("words") == WORDS
    assert TABLE.live_version("tower") == TOWER_1
    with pytest.raises(NotFound, match="model 'ghost' does not exist"):
        TABLE.live_version("ghost")


def test_two_live_versions_must_be_told_apart() -> None:
    releases = {"a": release("a", TOWER_1), "b": release("b", TOWER_2)}
    with pytest.raises(InvalidInput, match=r"model\.version: name one; several are live: 1, 2"):
        RoutingTable(Placement(releases=releases)).live_version("tower")


def test_a_model_beside_the_live_releases_is_asked_for_by_its_version() -> None:
    table = RoutingTable(
        Placement(
            assignments={model: assigned(model) for model in (TOWER_1, TOWER_2, WORDS)},
            releases={"gifts": release("gifts", WORDS)},
            traffic={"gifts": Traffic(canary=release("gifts", TOWER_2), previous=release("gifts", TOWER_1))},
        )
    )
    assert table.live_version("words") == WORDS
    with pytest.raises(
        InvalidInput, match=r"model\.version: name one; no live release uses it, loaded: 1, 2"
    ):
        table.live_version("tower")
    assert table.replicas(TOWER_2) == ()


def test_a_canary_does_not_make_a_live_version_ambiguous() -> None:
    traffic = {"gifts": Traffic(canary=release("gifts", TOWER_2), canary_percent=50.0)}
    table = RoutingTable(Placement(releases={"gifts": release("gifts", TOWER_1)}, traffic=traffic))
    assert table.live_version("tower") == TOWER_1


def test_a_table_answers_by_name_and_user() -> None:
    traffic = {"gifts": Traffic(canary=release("gifts", TOWER_2), canary_percent=100.0)}
    live = release("gifts", TOWER_1)
    table = RoutingTable(Placement(releases={"gifts": live}, traffic=traffic, aliases={"shop": "gifts@live"}))
    assert table.release("gifts", "u1") == traffic["gifts"].canary
    assert table.release("shop", "u1") == table.release("gifts") == live
    assert table.shadow(live, "q1") is None


def test_no_placement_knows_nothing() -> None:
    with pytest.raises(NotFound):
        NO_PLACEMENT.release("gifts")
