"""A controller that commits as fast as it can while it leads, in a process of its own, to be stopped.

Its arguments are the agent's HOST:PORT, a prefix, its name and a folder. There it keeps its mirror, and
writes down each generation once that is committed.
"""

import asyncio
import random
import sys
from functools import partial
from pathlib import Path

from services.consul_client import ConsulClient
from services.consul_leadership import candidacy, run_terms
from services.consul_placement_store import ConsulPlacementStore
from services.consul_session import SessionSettings
from services.consul_settings import ConsulSettings
from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import Committed, FilePlacementStore, PlacementStore
from shards.errors import Unavailable
from shards.placement import Placement


async def contend(address: str, prefix: str, name: str, folder: Path) -> None:
    """Stand until killed."""
    consul = ConsulSettings(address=address, prefix=prefix, timeout_s=1.0)
    async with ConsulClient(consul) as client, asyncio.TaskGroup() as group:
        primary = ConsulPlacementStore(client)
        store = MirroredPlacementStore(primary, FilePlacementStore(folder / f"{name}.json"))
        group.create_task(store.follow(primary.watch(0, random.Random())))
        async with candidacy(consul, SessionSettings(name=name), random.Random()) as leadership:
            await run_terms(leadership, partial(commit, store, name, folder / f"{name}.log"))


async def commit(store: PlacementStore, name: str, log: Path) -> None:
    """Commit one generation after the other."""
    held = await store.read()
    while True:
        wanted = Placement(generation=held.generation + 1, endpoints={"leader": f"{name}:1"})
        try:
            outcome = await store.commit(held.generation, wanted)
        except Unavailable:
            continue
        if isinstance(outcome, Committed):
            held = outcome.placement
            with log.open("a") as file:
                file.write(f"{held.generation}\n")
        else:
            held = outcome.current


if __name__ == "__main__":
    _, address, prefix, name, folder = sys.argv
    asyncio.run(contend(address, prefix, name, Path(folder)))
