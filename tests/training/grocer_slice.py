"""The trips of some of the grocer's households, and what they bought: trains within seconds."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

from training.datasets import completejourney
from training.datasets.tables import Dataset


def grocer(households: int) -> Dataset:
    """Return the real data of as many households; skips the test where it is not there."""
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    everything = completejourney.load(Path(folder))
    users = everything.users.slice(0, households)
    user_ids = users.column("user_id").combine_chunks()
    events = everything.events.filter(pc.is_in(everything.events.column("user_id"), user_ids))
    item_ids = events.column("item_id").combine_chunks()
    return replace(
        everything,
        users=users,
        events=events,
        items=everything.items.filter(pc.is_in(everything.items.column("item_id"), item_ids)),
        queries=everything.queries.filter(pc.is_in(everything.queries.column("user_id"), user_ids)),
    )
