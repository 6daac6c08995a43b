"""Leader election: of several controllers one leads, by a lock in Consul that lives as long as its session.

Source: Consul's documentation, "Application leader elections with sessions".
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

from services.consul_client import ConsulClient
from services.consul_query import PAUSES, Silence, follow
from services.consul_session import Session, SessionSettings, open_session, renewals
from services.consul_settings import ConsulSettings
from shards.errors import HeadraceError

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How long a look at a lock that is held blocks."""

_RETRY_S = 0.1
"""How often a lock that is free but still delayed is tried."""


class Leadership:
    """What one candidate knows of its own leading; `candidacy` keeps it up to date.

    It leads while the last look at the lock found its session there, and only for as long as that session
    is sure to live. Any silence of Consul ends it at once: whoever cannot see the lock cannot commit either.
    Made on the event loop that reads it; news may come from any thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._confirmed = False
        self._until_s = 0.0
        self._term = 0
        self._moved = asyncio.Event()

    @property
    def leading(self) -> bool:
        """Return whether this candidate leads now."""
        return self._confirmed and time.monotonic() < self._until_s

    async def changes(self) -> AsyncGenerator[bool, None]:
        """Yield whether it leads, first now and then with each change, without end.

        A loss that the reader was too slow to see is told all the same.
        """
        leading, term = self.leading, self._term
        yield leading
        while True:
            moved = self._moved
            if leading and self._term != term:
                leading = False
                yield leading
            term = self._term
            if self.leading != leading:
                leading = self.leading
                yield leading
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_s - time.monotonic() if leading else None):
                    await moved.wait()

    def confirm(self) -> None:
        """Take note that our session holds the lock."""
        if not self._confirmed:
            log.info("leading")
            self._confirmed = True
            self._term += 1
            self._tell()

    def doubt(self, reason: object) -> None:
        """Take note that it may not; the next confirmation begins another term."""
        if self._confirmed:
            log.warning("not leading: %s", reason)
            self._confirmed = False
            self._tell()

    def extend(self, until_s: float) -> None:
        """Take note that the session lives until this monotonic time."""
        self._until_s = until_s
        self._tell()

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


@asynccontextmanager
async def candidacy(
    consul: ConsulSettings,
    settings: SessionSettings,
    rng: random.Random,
    *,
    lock: str = "leader",
    value: str = "",
) -> AsyncIterator[Leadership]:
    """Stand for election while the block runs; at its end the lock goes to the next one at once.

    The lock shows the leader's `value`, or its name. The campaign has a thread and an event loop of its own:
    planning a large cluster keeps the caller's loop busy for longer than a leader may be silent.
    Raises OSError when a file of the TLS settings does not serve.
    """
    leadership = Leadership()

    async def campaign() -> None:
        async with ConsulClient(consul) as client:
            await _Campaign(client, settings, rng, lock, value or settings.name, leadership).run()

    async with _beside(campaign):
        yield leadership


@asynccontextmanager
async def _beside(work: Callable[[], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Run the work in a thread with an event loop of its own; cancelled and awaited at the block's end."""
    started: Future[Callable[[], object]] = Future()

    async def cancellable() -> None:
        task = asyncio.ensure_future(work())
        started.set_result(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async with asyncio.TaskGroup() as group:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="candidacy") as thread:
            ended = asyncio.get_running_loop().run_in_executor(thread, asyncio.run, cancellable())
            # The group ends the block where the work fails.
            group.create_task(_result_of(ended))
            try:
                yield
            finally:
                with suppress(RuntimeError):  # The work has ended, and its loop with it.
                    (await asyncio.wrap_future(started))()
                await asyncio.wait([ended])


async def _result_of(ended: asyncio.Future[None]) -> None:
    await asyncio.shield(ended)


async def run_terms(leadership: Leadership, term: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `term` while leading: started with each term, cancelled and awaited at its end; without end.

    What `term` raises ends the candidate.
    """
    running: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group, aclosing(leadership.changes()) as changes:
        async for leading in changes:
            if running is not None:
                running.cancel()
                await asyncio.wait([running])
            running = group.create_task(term()) if leading else None


async def leader(client: ConsulClient, *, lock: str = "leader") -> str | None:
    """Return the value that the leader shows, or None where nobody leads; raises `Unavailable`."""
    key = client.settings.key(lock)
    _, item = await client.ask(lambda api: api.kv.get(key, consistency="consistent"))
    return item["Value"].decode() if item and item.get("Session") else None


class _Campaign:
    """One session after the other, each standing for the lock until it is lost."""

    def __init__(
        self,
        client: ConsulClient,
        settings: SessionSettings,
        rng: random.Random,
        lock: str,
        value: str,
        leadership: Leadership,
    ) -> None:
        self._client = client
        self._settings = settings
        self._rng = rng
        self._key = client.settings.key(lock)
        self._value = value
        self._free = False
        self._leadership = leadership

    async def run(self) -> None:
        """Stand for ever."""
        failures = 0
        while True:
            began_s = time.monotonic()
            # A task of its own: a group whose tasks fail while it is cancelled tells of the failure only.
            session = asyncio.ensure_future(self._try())
            try:
                await asyncio.wait([session])
            except asyncio.CancelledError:
                session.cancel()
                await asyncio.wait([session])
                raise
            session.result()
            failures = 0 if time.monotonic() - began_s > self._settings.ttl_s else failures + 1
            await asyncio.sleep(PAUSES.delay_s(failures, self._rng))

    async def _try(self) -> None:
        """Stand with one session until it is lost."""
        try:
            async with open_session(self._client, self._settings) as session:
                await self._stand(session)
        except* HeadraceError as errors:
            log.info("%s has lost its session: %s", self._settings.name, errors.exceptions[0])

    async def _stand(self, session: Session) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(session))
                group.create_task(self._contend(session))
        finally:
            self._leadership.doubt("the session is over")
            with suppress(HeadraceError):
                await self._client.ask(lambda api: api.kv.put(self._key, "", release=session.id))

    async def _keep(self, session: Session) -> None:
        self._leadership.extend(session.began_s + self._settings.alive_s)
        async with aclosing(renewals(self._client, session, self._settings)) as renewed:
            async for until_s in renewed:
                self._leadership.extend(until_s)

    async def _contend(self, session: Session) -> None:
        async with aclosing(
            follow(
                self._client, self._query, rng=self._rng, wait_s=lambda: _RETRY_S if self._free else _LOOK_S
            )
        ) as looks:
            async for look in looks:
                if isinstance(look, Silence):
                    self._leadership.doubt(look.reason)
                    continue
                holder = (look.value or {}).get("Session")
                self._free = not holder
                if holder == session.id:
                    self._leadership.confirm()
                    continue
                self._leadership.doubt(f"the lock is held by {holder or 'nobody'}")
                if not holder:
                    await self._acquire(session)

    async def _acquire(self, session: Session) -> None:
        """Take the lock, unless somebody was quicker or it is delayed; the next look tells."""
        await self._client.ask(lambda api: api.kv.put(self._key, self._value, acquire=session.id))

    async def _query(self, api: Any, index: int, wait: str) -> tuple[str, Any]:
        look: tuple[str, Any] = await api.kv.get(self._key, index=index, wait=wait, consistency="consistent")
        return look
