"""The user store: features and events of every user, read once for each search.

The seam, and the double in memory. `services.lmdb_user_store` keeps users on this host,
`services.redis_user_store` on another one.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.user_history import (
    DEFAULT_LIMITS,
    EventLimits,
    UserEvent,
    extended,
    gathered,
    histories,
    with_features,
)
from services.user_record import MalformedRecord, decode_user, encode_user
from shards.errors import CorruptRecord
from shards.search_context import RawValue, UserState

USER_STORE = "user store"
"""What errors call it."""

ALL_EVENTS = 2**53
"""As a moment and as a limit: more than any store holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of events: `recorded` now, and `duplicates` whose ids were known."""

    recorded: int
    duplicates: int


class UserStore(Protocol):
    """Users as routers see them; implementations agree on everything but where they keep them."""

    async def get(self, user_id: str, now_ms: int, limit: int, *, timeout_s: float = 1.0) -> UserState:
        """Return the user with the newest `limit` events strictly before `now_ms`, oldest first.

        A user nobody stored has no features and no events. Raises `CorruptRecord` for one whose record is
        damaged, and `Unavailable` or `DeadlineExceeded` where the store is away or takes more than
        `timeout_s`; one on this host does not wait.
        """

    async def record(self, events: Mapping[str, UserEvent], *, timeout_s: float = 1.0) -> Recorded:
        """Add these events, by their ids, in order of time; those of one moment as they come.

        When it returns, they are as safe as the store makes anything, and every `get` sees them. All are
        recorded or none: raises `StoreFull`, `Unavailable`, or `CorruptRecord` for one of the users. After a
        `DeadlineExceeded` they may yet be recorded; to send them again counts none twice.
        """

    async def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace every user named in `users` (features by id) or in `events`; returns how many.

        Events come in any order, and all are kept. All are stored or none: raises `InvalidInput` for what
        cannot be stored.
        """

    def user_ids(self) -> AsyncIterator[str]:
        """Yield the ids of all users, each once; whoever comes meanwhile may be left out."""

    async def add_features(self, users: Mapping[str, Mapping[str, RawValue]]) -> int:
        """Set these features of users, beside their others and their events; returns how many users.

        Users of one call may be set one after the other. Raises `InvalidInput` for what cannot be stored,
        and `CorruptRecord` for a user whose record is damaged.
        """


class MemoryUserStore:
    """Users in a dict of records, of this process alone."""

    def __init__(self, limits: EventLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._records: dict[str, bytes] = {}
        self._event_ids: dict[str, None] = {}

    async def get(self, user_id: str, now_ms: int, limit: int, *, timeout_s: float = 1.0) -> UserState:  # noqa: ARG002
        """Return the user as of `now_ms`."""
        return decoded(user_id, self._records.get(user_id), now_ms, limit)

    async def record(self, events: Mapping[str, UserEvent], *, timeout_s: float = 1.0) -> Recorded:  # noqa: ARG002
        """Add events."""
        new = {event_id: event for event_id, event in events.items() if event_id not in self._event_ids}
        self._put([
            extended(
                decoded(user_id, self._records.get(user_id), ALL_EVENTS, ALL_EVENTS),
                history,
                keep=self._limits.events,
            )
            for user_id, history in histories(new.values()).items()
        ])  # fmt: skip
        self._event_ids |= dict.fromkeys(new)
        while len(self._event_ids) > self._limits.event_ids:
            del self._event_ids[next(iter(self._event_ids))]
        return Recorded(recorded=len(new), duplicates=len(events) - len(new))

    async def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace users."""
        return self._put(gathered(users, events))

    async def user_ids(self) -> AsyncIterator[str]:
        """Yield the ids of all users."""
        for user_id in list(self._records):
            yield user_id

    async def add_features(self, users: Mapping[str, Mapping[str, RawValue]]) -> int:
        """Set features."""
        return self._put([
            with_features(decoded(user_id, self._records.get(user_id), ALL_EVENTS, ALL_EVENTS), features)
            for user_id, features in users.items()
        ])  # fmt: skip

    def _put(self, users: Iterable[UserState]) -> int:
        records = {user.user_id: encode_user(user) for user in users}
        self._records |= records
        return len(records)


def decoded(user_id: str, record: bytes | None, now_ms: int, limit: int) -> UserState:
    """Return the user in a record as of `now_ms`, a stranger where there is none; raises `CorruptRecord`."""
    if record is None:
        return UserState(user_id=user_id)
    try:
        return decode_user(user_id, record, now_ms=now_ms, limit=limit)
    except MalformedRecord as error:
        raise CorruptRecord(USER_STORE, user_id, str(error)) from error
