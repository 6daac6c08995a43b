"""A networked placement store with a copy at hand: a controller starts without it and repairs its losses."""

import logging
from collections.abc import AsyncIterator

from services.placement_store import Committed, Conflict, PlacementStore
from shards.errors import Unavailable
from shards.placement import Placement

log = logging.getLogger(__name__)


class MirroredPlacementStore:
    """`primary` decides; `mirror`, written by this process alone, is what it is known to have held.

    A primary that holds less than the mirror has lost its history, because generations only rise. It then
    gets the mirror's placement back, so that routers, which know that generation, follow it on.
    """

    def __init__(self, primary: PlacementStore, mirror: PlacementStore) -> None:
        self._primary = primary
        self._mirror = mirror

    async def read(self) -> Placement:
        """Return the placement; the mirror's while the primary does not answer."""
        known = await self._mirror.read()
        try:
            held = await self._restore(await self._primary.read(), known)
        except Unavailable as error:
            log.warning("starting from the last known generation %d: %s", known.generation, error)
            return known
        await self._remember(held)
        return held

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        """Replace the primary's placement if its generation is the expected one.

        Raises `Unavailable` while the primary does not answer.
        """
        known = await self._mirror.read()
        if expected_generation < known.generation:
            # An emptied primary would take it, and generations would go back.
            return Conflict(await self._restore(await self._primary.read(), known))
        outcome = await self._primary.commit(expected_generation, placement)
        if isinstance(outcome, Conflict):
            held = await self._restore(outcome.current, known)
            if held.generation == expected_generation:
                outcome = await self._primary.commit(expected_generation, placement)
            else:
                outcome = Conflict(held)
        await self._remember(outcome.placement if isinstance(outcome, Committed) else outcome.current)
        return outcome

    async def follow(self, placements: AsyncIterator[Placement]) -> None:
        """Mirror what others commit to the primary, so that a successor knows all that its leader knew."""
        async for placement in placements:
            await self._remember(placement)

    async def _restore(self, held: Placement, known: Placement) -> Placement:
        """Return what the primary holds, once it holds no less than the mirror."""
        while held.generation < known.generation:
            log.error("the store went back from generation %d to %d", known.generation, held.generation)
            outcome = await self._primary.commit(held.generation, known)
            held = outcome.placement if isinstance(outcome, Committed) else outcome.current
        return held

    async def _remember(self, placement: Placement) -> None:
        known = await self._mirror.read()
        if placement.generation > known.generation:
            try:
                await self._mirror.commit(known.generation, placement)
            except OSError as error:
                log.warning("generation %d is not mirrored: %s", placement.generation, error)
