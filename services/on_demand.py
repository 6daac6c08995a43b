"""Stage calls that wait for a bundle which is held on demand: one load, however many wait for it."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

from shards.errors import NoRoomYet, Overloaded, StillLoading
from shards.release import ModelVersion

_MAX_WAITING = 1024
_RETRY_AFTER_S = 1.0


class OnDemandLoads:
    """Runs `demand` on the loader thread; made and used on one event loop."""

    def __init__(self, demand: Callable[[ModelVersion], object], loader: Executor) -> None:
        self._demand = demand
        self._loader = loader
        self._loads: dict[ModelVersion, asyncio.Future[object]] = {}
        self._waiting = 0

    async def loaded(self, model: ModelVersion, within_s: float) -> None:
        """Return once the bundle was loaded; the load goes on when its callers give up.

        Where others must have had their time first, this waits for that too, if the caller does. Raises what
        the load raises, `StillLoading` when it takes longer than this caller has, and `Overloaded` when too
        many wait already.
        """
        if self._waiting >= _MAX_WAITING:
            raise Overloaded(
                f"{self._waiting} requests wait for bundles to load", retry_after_s=_RETRY_AFTER_S
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(within_s):
                await self._loaded(model, time.monotonic() + within_s)
        except TimeoutError as error:
            raise StillLoading(f"model {model} was not loaded within {within_s:.3f} s") from error
        finally:
            self._waiting -= 1

    async def _loaded(self, model: ModelVersion, until_s: float) -> None:
        """Load, and again whenever something may have gone to make room, as long as there is time."""
        while True:
            try:
                await asyncio.shield(self._loads.get(model) or self._start(model))
            except NoRoomYet as error:
                if time.monotonic() + error.retry_after_s >= until_s:
                    raise
                await asyncio.sleep(error.retry_after_s)
            else:
                return

    async def settled(self, timeout_s: float) -> None:
        """Wait until no load is under way, `timeout_s` at most."""
        if self._loads:
            await asyncio.wait(self._loads.values(), timeout=timeout_s)

    def _start(self, model: ModelVersion) -> asyncio.Future[object]:
        load = asyncio.get_running_loop().run_in_executor(self._loader, self._demand, model)
        self._loads[model] = load
        load.add_done_callback(lambda done: self._ended(model, done))
        return load

    def _ended(self, model: ModelVersion, load: asyncio.Future[object]) -> None:
        del self._loads[model]
        # All who waited may have left; asyncio complains of errors that nobody has looked at.
        if not load.cancelled():
            load.exception()
