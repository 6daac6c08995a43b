"""Blocking queries: Consul answers when something changes, and is asked again for ever.

Source: Consul's documentation, "Blocking Queries", with its rules for clients on the index.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from services.backoff import Backoff
from services.consul_client import ConsulClient
from shards.errors import HeadraceError, Unavailable

log = logging.getLogger(__name__)

Query = Callable[[Any, int, str], Awaitable[tuple[str, Any]]]
"""Calls a method of py-consul's API with an index and a wait; gets the new index and the value."""

PAUSES = Backoff(base_s=0.1, cap_s=3.0)
"""How long to leave Consul alone after a failure: after an outage all are back at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Consul holds now; not always news, because a query also ends when its wait is over."""

    value: Any


@dataclass(frozen=True, slots=True)
class Silence:
    """Consul did not answer, or refused."""

    reason: HeadraceError


def next_index(known: int, answered: int) -> int:
    """Return the index for the next query; 0, which does not block, where the index went back.

    It goes back when the servers lost or restored their state. One below 1 would make a query that never
    blocks.
    """
    return 0 if answered < known else max(answered, 1)


async def follow(
    client: ConsulClient,
    query: Query,
    *,
    rng: random.Random,
    wait_s: Callable[[], float] | None = None,
) -> AsyncGenerator[Answer | Silence, None]:
    """Yield each answer to the query, and each failure to get one, without end.

    `wait_s` says anew for each query how long it may block; as the settings say where it is None.
    After a failure the index starts anew: who answers next may be an agent that remembers nothing, and
    it would let a query with an old index wait in vain. Where a reset is not seen as a failure, because
    only the servers behind a local agent were replaced, it is noticed within `wait_s`.
    """
    index = failures = 0
    while True:
        try:
            held_s = wait_s() if wait_s else client.settings.wait_s
            answered, value = await _ask(client, query, index, held_s)
        except HeadraceError as error:
            level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
            log.log(level, "a blocking query failed: %s", error)
            index = 0
            yield Silence(error)
            await asyncio.sleep(PAUSES.delay_s(failures, rng))
            failures += 1
            continue
        index, failures = next_index(index, int(answered)), 0
        yield Answer(value)
        if not index:
            log.warning("Consul's index went back to %s; it lost its history", answered)
            await asyncio.sleep(PAUSES.delay_s(0, rng))


async def _ask(client: ConsulClient, query: Query, index: int, wait_s: float) -> tuple[str, Any]:
    wait = f"{round(wait_s * 1000)}ms"
    answer: tuple[str, Any] = await client.ask(lambda api: query(api, index, wait), wait_s=wait_s)
    return answer
