"""Following which routers, shards or controllers are there and healthy, as Consul's checks see them."""

import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from services.consul_client import ConsulClient
from services.consul_query import Answer, follow
from services.consul_registration import ServiceName
from services.flap_damping import DampingRules, Membership, damped

_RULES = DampingRules()


async def watch_members(
    client: ConsulClient, service: ServiceName, rng: random.Random, rules: DampingRules = _RULES
) -> AsyncGenerator[Mapping[str, str], None]:
    """Yield who is in use (id as registered, to HOST:PORT), first and with each change, without end.

    Flaps are damped by `rules`. While Consul is gone, whoever was there stays.
    """
    membership = Membership()
    seen: Mapping[str, str] | None = None
    told: Mapping[str, str] | None = None

    async def query(api: Any, index: int, wait: str) -> tuple[str, Any]:
        answer: tuple[str, Any] = await api.health.service(str(service), passing=True, index=index, wait=wait)
        return answer

    def wait_s() -> float:
        change_ms = membership.next_change_ms
        left_s = max(10, change_ms - _now_ms()) / 1000 if change_ms else client.settings.wait_s
        return min(left_s, client.settings.wait_s)

    async with aclosing(follow(client, query, rng=rng, wait_s=wait_s)) as answers:
        async for heard in answers:
            if isinstance(heard, Answer):
                seen = _members(heard.value, service)
            if seen is None:
                continue
            membership = damped(membership, seen, _now_ms(), rules)
            if membership.addresses != told:
                told = membership.addresses
                yield told


def _members(entries: list[dict[str, Any]], service: ServiceName) -> dict[str, str]:
    """Return the members of an answer; without an address of its own a service has its node's."""
    return {
        entry["Service"]["ID"].removeprefix(f"{service}-"): (
            f"{entry['Service']['Address'] or entry['Node']['Address']}:{entry['Service']['Port']}"
        )
        for entry in entries
    }


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
