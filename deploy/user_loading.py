"""Fills a workspace's user store from a dataset: all that users did, which searches cut at their moment."""

from pathlib import Path

from services.user_store import LmdbUserStore, UserEvent
from training.datasets.contexts import raw_features
from training.datasets.tables import Dataset, timestamps_ms


def load_users(dataset: Dataset, folder: Path) -> int:
    """Write every user's features and events into the store in this folder; return how many users.

    Events go in in the order of the table, so that those of one moment stand in a history as training saw
    them.
    """
    columns = (dataset.events.column(name).to_pylist() for name in ("user_id", "item_id", "action"))
    rows = zip(*columns, timestamps_ms(dataset.events).tolist(), strict=True)
    events = (
        UserEvent(user_id=user_id, item_id=item_id, action=action, timestamp_ms=timestamp_ms)
        for user_id, item_id, action, timestamp_ms in rows
    )
    with LmdbUserStore.open(folder) as store:
        return store.load(raw_features(dataset.users, "user_id"), events)
