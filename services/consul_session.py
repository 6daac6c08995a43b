"""Sessions: how Consul knows that somebody who holds a lock is still there."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from services.consul_client import ConsulClient
from shards.errors import HeadraceError, Unavailable

_RENEWAL = 0.2
"""Share of the time to live after which a session is renewed; a few may fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How long a silent holder keeps its locks.

    Consul ends a session `ttl_s` to twice that after it was last renewed, and lets nobody take its locks
    for `lock_delay_s` more.
    """

    name: str
    ttl_s: int = 10
    lock_delay_s: float = 10.0

    def __post_init__(self) -> None:
        if not 10 <= self.ttl_s <= 86_400:
            raise ValueError("Consul wants ttl_s within 10 to 86400")
        if not 0 <= self.lock_delay_s <= 60:
            raise ValueError("Consul wants lock_delay_s within 0 to 60")


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was alive when it began, at `began_s` of the monotonic clock or a little later."""

    id: str
    began_s: float


@asynccontextmanager
async def open_session(client: ConsulClient, settings: SessionSettings) -> AsyncIterator[Session]:
    """Hold a session that lives by renewal alone; at the end it is destroyed, if Consul is there.

    It has no health check: the failure of its agent's gossip would end it before its time to live, on
    which the holder counts. Raises `Unavailable` or `PermissionDenied` when there can be none.
    """
    began_s = time.monotonic()
    session_id: str = await client.ask(
        lambda api: api.session.create(
            name=settings.name, checks=[], lock_delay=settings.lock_delay_s, ttl=settings.ttl_s
        )
    )
    try:
        yield Session(session_id, began_s)
    finally:
        with suppress(HeadraceError):
            await client.ask(lambda api: api.session.destroy(session_id))


async def renewals(client: ConsulClient, session: Session, ttl_s: float) -> AsyncGenerator[float, None]:
    """Renew for ever; yield, each time, until when (monotonic seconds) the session is sure to live.

    Raises `NotFound` when Consul has ended it, and `Unavailable` once it may have.
    """
    until_s = session.began_s + ttl_s
    while True:
        asked_s = time.monotonic()
        try:
            await client.ask(lambda api: api.session.renew(session.id))
        except Unavailable:
            if time.monotonic() >= until_s:
                raise
        else:
            until_s = asked_s + ttl_s
            yield until_s
        await asyncio.sleep(ttl_s * _RENEWAL)
