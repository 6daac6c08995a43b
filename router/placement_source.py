"""Where a router hears of placements, beside or instead of a controller's stream."""

import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from services.consul_client import ConsulClient
from services.consul_placement_store import ConsulPlacementStore
from services.consul_settings import ConsulSettings
from shards.placement import Placement


class PlacementSource(Protocol):
    """Somebody who tells placements, newest last."""

    def placements(self, known_generation: int) -> AsyncIterator[Placement]:
        """Yield what is newer than known, and everything that follows; without end.

        Waits out the source's own absence. OSError means that it can never be reached as it is configured.
        """


class ConsulPlacementSource:
    """Reads the placement where a controller with `ConsulPlacementStore` commits it."""

    def __init__(self, settings: ConsulSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng

    async def placements(self, known_generation: int) -> AsyncIterator[Placement]:
        """Yield what is newer than known, and everything that follows; without end."""
        async with ConsulClient(self._settings) as client:
            watch = ConsulPlacementStore(client).watch(known_generation, self._rng)
            async with aclosing(watch) as placements:
                async for placement in placements:
                    yield placement
