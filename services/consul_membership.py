"""Following which routers, shards or controllers are there and healthy, as Consul's checks see them."""

import random
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.consul_client import ConsulClient
from services.consul_query import Answer, follow
from services.consul_registration import ServiceName
from services.flap_damping import DampingRules, Membership, damped

_RULES = DampingRules()


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the cluster, as Consul's list has it at this moment."""

    name: str
    address: str
    """HOST:PORT; empty where it serves nothing."""
    passing: bool


async def members(client: ConsulClient, service: ServiceName) -> list[Member]:
    """Return the members of the client's cluster, healthy or not, by name; raises `Unavailable`."""
    _, entries = await client.ask(lambda api: api.health.service(str(service)))
    listed = [
        Member(name, address, all(check["Status"] == "passing" for check in entry["Checks"]))
        for entry, name, address in _listed(entries, client.settings.prefix)
    ]
    return sorted(listed, key=lambda member: member.name)


async def watch_members(
    client: ConsulClient, service: ServiceName, rng: random.Random, rules: DampingRules = _RULES
) -> AsyncGenerator[Mapping[str, str], None]:
    """Yield who of the cluster is in use (name to HOST:PORT), first and with each change, without end.

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
                seen = {name: address for _, name, address in _listed(heard.value, client.settings.prefix)}
            if seen is None:
                continue
            membership = damped(membership, seen, _now_ms(), rules)
            if membership.addresses != told:
                told = membership.addresses
                yield told


def _listed(entries: list[dict[str, Any]], prefix: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield each entry of our cluster with its name and address; clusters may share Consul's list."""
    for entry in entries:
        service = entry["Service"]
        meta = service.get("Meta") or {}
        if meta.get("cluster") == prefix:
            host = service["Address"] or entry["Node"]["Address"]
            yield entry, meta["member"], f"{host}:{service['Port']}" if service["Port"] else ""


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
