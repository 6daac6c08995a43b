"""Users in a folder of this host, read in microseconds; see docs/users.md for what is safe when."""

import asyncio
import errno
import logging
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import lmdb

from services import lmdb_event_ids
from services.group_commit import GroupCommit
from services.lmdb_event_ids import LmdbEventIds
from services.user_history import (
    DEFAULT_LIMITS,
    MAX_ID_BYTES,
    EventLimits,
    UserEvent,
    extended,
    gathered,
    histories,
    with_features,
)
from services.user_record import encode_user
from services.user_store import ALL_EVENTS, USER_STORE, Recorded, decoded
from shards.errors import CorruptRecord, HeadraceError, StoreFull, Unavailable
from shards.search_context import RawValue, UserState

log = logging.getLogger(__name__)

_MAP_BYTES = 64 * 2**30
_EVENTS_TOGETHER = 1_000
"""More in one commit take longer than the wait for the disk that they share."""

_TURN_S = 0.001
_REST_S = 0.0005
"""The writer computes for a turn, and rests, so that searches are not late by all that it computes."""

_PAGE = 500
"""Users that are read or written in one transaction, where there are many."""

_SCARCE_BYTES = 64 * 2**20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LmdbUserStore:
    """Users in an LMDB folder; every router of the host reads without waiting, and one at a time writes.

    LMDB's lock of writers holds between processes, and passes on when its holder dies. A commit is on disk
    before it counts: neither `kill -9` nor a power cut loses what `record` has returned for, or leaves half
    of it. A thread waits for the lock and the disk, and commits what has gathered meanwhile in one go.
    """

    def __init__(self, path: Path, environment: lmdb.Environment, limits: EventLimits) -> None:
        self._path = path
        self._environment = environment
        self._limits = limits
        self._event_ids: LmdbEventIds | None = None
        self._turn_began_s = 0.0
        self._writer = GroupCommit(
            self._commit, name="user store writer", weigh=len, most_together=_EVENTS_TOGETHER
        )

    @classmethod
    def open(
        cls, path: Path, *, limits: EventLimits = DEFAULT_LIMITS, size_limit_bytes: int = _MAP_BYTES
    ) -> Self:
        """Open the store in this folder, made if need be; close it with `with`.

        `size_limit_bytes` reserves addresses, not disk. Raises `Unavailable` where the folder cannot be used
        and `CorruptRecord` when it holds something else.
        """
        try:
            environment = lmdb.open(
                str(path), map_size=size_limit_bytes, max_readers=1024, max_dbs=lmdb_event_ids.TABLES
            )
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            raise CorruptRecord(USER_STORE, str(path), str(error)) from error
        except (lmdb.Error, OSError) as error:
            raise Unavailable(f"the {USER_STORE} cannot be opened: {error}") from error
        # Readers that were killed would keep old pages alive for ever.
        environment.reader_check()
        return cls(path, environment, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer.close():
            self._environment.close()
        else:
            log.error("another process holds the lock of %s; what waited for it is not written", self._path)

    async def get(self, user_id: str, now_ms: int, limit: int, *, timeout_s: float = 1.0) -> UserState:  # noqa: ARG002
        """Return the user as of `now_ms`, from memory that the kernel keeps: nothing is waited for."""
        try:
            with self._environment.begin() as transaction:
                record = _read(transaction, user_id)
        except lmdb.Error as error:
            raise self._refusal(error) from error
        return decoded(user_id, record, now_ms, limit)

    async def record(self, events: Mapping[str, UserEvent], *, timeout_s: float = 1.0) -> Recorded:
        """Add events, in one transaction."""
        return await self._writer.submit(events, timeout_s)

    async def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace users, in one transaction."""
        return await asyncio.to_thread(self._load, users, events)

    def _load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        try:
            with self._environment.begin(write=True) as transaction:
                return _write(transaction, gathered(users, events))
        except lmdb.Error as error:
            raise self._refusal(error) from error

    async def user_ids(self) -> AsyncIterator[str]:
        """Yield the ids of all users, a page in a transaction: a long one would keep old pages alive."""
        key = b""
        while page := self._keys_after(key):
            for key in page:
                yield key.decode()

    def _keys_after(self, key: bytes) -> list[bytes]:
        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                more = cursor.set_range(key + b"\0") if key else cursor.first()
                keys = islice(cursor.iternext(keys=True, values=False), _PAGE) if more else ()
                return [each for each in map(bytes, keys) if not each.startswith(lmdb_event_ids.OWN)]
        except lmdb.Error as error:
            raise self._refusal(error) from error

    async def add_features(self, users: Mapping[str, Mapping[str, RawValue]]) -> int:
        """Set features, some users in a transaction, so that events are recorded in between."""
        named = list(users.items())
        for start in range(0, len(named), _PAGE):
            await asyncio.to_thread(self._add_features, dict(named[start : start + _PAGE]))
        return len(named)

    def _add_features(self, users: Mapping[str, Mapping[str, RawValue]]) -> None:
        try:
            with self._environment.begin(write=True) as transaction:
                for user_id, features in users.items():
                    user = decoded(user_id, _read(transaction, user_id), ALL_EVENTS, ALL_EVENTS)
                    _write(transaction, [with_features(user, features)])
        except lmdb.Error as error:
            raise self._refusal(error) from error

    def _commit(self, requests: Sequence[Mapping[str, UserEvent]]) -> list[Recorded]:
        try:
            if self._event_ids is None:
                self._event_ids = LmdbEventIds(self._environment, self._limits.event_ids)
            with self._environment.begin(write=True) as transaction:
                return [self._record(transaction, self._event_ids, events) for events in requests]
        except lmdb.Error as error:
            raise self._refusal(error) from error

    def _give_way(self) -> None:
        """Let the event loop have Python's lock, which it would wait for five times as long."""
        if time.thread_time() - self._turn_began_s > _TURN_S:
            time.sleep(_REST_S)
            self._turn_began_s = time.thread_time()

    def _refusal(self, error: lmdb.Error) -> HeadraceError:
        if _is_full(error, self._path):
            return StoreFull(f"the {USER_STORE} has no room left: {error}", retry_after_s=5.0)
        return Unavailable(f"the {USER_STORE} on disk failed: {error}")

    def _record(
        self, transaction: lmdb.Transaction, event_ids: LmdbEventIds, events: Mapping[str, UserEvent]
    ) -> Recorded:
        new_ids = event_ids.add_new(transaction, events)
        new = histories(event for event_id, event in events.items() if event_id in new_ids)
        for user_id, history in new.items():
            user = decoded(user_id, _read(transaction, user_id), ALL_EVENTS, ALL_EVENTS)
            _write(transaction, [extended(user, history, keep=self._limits.events)])
            self._give_way()
        return Recorded(recorded=len(new_ids), duplicates=len(events) - len(new_ids))


def _read(transaction: lmdb.Transaction, user_id: str) -> bytes | None:
    key = user_id.encode()
    record = transaction.get(key) if 0 < len(key) <= MAX_ID_BYTES else None
    return None if record is None else bytes(record)


def _write(transaction: lmdb.Transaction, users: Iterable[UserState]) -> int:
    count = 0
    for user in users:
        transaction.put(user.user_id.encode(), encode_user(user))
        count += 1
    return count


def _is_full(error: lmdb.Error, folder: Path) -> bool:
    """Return whether there was no room; LMDB calls a write that the disk took in part an I/O error."""
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or error.code in _NO_ROOM:
        return True
    return error.code == errno.EIO and shutil.disk_usage(folder).free < _SCARCE_BYTES
