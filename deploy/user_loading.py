"""Fills a user store from a dataset: all that users did, which searches cut at their moment."""

import asyncio
from pathlib import Path

from services.redis_settings import RedisSettings
from services.user_history import UserEvent
from services.user_store_opening import open_users
from services.user_store_settings import UserStoreSettings
from training.datasets.contexts import raw_features
from training.datasets.tables import Dataset, timestamps_ms


def load_users(dataset: Dataset, place: Path | RedisSettings) -> int:
    """Write every user's features and events into the store at this place; return how many users.

    Events go in in the order of the table, so that those of one moment stand in a history as training saw
    them.
    """
    return asyncio.run(_load(dataset, UserStoreSettings(place=place)))


async def _load(dataset: Dataset, settings: UserStoreSettings) -> int:
    columns = (dataset.events.column(name).to_pylist() for name in ("user_id", "item_id", "action"))
    rows = zip(*columns, timestamps_ms(dataset.events).tolist(), strict=True)
    events = (
        UserEvent(user_id=user_id, item_id=item_id, action=action, timestamp_ms=timestamp_ms)
        for user_id, item_id, action, timestamp_ms in rows
    )
    async with open_users(settings) as store:
        return await store.load(raw_features(dataset.users, "user_id"), events)
