"""Drives the controller: feeds it what happens and carries out what it asks for."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self, assert_never

from services.bundle_catalogue import BundleCatalogue
from services.placement_store import Committed, PlacementStore
from services.shard_host import ShardHost
from services.shard_link import ShardLink
from shards.cluster_events import (
    Action,
    CommitPlacement,
    DeployRequested,
    Event,
    FinishOperation,
    GenerationHeard,
    LoadModel,
    PlacementCommitted,
    StartShard,
    Tick,
    UnloadModel,
)
from shards.cluster_state import BundleFacts, ClusterState, ControllerSettings
from shards.controller import step
from shards.errors import HeadraceError, NotFound
from shards.intent import Operation
from shards.observation import initial_state
from shards.placement import Placement
from shards.release import Release

log = logging.getLogger(__name__)

_COMMIT_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """The shards that a controller looks after, and how often it looks at each."""

    shard_ids: tuple[str, ...]
    settings: ControllerSettings
    poll_s: float = 0.5

    def __post_init__(self) -> None:
        if not self.shard_ids or len(set(self.shard_ids)) != len(self.shard_ids):
            raise ValueError("shard_ids must be distinct and not empty")
        if self.poll_s <= 0:
            raise ValueError("poll_s must be above 0")


class ControllerDriver:
    """Runs from `async with` on, from the placement that the store holds.

    All state changes in `_feed`, on the event loop and without waiting; effects run as tasks beside it
    and come back as events. No effect begins unless `leads` holds: a controller that was stopped, and
    wakes up after another one has taken over, must not act on what it knew.
    Raises `CorruptRecord` on entry when the store cannot be read.
    """

    def __init__(
        self,
        config: DriverConfig,
        store: PlacementStore,
        host: ShardHost,
        catalogue: BundleCatalogue,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config = config
        self._store = store
        self._host = host
        self._catalogue = catalogue
        self._leads = leads
        self._epoch_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
        self._exits = AsyncExitStack()
        self._moved = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        placement = await self._store.read()
        bundles = await asyncio.to_thread(self._known_bundles, placement)
        ids = self._config.shard_ids
        self._state = initial_state(self._config.settings, ids, placement, bundles, self.now_ms())
        self._links = {
            shard_id: ShardLink(shard_id, view.address, self._host)
            for shard_id, view in self._state.shards.items()
        }
        async with AsyncExitStack() as exits:
            for link in self._links.values():
                exits.push_async_callback(link.close)
            self._tasks = await exits.enter_async_context(asyncio.TaskGroup())
            exits.callback(self._stop)
            for shard_id in ids:
                self._run(self._follow(shard_id))
            self._feed(Tick())
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._exits.aclose()

    @property
    def state(self) -> ClusterState:
        """Return all that the controller knows now."""
        return self._state

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, by a clock that never goes back."""
        return self._epoch_ms + time.monotonic_ns() // 1_000_000

    async def deploy(self, release: Release) -> Operation:
        """Start to bring a release live; returns the operation.

        Raises `NotFound`, `CorruptBundle` or `InvalidInput` when its bundles are not there to be loaded.
        """
        bundles = await asyncio.to_thread(self._catalogue.describe_release, release)
        operation_id = uuid.uuid4().hex
        self._feed(DeployRequested(operation_id=operation_id, release=release, bundles=bundles))
        return self.operation(operation_id)

    def operation(self, operation_id: str) -> Operation:
        """Return an operation; raises `NotFound` for one never started, or before the controller was."""
        try:
            return self._state.operations[operation_id]
        except KeyError:
            raise NotFound("operation", operation_id) from None

    async def watch(self, known_generation: int) -> AsyncIterator[Placement]:
        """Yield the placement, if the watcher does not know it, and every one that follows; without end.

        A watcher that is slow gets the newest only.
        """
        self._feed(GenerationHeard(generation=known_generation))
        while True:
            moved = self._moved
            if self._state.placement.generation > known_generation:
                known_generation = self._state.placement.generation
                yield self._state.placement
            else:
                await moved.wait()

    def _known_bundles(self, placement: Placement) -> tuple[BundleFacts, ...]:
        """Describe what the placement holds; a bundle that is gone from disk may still be served."""
        bundles = []
        for model, assignment in placement.assignments.items():
            try:
                bundles.append(self._catalogue.describe(model))
            except HeadraceError as error:
                log.warning("%s is placed, but %s", model, error)
                bundles.append(BundleFacts(model=model, stage=assignment.stage))
        return tuple(bundles)

    async def _follow(self, shard_id: str) -> None:
        """Look at one shard for ever; every look is also the controller's clock."""
        while True:
            self._feed(await self._links[shard_id].look())
            await asyncio.sleep(self._config.poll_s)

    def _feed(self, event: Event) -> None:
        generation = self._state.placement.generation
        self._state, actions = step(self._state, event, self.now_ms())
        for action in actions:
            self._run(self._carry_out(action))
        if self._state.placement.generation != generation:
            self._moved.set()
            self._moved = asyncio.Event()

    async def _carry_out(self, action: Action) -> None:
        if not self._leads():
            return
        match action:
            case StartShard():
                await self._start(action)
            case LoadModel():
                path = self._catalogue.path(action.model).absolute()
                self._feed(await self._links[action.shard_id].load(action, path))
            case UnloadModel():
                log.info("unloading %s from %s", action.model, action.shard_id)
                self._feed(await self._links[action.shard_id].unload(action))
            case CommitPlacement():
                self._feed(PlacementCommitted(placement=await self._commit(action)))
            case FinishOperation(operation=done):
                log.info("%s %s: %s %s", done.kind, done.operation_id, done.state.value, done.detail)
            case _:
                assert_never(action)

    async def _start(self, action: StartShard) -> None:
        try:
            if action.restart:
                log.warning("%s has been silent for long and is restarted", action.shard_id)
                await self._host.restart(action.shard_id)
            else:
                await self._host.start(action.shard_id)
        except Exception:
            # Whatever the host's trouble is, the shard stays silent and is started again later.
            log.exception("%s cannot be started", action.shard_id)

    async def _commit(self, action: CommitPlacement) -> Placement:
        """Return what the store holds after the attempt; when it cannot be written, the old placement."""
        try:
            outcome = await self._store.commit(action.expected_generation, action.placement)
        except (OSError, HeadraceError):
            log.exception("generation %d cannot be committed", action.placement.generation)
            await asyncio.sleep(_COMMIT_RETRY_S)
            return self._state.placement
        if isinstance(outcome, Committed):
            log.info("generation %d", outcome.placement.generation)
            return outcome.placement
        log.warning("somebody else committed generation %d", outcome.current.generation)
        return outcome.current

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _stop(self) -> None:
        for task in self._running:
            task.cancel()
