"""What `headrace doctor` looks at of a cluster: its ports and processes, Ray, Consul and the user store."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

from deploy.checkup import Finding, broken, note, ok
from deploy.ports import claim_port
from deploy.processes import resident_bytes
from deploy.settings import ClusterSettings, consul_settings, user_store_settings
from services.consul_client import ConsulClient
from services.redis_settings import RedisSettings
from services.user_store_opening import open_users
from shards.errors import Unavailable

_TIMEOUT_S = 3.0


def ports(settings: ClusterSettings) -> Iterator[Finding]:
    """Look whether the cluster's ports are free, or held by itself."""
    if settings.folders.claimed():
        yield from _running(settings)
        return
    for name, port in (("router_port", settings.router_port), ("controller_port", settings.controller_port)):
        if not port:
            continue
        try:
            claim_port(settings.host, port)
            yield ok("ports", f"{settings.host}:{port} is free")
        except Unavailable as error:
            yield broken("ports", str(error), f"set cluster.{name} to another port, or 0 for any")
    if not (settings.router_port or settings.controller_port):
        yield ok("ports", "any will do")


def _running(settings: ClusterSettings) -> Iterator[Finding]:
    try:
        running = settings.folders.running()
    except Unavailable as error:
        yield note("cluster", str(error), "look again when it is up: `headrace status`")
        return
    yield ok("cluster", f"runs: router {running.router}, controller {running.controller}")
    for name, pid in running.processes.items():
        if not resident_bytes(pid):
            advice = f"the supervisor starts it again; if not, see {settings.folders.logs_dir}"
            yield broken("cluster", f"{name} is gone", advice)
    for address in (running.router, running.controller):
        if problem := _unreachable(address):
            yield broken("cluster", problem, f"see {settings.folders.logs_dir}")


def ray(settings: ClusterSettings) -> Iterator[Finding]:
    """Look whether the Ray that the cluster joins answers; its own is started with it."""
    if not settings.ray_address or settings.ray_address == "auto":
        yield ok("ray", "one of the cluster's own")
    elif problem := _unreachable(settings.ray_address):
        yield broken("ray", problem, "start it with `ray start --head`, or take ray_address out of [cluster]")
    else:
        yield ok("ray", f"answers at {settings.ray_address}")


def consul(settings: ClusterSettings) -> Iterator[Finding]:
    """Look whether the Consul agent answers, and has a leader, where one is configured."""
    agent = consul_settings(settings)
    if agent is None:
        yield ok("consul", "not configured: the placement is in the workspace")
        return

    async def leader() -> str:
        async with ConsulClient(agent) as client:
            return str(await client.ask(lambda api: api.status.leader()))

    advice = f"start an agent at {agent.address}, or take consul_address out of [cluster]; docs/consul.md"
    try:
        found = asyncio.run(asyncio.wait_for(leader(), _TIMEOUT_S))
    except (Exception, TimeoutError) as error:  # Whatever the library raises.
        yield broken("consul", f"{agent.address} does not answer: {error or type(error).__name__}", advice)
        return
    if found:
        yield ok("consul", f"{agent.address} answers; {found} leads")
    else:
        yield broken("consul", f"{agent.address} answers and has no leader", advice)


def users(settings: ClusterSettings) -> Iterator[Finding]:
    """Look whether the user store can be read, and how many users it has."""
    place = user_store_settings(settings).place
    where = f"{place.host}:{place.port}" if isinstance(place, RedisSettings) else str(place)
    if not isinstance(place, RedisSettings) and place is not None and not place.exists():
        yield note("users", f"{where} is not there yet", "`headrace train` or `headrace users load` fills it")
        return
    try:
        known = asyncio.run(asyncio.wait_for(_some_user(settings), _TIMEOUT_S))
    except (Exception, TimeoutError) as error:  # Whatever the store's library raises.
        advice = "see docs/users.md; without it everybody is a stranger"
        yield broken("users", f"{where} cannot be read: {error or type(error).__name__}", advice)
        return
    if known:
        yield ok("users", where)
    else:
        yield note("users", f"{where} knows nobody", "`headrace users load` fills it from a data set")


async def _some_user(settings: ClusterSettings) -> bool:
    async with open_users(user_store_settings(settings)) as store:
        async for _ in store.user_ids():
            return True
    return False


def _unreachable(address: str) -> str:
    """Return why nobody answers at HOST:PORT, empty where somebody does."""
    host, _, port = address.rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S)):
            return ""
    except (OSError, ValueError) as error:
        return f"nobody answers at {address}: {error}"
