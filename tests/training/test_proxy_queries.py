from training.datasets.proxy_queries import Film, proxy_query

FILM = Film(title="The Empire Strikes Back", release_year=1980, genres=["Action", "Sci-Fi"])


def queries(film: Film, count: int = 400) -> list[str]:
    """Return the queries of many users for one film."""
    return [proxy_query(film, f"user-{i}", seed=1) for i in range(count)]


def test_every_kind_of_query_appears() -> None:
    typed = set(queries(FILM))
    assert {"", "action", "sci-fi", "action 1980s", "empire", "strikes back", "empire strikes"} <= typed
    assert typed & {"epmire", "emipre", "emire", "emppire", "empre"}
    assert "the" not in typed


def test_a_query_depends_on_key_and_seed_alone() -> None:
    assert queries(FILM) == queries(FILM)
    assert queries(FILM) != [proxy_query(FILM, f"user-{i}", seed=2) for i in range(400)]


def test_films_with_little_to_go_by_still_get_queries() -> None:
    assert set(queries(Film(title="M", release_year=None, genres=[]))) == {"", "m"}
    assert set(queries(Film(title="???", release_year=1950, genres=["War"]))) == {
        "",
        "???",
        "war",
        "war 1950s",
    }
