"""MovieLens latest-small: 610 users, 9,742 films, 100,836 timed ratings of half stars, 1996 to 2018.

Source: GroupLens (Harper and Konstan 2015, "The MovieLens Datasets"), as `movielens_small` of the data
directory, for research use. A rating is the action "rate" with its stars as `rating` and, as `completion`,
the share of the five. Nobody typed anything: **each film that is rated stands for a request without a query**
that led to it. Tags are not read: they were given later than the films came, and would look ahead. The last
tenth of the ratings is test, the tenth before it valid: one moment for all users.
"""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.movielens import readable_title
from training.datasets.splits import quantile_split
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables, timestamps_ms

_MOST_STARS = 5.0
_TITLE = re.compile(r"(?P<name>.*?)(?: \((?P<year>\d{4})\))?\s*")


def load(data_dir: Path) -> Dataset:
    """Read `movielens_small` under the data directory into the canonical tables and check them.

    Raises `InvalidInput` if a file is missing or a table breaks the schema.
    """
    folder = data_dir / "movielens_small"
    events = _events(_read(folder / "ratings.csv"))
    dataset = Dataset(
        name="movielens_small",
        items=_items(_read(folder / "movies.csv")),
        users=pa.table({"user_id": pc.unique(events.column("user_id"))}),
        events=events,
        queries=_requests(events),
        queries_are_proxies=True,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def _read(path: Path) -> pa.Table:
    """Read a file of comma-separated values as strings."""
    if not path.is_file():
        raise InvalidInput(FieldViolation("data_dir", f"{path} does not exist"))
    with path.open(encoding="utf-8") as file:
        names = file.readline().strip().split(",")
    types = dict.fromkeys(names, pa.string())
    return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=types))


def _items(movies: pa.Table) -> pa.Table:
    parts = [_TITLE.fullmatch(title) for title in movies.column("title").to_pylist()]
    years = [int(part["year"]) if part and part["year"] else None for part in parts]
    genres = [
        [] if text == "(no genres listed)" else text.split("|")
        for text in movies.column("genres").to_pylist()
    ]
    return pa.table(
        {
            "item_id": movies.column("movieId"),
            "title": [readable_title(part["name"]) if part else "" for part in parts],
            "release_year": pa.array(years, pa.int64()),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )


def _events(ratings: pa.Table) -> pa.Table:
    stars = ratings.column("rating").cast(pa.float64())
    seconds = ratings.column("timestamp").cast(pa.int64())
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(ratings.column("userId"), ratings.column("movieId"), "-"),
            "user_id": ratings.column("userId"),
            "item_id": ratings.column("movieId"),
            "action": pa.repeat(pa.scalar("rate"), len(ratings)),
            "timestamp": pc.multiply(seconds, 1000).cast(TIMESTAMP),
            "rating": stars,
            "completion": pc.divide(stars, _MOST_STARS),
        }
    )


def _requests(events: pa.Table) -> pa.Table:
    """Return each rating as a request without words, at its own moment."""
    times_ms = timestamps_ms(events)
    return pa.table(
        {
            "query_id": events.column("event_id"),
            "timestamp": events.column("timestamp"),
            "user_id": events.column("user_id"),
            "query": pa.repeat(pa.scalar(""), len(events)),
            "item_id": events.column("item_id"),
            "split": quantile_split(times_ms, valid=0.1, test=0.1).labels(times_ms),
        }
    )
