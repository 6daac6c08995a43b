"""The datasets by name: those that come with Headrace, and any folder of Parquet tables."""

from collections.abc import Callable, Mapping
from pathlib import Path

from shards.errors import FieldViolation, InvalidInput
from training.datasets import (
    amazon_beauty,
    completejourney,
    gowalla,
    movielens,
    movielens_small,
    online_retail,
    parquet,
    retail_returns,
)
from training.datasets.leave_one_out import leave_one_out
from training.datasets.tables import Dataset
from training.datasets.two_shops import two_shops

_IN_DATA_DIR: Mapping[str, Callable[[Path], Dataset]] = {
    "amazon_beauty": amazon_beauty.load,
    "completejourney": completejourney.load,
    "gowalla_poi": gowalla.load,
    "movielens_small": movielens_small.load,
    "online_retail": online_retail.load,
    "retail_returns": retail_returns.load,
    "two_shops": lambda data_dir: two_shops(online_retail.load(data_dir), name="two_shops"),
}
NAMES = ("movielens", "movielens_likes", *_IN_DATA_DIR)


def load(source: str, *, cache_dir: Path, data_dir: Path | None, seed: int = 0) -> Dataset:
    """Return a dataset by name, or the one in the folder that `source` is the path of.

    `cache_dir` keeps downloads, `data_dir` holds the data that cannot be downloaded, `seed` chooses proxy
    queries where they are made here. Raises `InvalidInput` for an unknown source, a missing data
    directory or broken tables, and `Unavailable` where a download fails.
    """
    if source == "movielens":
        return movielens.load(cache_dir, seed=seed)
    if source == "movielens_likes":
        return leave_one_out(movielens.load(cache_dir, seed=seed), "like", name=source)
    if source in _IN_DATA_DIR:
        if data_dir is None:
            problem = f"must be set for {source}: the directory that holds {source}/"
            raise InvalidInput(FieldViolation("data_dir", problem))
        return _IN_DATA_DIR[source](data_dir)
    if not Path(source).is_dir():
        problem = f"{source!r} is neither {' nor '.join(NAMES)} nor a folder of Parquet tables"
        raise InvalidInput(FieldViolation("dataset", problem))
    return parquet.load(Path(source))
