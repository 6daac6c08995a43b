"""The datasets by name: those that come with Headrace, and any folder of Parquet tables."""

from pathlib import Path

from shards.errors import FieldViolation, InvalidInput
from training.datasets import movielens, online_retail, parquet
from training.datasets.tables import Dataset

NAMES = ("movielens", "online_retail")


def load(source: str, *, cache_dir: Path, data_dir: Path | None, seed: int = 0) -> Dataset:
    """Return a dataset by name, or the one in the folder that `source` is the path of.

    `cache_dir` keeps downloads, `data_dir` holds the data that cannot be downloaded, `seed` chooses proxy
    queries where they are made here. Raises `InvalidInput` for an unknown source, a missing data
    directory or broken tables, and `Unavailable` where a download fails.
    """
    if source == "movielens":
        return movielens.load(cache_dir, seed=seed)
    if source == "online_retail":
        if data_dir is None:
            problem = "must be set for online_retail: the directory that holds online_retail/"
            raise InvalidInput(FieldViolation("data_dir", problem))
        return online_retail.load(data_dir)
    if not Path(source).is_dir():
        problem = f"{source!r} is neither {' nor '.join(NAMES)} nor a folder of Parquet tables"
        raise InvalidInput(FieldViolation("dataset", problem))
    return parquet.load(Path(source))
