"""The user store: features and events of every user, read once for each search."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import lmdb

from services.user_record import MalformedRecord, decode_user, encode_user
from shards.errors import CorruptRecord, FieldViolation, InvalidInput, NotFound
from shards.search_context import History, RawValue, UserState

_STORE = "user store"
_MAX_KEY_BYTES = 511
_ALL_EVENTS = 2**63 - 1
_MAP_BYTES = 64 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent:
    """Something a user did to an item."""

    user_id: str
    item_id: str
    action: str
    timestamp_ms: int


class UserStore(Protocol):
    """Users as routers see them; implementations agree on everything but where they keep them."""

    def get(self, user_id: str, now_ms: int, limit: int) -> UserState:
        """Return the user with the newest `limit` events strictly before `now_ms`, oldest first.

        A user nobody stored has no features and no events. Raises `CorruptRecord`.
        """

    def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace every user named in `users` (features by id) or in `events`; returns how many.

        Events come in any order. All are stored or none: raises `InvalidInput` for an id that
        cannot be stored.
        """

    def append_events(self, events: Iterable[UserEvent]) -> int:
        """Add events to those the users have, in order of time; returns how many. All or none."""


class MemoryUserStore:
    """Users in a dict of records, for tests."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}

    def get(self, user_id: str, now_ms: int, limit: int) -> UserState:
        """Return the user as of `now_ms`."""
        return _decoded(user_id, self._records.get(user_id.encode()), now_ms, limit)

    def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace users."""
        return self._put(_gather(users, events))

    def append_events(self, events: Iterable[UserEvent]) -> int:
        """Add events."""
        histories = _histories(events)
        self._put(
            _extended(self.get(user_id, _ALL_EVENTS, _ALL_EVENTS), new) for user_id, new in histories.items()
        )
        return sum(len(history.item_ids) for history in histories.values())

    def _put(self, users: Iterable[UserState]) -> int:
        records = dict(map(_encoded, users))
        self._records |= records
        return len(records)


class LmdbUserStore:
    """Users in an LMDB folder; one process writes while any number of routers read, without waiting."""

    def __init__(self, path: Path, environment: lmdb.Environment) -> None:
        self._path = path
        self._environment = environment

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False, size_limit_bytes: int = _MAP_BYTES) -> Self:
        """Open the store in this folder, made if need be unless `readonly`; close it with `with`.

        `size_limit_bytes` reserves addresses, not disk. Raises `NotFound` when there is none to
        read and `CorruptRecord` when the folder holds something else.
        """
        if readonly and not (path / "data.mdb").exists():
            raise NotFound(_STORE, str(path))
        try:
            environment = lmdb.open(
                str(path), map_size=size_limit_bytes, readonly=readonly, create=not readonly, max_readers=1024
            )
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            raise CorruptRecord(_STORE, str(path), str(error)) from error
        # Readers that were killed would keep old pages alive for ever.
        environment.reader_check()
        return cls(path, environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._environment.close()

    def get(self, user_id: str, now_ms: int, limit: int) -> UserState:
        """Return the user as of `now_ms`."""
        with self._environment.begin() as transaction:
            return _decoded(user_id, _read(transaction, user_id), now_ms, limit)

    def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace users, in one transaction."""
        with self._environment.begin(write=True) as transaction:
            return _write(transaction, _gather(users, events))

    def append_events(self, events: Iterable[UserEvent]) -> int:
        """Add events, in one transaction."""
        histories = _histories(events)
        with self._environment.begin(write=True) as transaction:
            for user_id, new in histories.items():
                known = _decoded(user_id, _read(transaction, user_id), _ALL_EVENTS, _ALL_EVENTS)
                _write(transaction, [_extended(known, new)])
        return sum(len(history.item_ids) for history in histories.values())


def _read(transaction: lmdb.Transaction, user_id: str) -> bytes | None:
    key = user_id.encode()
    record = transaction.get(key) if 0 < len(key) <= _MAX_KEY_BYTES else None
    return None if record is None else bytes(record)


def _write(transaction: lmdb.Transaction, users: Iterable[UserState]) -> int:
    count = 0
    for key, record in map(_encoded, users):
        transaction.put(key, record)
        count += 1
    return count


def _encoded(user: UserState) -> tuple[bytes, bytes]:
    key = user.user_id.encode()
    if not 0 < len(key) <= _MAX_KEY_BYTES:
        raise InvalidInput(
            FieldViolation("user_id", f"must have 1 to {_MAX_KEY_BYTES} bytes, not {len(key)}")
        )
    try:
        return key, encode_user(user)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(FieldViolation(f"users[{user.user_id}]", str(error))) from error


def _decoded(user_id: str, record: bytes | None, now_ms: int, limit: int) -> UserState:
    if record is None:
        return UserState(user_id=user_id)
    try:
        return decode_user(user_id, record, now_ms=now_ms, limit=limit)
    except MalformedRecord as error:
        raise CorruptRecord(_STORE, user_id, str(error)) from error


def _gather(users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> Iterator[UserState]:
    histories = _histories(events)
    for user_id in dict.fromkeys((*users, *histories)):
        history = histories.get(user_id, History())
        yield UserState(user_id=user_id, features=users.get(user_id, {}), history=history)


def _histories(events: Iterable[UserEvent]) -> dict[str, History]:
    by_user: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for event in events:
        by_user[event.user_id].append((event.item_id, event.action, event.timestamp_ms))
    return {user_id: _in_order(rows) for user_id, rows in by_user.items()}


def _extended(user: UserState, new: History) -> UserState:
    rows = [*_rows(user.history), *_rows(new)]
    return replace(user, history=_in_order(rows))


def _rows(history: History) -> Iterator[tuple[str, str, int]]:
    return zip(history.item_ids, history.actions, history.timestamps_ms, strict=True)


def _in_order(rows: list[tuple[str, str, int]]) -> History:
    """Return the rows as a history; events of one moment stay in the order they came."""
    item_ids, actions, timestamps_ms = zip(*sorted(rows, key=lambda row: row[2]), strict=True)
    return History(item_ids, actions, timestamps_ms)
