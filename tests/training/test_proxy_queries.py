from training.datasets.proxy_queries import Taken, proxy_query

FOUND = Taken(title="The Empire Strikes Back", release_year=1980, topics=["Action", "Sci-Fi"])


def queries(taken: Taken, count: int = 400) -> list[str]:
    """Return the queries of many users for one film."""
    return [proxy_query(taken, f"user-{i}", seed=1) for i in range(count)]


def test_every_kind_of_query_appears() -> None:
    typed = set(queries(FOUND))
    assert {"", "action", "sci-fi", "action 1980s", "empire", "strikes back", "empire strikes"} <= typed
    assert typed & {"epmire", "emipre", "emire", "emppire", "empre"}
    assert "the" not in typed


def test_a_query_depends_on_key_and_seed_alone() -> None:
    assert queries(FOUND) == queries(FOUND)
    assert queries(FOUND) != [proxy_query(FOUND, f"user-{i}", seed=2) for i in range(400)]


def test_films_with_little_to_go_by_still_get_queries() -> None:
    assert set(queries(Taken(title="M", release_year=None, topics=[]))) == {"", "m"}
    assert set(queries(Taken(title="???", release_year=1950, topics=["War"]))) == {
        "",
        "???",
        "war",
        "war 1950s",
    }
