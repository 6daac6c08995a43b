"""Opens the user store that the settings name; the library of each is loaded where it is used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.redis_settings import RedisSettings
from services.user_store import MemoryUserStore, UserStore
from services.user_store_settings import UserStoreSettings


@asynccontextmanager
async def open_users(settings: UserStoreSettings) -> AsyncIterator[UserStore]:
    """Lend the store; raises what opening an LMDB does. A Redis may be away."""
    match settings.place:
        case None:
            yield MemoryUserStore(settings.limits)
        case Path() as folder:
            from services.lmdb_user_store import LmdbUserStore

            with LmdbUserStore.open(folder, limits=settings.limits) as store:
                yield store
        case RedisSettings() as redis:
            from services.redis_user_store import RedisUserStore

            async with RedisUserStore.open(redis, limits=settings.limits) as remote:
                yield remote
