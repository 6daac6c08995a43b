"""MovieLens latest-small as canonical tables."""

from pathlib import Path

import pytest

from shards.errors import InvalidInput
from training.datasets import movielens_small


def write(root: Path) -> None:
    folder = root / "movielens_small"
    folder.mkdir()
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n1,"Mark of Zorro, The (1940)",Adventure|Action\n2,Untold,(no genres listed)\n'
    )
    ratings = "".join(f"{user},{1 + user % 2},{user / 2},{1_000_000 + user}\n" for user in range(1, 11))
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)


def test_films_have_readable_titles_years_and_genres(tmp_path: Path) -> None:
    write(tmp_path)
    zorro, untold = movielens_small.load(tmp_path).items.to_pylist()
    assert zorro == {
        "item_id": "1",
        "title": "The Mark of Zorro",
        "release_year": 1940,
        "genres": ["Adventure", "Action"],
    }
    assert (untold["title"], untold["release_year"], untold["genres"]) == ("Untold", None, [])


def test_each_rating_is_an_event_and_a_request_without_words(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = movielens_small.load(tmp_path)
    newest, request = dataset.events.to_pylist()[-1], dataset.queries.to_pylist()[-1]
    assert (newest["action"], newest["rating"], newest["completion"]) == ("rate", 5.0, 1.0)
    assert (request["query"], request["item_id"]) == ("", newest["item_id"])
    assert dataset.queries.column("split").to_pylist() == ["train"] * 8 + ["valid", "test"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ratings\.csv does not exist"):
        movielens_small.load(tmp_path)
