"""MovieLens-100K for models that train within seconds."""

from dataclasses import replace

import pyarrow.compute as pc

from deploy.folders import cache_dir
from training.datasets import movielens
from training.datasets.tables import Dataset


def real_slice(users: int) -> Dataset:
    """Return the real data with the events and queries of as many users."""
    everything = movielens.load(cache_dir())
    first = everything.users.slice(0, users).column("user_id").combine_chunks()
    return replace(
        everything,
        events=everything.events.filter(pc.is_in(everything.events.column("user_id"), first)),
        queries=everything.queries.filter(pc.is_in(everything.queries.column("user_id"), first)),
    )
