"""Which user store a process uses."""

from dataclasses import dataclass
from pathlib import Path

from services.redis_settings import RedisSettings
from services.user_history import DEFAULT_LIMITS, EventLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStoreSettings:
    """Where users are: in the folder of an LMDB, in a Redis, or in the memory of this process alone."""

    place: Path | RedisSettings | None = None
    limits: EventLimits = DEFAULT_LIMITS
