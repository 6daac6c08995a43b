"""Users in a Redis, shared by the routers of several hosts; see docs/users.md for what is safe when."""

import asyncio
import hashlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.outage import Outage
from services.redis_scripts import ARRIVAL_DIGITS, GET, RECORD
from services.redis_settings import RedisSettings
from services.user_history import (
    DEFAULT_LIMITS,
    JOINT,
    EventLimits,
    UserEvent,
    checked,
    features_from_json,
    features_to_json,
    gathered,
    histories,
    rows_of,
    with_features,
)
from services.user_store import USER_STORE, Recorded
from shards.errors import CorruptRecord, DeadlineExceeded, HeadraceError, StoreFull, Unavailable
from shards.search_context import History, RawValue, UserState

log = logging.getLogger(__name__)

_DIGEST_BYTES = 16
_PATIENCE_S = 0.1
"""Who waited less has not learnt that Redis is silent."""

_LITERAL = re.compile(r"[*?\[\]^\\-]")
"""What means something in a pattern of Redis."""

_LOADED_AT_ONCE = 200
_STAGED_S = 3600
"""After that, what a load that was killed had staged is gone."""


class RedisUserStore:
    """Users in one Redis; what is read or recorded is one step there, and seen by every router at once.

    An event that `record` has returned for is as safe as Redis is told to make it: docs/users.md.
    """

    def __init__(self, client: "redis.asyncio.Redis", settings: RedisSettings, limits: EventLimits) -> None:
        self._client = client
        self._settings = settings
        self._limits = limits
        self._outage = Outage(settings.rest_s)
        self._get = client.register_script(GET)
        self._record = client.register_script(RECORD)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: RedisSettings, *, limits: EventLimits = DEFAULT_LIMITS
    ) -> AsyncIterator[Self]:
        """Lend the store; connections are made when they are needed, so Redis may be away meanwhile."""
        pool = _pool(settings)
        try:
            async with redis.asyncio.Redis(connection_pool=pool) as client:
                yield cls(client, settings, limits)
        finally:
            await pool.disconnect()

    async def get(self, user_id: str, now_ms: int, limit: int, *, timeout_s: float = 1.0) -> UserState:
        """Return the user as of `now_ms`."""
        async with self._asking(timeout_s):
            features, words, moments = await self._get(
                keys=[self._key("features", user_id), self._key("events", user_id)],
                args=[now_ms, limit],
            )
        return _decoded(user_id, features, words, moments)

    async def record(self, events: Mapping[str, UserEvent], *, timeout_s: float = 1.0) -> Recorded:
        """Add events, in one step."""
        for user_id, history in histories(events.values()).items():
            checked(UserState(user_id=user_id, history=history))
        keys = {user_id: self._key("events", user_id) for user_id in _users_of(events.values())}
        indices = {user_id: index for index, user_id in enumerate(keys, start=3)}
        args: list[str | bytes | int] = [self._limits.events, self._limits.event_ids]
        for event_id, event in events.items():
            args += (
                hashlib.blake2b(event_id.encode(), digest_size=_DIGEST_BYTES).digest(),
                indices[event.user_id],
                event.timestamp_ms,
                f"{event.action}{JOINT}{event.item_id}",
            )
        async with self._asking(timeout_s):
            recorded: int = await self._record(
                keys=[self._key("event-ids"), self._key("arrivals"), *keys.values()], args=args
            )
        return Recorded(recorded=recorded, duplicates=len(events) - recorded)

    async def load(self, users: Mapping[str, Mapping[str, RawValue]], events: Iterable[UserEvent]) -> int:
        """Replace users: staged under other keys, in many steps, and put in their places in one."""
        states = list(gathered(users, events))
        staging = f"staged-{uuid.uuid4().hex}"
        async with self._asking(None):
            count = sum(len(state.history.item_ids) for state in states)
            arrival: int = await self._client.incrby(self._key("arrivals"), count) - count
            for start in range(0, len(states), _LOADED_AT_ONCE):
                some = states[start : start + _LOADED_AT_ONCE]
                arrival = await self._stage(staging, some, arrival)
            async with self._client.pipeline(transaction=True) as pipe:
                for state in states:
                    self._put_in_place(pipe, staging, state)
                await pipe.execute()
        return len(states)

    async def user_ids(self) -> AsyncIterator[str]:
        """Yield the ids of all users. Raises `Unavailable` where Redis is away."""
        found: set[str] = set()
        for kind in ("events", "features"):
            start = self._key(kind, "")
            pattern = _LITERAL.sub(r"\\\g<0>", start) + "*"
            async with self._asking(None):
                keys = [key async for key in self._client.scan_iter(match=pattern, count=_LOADED_AT_ONCE)]
            found |= {bytes(key).decode().removeprefix(start) for key in keys}
        for user_id in found:
            yield user_id

    async def add_features(self, users: Mapping[str, Mapping[str, RawValue]]) -> int:
        """Set features, some users in a step, which is taken again where others were set meanwhile."""
        named = list(users.items())
        for start in range(0, len(named), _LOADED_AT_ONCE):
            async with self._asking(None):
                await self._add_features(dict(named[start : start + _LOADED_AT_ONCE]))
        return len(named)

    async def _add_features(self, users: Mapping[str, Mapping[str, RawValue]]) -> None:
        keys = [self._key("features", user_id) for user_id in users]

        async def add(pipe: Any) -> None:
            known = await pipe.mget(keys)
            pipe.multi()
            for key, encoded, (user_id, features) in zip(keys, known, users.items(), strict=True):
                user = with_features(_decoded(user_id, encoded, b"", b""), features)
                pipe.set(key, features_to_json(user.features))

        await self._client.transaction(add, *keys)

    async def _stage(self, staging: str, states: Sequence[UserState], arrival: int) -> int:
        """Write users under keys of the load's own; returns the arrival of the last event."""
        async with self._client.pipeline(transaction=False) as pipe:
            for state in states:
                if state.features:
                    key = self._key(staging, "features", state.user_id)
                    pipe.set(key, features_to_json(state.features), ex=_STAGED_S)
                if state.history.item_ids:
                    key = self._key(staging, "events", state.user_id)
                    rows = list(rows_of(state.history))
                    pipe.zadd(key, {
                        _member(arrival + n, action, item_id): timestamp_ms
                        for n, (item_id, action, timestamp_ms) in enumerate(rows, start=1)
                    })  # fmt: skip
                    pipe.expire(key, _STAGED_S)
                    arrival += len(rows)
            await pipe.execute()
        return arrival

    def _put_in_place(self, pipe: Any, staging: str, state: UserState) -> None:
        for kind, there in (("features", state.features), ("events", state.history.item_ids)):
            key = self._key(kind, state.user_id)
            if there:
                pipe.rename(self._key(staging, kind, state.user_id), key)
                pipe.persist(key)
            else:
                pipe.delete(key)

    def _key(self, *names: str) -> str:
        return ":".join((self._settings.prefix, *names))

    @asynccontextmanager
    async def _asking(self, timeout_s: float | None) -> AsyncIterator[None]:
        """Bound what is asked by a time, let Redis rest while it is silent, and map what it raises."""
        where = f"the {USER_STORE} at {self._settings.address}"
        if not self._outage.may_ask(time.monotonic()):
            raise Unavailable(f"{where} did not answer a moment ago")
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            assert timeout_s is not None
            if timeout_s >= _PATIENCE_S:
                self._failed("is silent")
            raise DeadlineExceeded(f"{where} did not answer within {timeout_s:.3f} s") from None
        except RedisError as error:
            refusal = _refusal(where, error)
            if type(refusal) is Unavailable:
                self._failed(str(error))
            raise refusal from error
        if self._outage.answered():
            log.warning("%s answers again", where)

    def _failed(self, problem: str) -> None:
        if self._outage.failed(time.monotonic()):
            log.warning("the %s at %s is away: %s", USER_STORE, self._settings.address, problem)


