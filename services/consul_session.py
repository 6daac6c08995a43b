"""Sessions: how Consul knows that somebody who holds a lock is still there."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from services.consul_client import ConsulClient
from services.consul_registration import ServiceName
from shards.errors import HeadraceError, Unavailable

_RENEWAL = 0.2
"""Share of `alive_s` after which its holder reports again; a few reports may fail."""

_FORGET_S = 60
"""The least after which Consul lets an agent strike a dead candidate off its list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How long a silent holder keeps its locks.

    The agent ends a session whose holder was silent for `alive_s`. Where the agent has gone with the
    holder, Consul's servers end it `ttl_s` to twice that after the last renewal. Then nobody gets its locks
    for `lock_delay_s` more.
    """

    name: str
    alive_s: float = 2.0
    ttl_s: int = 10
    lock_delay_s: float = 0.5

    def __post_init__(self) -> None:
        if not 10 <= self.ttl_s <= 86_400:
            raise ValueError("Consul wants ttl_s within 10 to 86400")
        if not 0 < self.lock_delay_s <= 60:
            raise ValueError("Consul wants lock_delay_s above 0, up to 60")
        if not 0 < self.alive_s <= self.ttl_s:
            raise ValueError("Consul wants alive_s above 0, up to ttl_s")


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was alive when it began, at `began_s` of the monotonic clock or a little later."""

    id: str
    check_id: str
    began_s: float


@asynccontextmanager
async def open_session(client: ConsulClient, settings: SessionSettings) -> AsyncIterator[Session]:
    """Hold a session that lives by its holder's reports; at the end it is destroyed, if Consul is there.

    The session hangs on a check of its own: one that a holder started anew took over from its former life
    would keep that life's locks. Raises `Unavailable` or `PermissionDenied` when there can be none.
    """
    began_s = time.monotonic()
    check_id = f"{ServiceName.CANDIDATE}-{uuid.uuid4().hex}"
    try:
        await _register(client, settings, check_id)
        session_id: str = await client.ask(
            lambda api: api.session.create(
                name=settings.name, checks=[check_id], lock_delay=settings.lock_delay_s, ttl=settings.ttl_s
            )
        )
        yield Session(session_id, check_id, began_s)
    finally:
        # Consul ends the session with its check.
        with suppress(HeadraceError):
            await client.ask(lambda api: api.agent.service.deregister(check_id))


async def renewals(
    client: ConsulClient, session: Session, settings: SessionSettings
) -> AsyncGenerator[float, None]:
    """Report for ever; yield, each time, until when (monotonic seconds) the session is sure to live.

    Raises `NotFound` when Consul has ended it, and `Unavailable` once it may have.
    """
    until_s = session.began_s + settings.alive_s
    while True:
        asked_s = time.monotonic()
        try:
            await client.ask(lambda api: api.agent.check.ttl_pass(session.check_id))
            await client.ask(lambda api: api.session.renew(session.id))
        except Unavailable:
            if time.monotonic() >= until_s:
                raise
        else:
            until_s = asked_s + settings.alive_s
            yield until_s
        await asyncio.sleep(settings.alive_s * _RENEWAL)


async def _register(client: ConsulClient, settings: SessionSettings, check_id: str) -> None:
    """Register the candidate with the check that fails when it is silent for `alive_s`.

    A service's check, because that of a node would ask for the right to write to the node.
    """
    check = {
        "name": f"{settings.name} reports",
        "checkid": check_id,
        "ttl": f"{settings.alive_s:g}s",
        "status": "passing",
        "deregistercriticalserviceafter": f"{_FORGET_S}s",
    }
    meta = {"cluster": client.settings.prefix, "member": settings.name}
    await client.ask(
        lambda api: api.agent.service.register(
            str(ServiceName.CANDIDATE), service_id=check_id, check=check, meta=meta
        )
    )