def _pool(settings: RedisSettings) -> redis.asyncio.ConnectionPool:
    tls: dict[str, Any] = {"ssl_ca_certs": settings.ca_path and str(settings.ca_path)} if settings.tls else {}
    return redis.asyncio.BlockingConnectionPool(
        connection_class=redis.asyncio.SSLConnection if settings.tls else redis.asyncio.Connection,
        host=settings.host,
        port=settings.port,
        db=settings.database,
        username=settings.username or None,
        password=settings.password or None,
        max_connections=settings.max_connections,
        # Waiting for one of them is part of each call's own time.
        timeout=None,
        socket_connect_timeout=settings.connect_timeout_s,
        socket_keepalive=True,
        client_name="headrace",
        # Once, and at once: a connection may be one to a Redis that has been started again. What is asked
        # may be asked twice: the events that came in know their ids.
        retry=Retry(NoBackoff(), 1),
        **tls,
    )


def _refusal(where: str, error: RedisError) -> HeadraceError:
    """Return what a caller is told; Redis writes nothing when it lacks memory or cannot save to its disk."""
    told = str(error)
    if "OOM " in told or "MISCONF" in told or "maxmemory" in told:
        return StoreFull(f"{where} has no room left: {told}", retry_after_s=5.0)
    if "WRONGTYPE" in told:
        return CorruptRecord(USER_STORE, where, told)
    return Unavailable(f"{where} cannot answer: {told}")


def _users_of(events: Iterable[UserEvent]) -> Iterator[str]:
    return iter(dict.fromkeys(event.user_id for event in events))


def _member(arrival: int, action: str, item_id: str) -> str:
    return f"{arrival:0{ARRIVAL_DIGITS}x}{action}{JOINT}{item_id}"


def _decoded(user_id: str, features: bytes | None, words: bytes, moments: bytes) -> UserState:
    try:
        return UserState(
            user_id=user_id,
            features={} if features is None else features_from_json(features),
            history=_history(words, moments),
        )
    except ValueError as error:
        raise CorruptRecord(USER_STORE, user_id, str(error)) from error


def _history(words: bytes, moments: bytes) -> History:
    """Return the events, oldest first; raises ValueError where an event is not two words."""
    timestamps_ms = tuple(int(float(moment)) for moment in moments.split())
    if not timestamps_ms:
        return History()
    actions_and_items = words.decode().split(JOINT)
    return History(tuple(actions_and_items[1::2]), tuple(actions_and_items[::2]), timestamps_ms)
