"""Drives the controller: feeds it what happens and carries out what it asks for."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Self

from services.bundle_catalogue import BundleCatalogue
from services.change_waiters import ChangeWaiters
from services.controller_effects import ControllerEffects
from services.dialling import PLAINLY, Dialling
from services.placement_store import PlacementStore
from services.shard_host import ShardHost
from services.shard_link import ShardLink
from shards.changes import Change, DeployRelease, HoldModel
from shards.cluster_events import (
    Action,
    CancelRequested,
    ChangeRequested,
    CommitFailed,
    Event,
    GenerationHeard,
    RefuseChange,
    Tick,
)
from shards.cluster_state import BundleFacts, ClusterState, ControllerSettings
from shards.controller import step
from shards.errors import HeadraceError, NotFound
from shards.forecast import PlanForecast, forecast
from shards.intent import Intent, Operation
from shards.observation import initial_state
from shards.placement import Placement
from shards.planner import PlannedMove
from shards.release import ModelVersion
from shards.releases import bundles_named
from shards.shard_roster import desired_ids, gpu_fraction

log = logging.getLogger(__name__)


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
        shown: Dialling = PLAINLY,
    ) -> None:
        self._config = config
        self._store = store
        self._host = host
        self._shown = shown
        self._catalogue = catalogue
        self._effects = ControllerEffects(store, host, catalogue, leads)
        self.commit_failures = 0
        self._epoch_ms = time.time_ns() // 1_000_000 - time.monotonic_ns() // 1_000_000
        self._exits = AsyncExitStack()
        self._moved = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._waiters = ChangeWaiters()
        self._links: dict[str, ShardLink] = {}
        self._room: tuple[tuple[str, ...], float | None] = (), None

    async def __aenter__(self) -> Self:
        placement = await self._store.read()
        bundles = await asyncio.to_thread(self._known_bundles, placement)
        ids = self._config.shard_ids
        self._state = initial_state(self._config.settings, ids, placement, bundles, self.now_ms())
        self._room = ids, None
        async with AsyncExitStack() as exits:
            exits.push_async_callback(self._close_links)
            self._tasks = await exits.enter_async_context(asyncio.TaskGroup())
            exits.callback(self._stop)
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

    async def request(self, change: Change) -> Operation:
        """Start a change; returns its operation once a committed generation holds it.

        Raises what refuses it: `InvalidInput`, `NotFound`, `CorruptBundle`, `Conflict` with what is
        committed or under way, `Refused` as the cluster is now, `Unavailable` when it cannot be committed.
        """
        operation_id = uuid.uuid4().hex
        try:
            bundles = await asyncio.to_thread(self._described, change)
            event = ChangeRequested(operation_id=operation_id, change=change, bundles=bundles)
        except HeadraceError as error:
            # Operators find what was refused among the operations, whoever found out that it must be.
            event = ChangeRequested(operation_id=operation_id, change=change, problem=error)
        committed = self._waiters.request(operation_id)
        self._feed(event)
        await committed
        return self.operation(operation_id)

    async def cancel(self, operation_id: str) -> Operation:
        """Cancel an operation; returns it once its end is committed.

        One that has ended stays as it is. Raises `NotFound` for one that never was, `Unavailable` when the
        end cannot be committed.
        """
        if self.operation(operation_id).running:
            ended = self._waiters.cancel(operation_id)
            self._feed(CancelRequested(operation_id=operation_id))
            await ended
        return self.operation(operation_id)

    def plan(self, moves: tuple[PlannedMove, ...] = ()) -> PlanForecast:
        """Return what a rebalance, or these moves, would do; changes nothing.

        Raises `InvalidInput` for a move that cannot be made.
        """
        return forecast(self._state, moves, self.now_ms())

    def operations(self) -> tuple[Operation, ...]:
        """Return the operations under way and the last that ended or were refused, oldest first."""
        return tuple(self._state.operations.values())

    def operation(self, operation_id: str) -> Operation:
        """Return an operation; raises `NotFound` for one never started, or before the controller was."""
        try:
            return self._state.operations[operation_id]
        except KeyError:
            raise NotFound("operation", operation_id) from None

    async def watch(self, known_generation: int) -> AsyncIterator[Placement]:
        """Yield the placement, if the watcher does not know it, and every one that follows; without end.

        A watcher that is slow gets the newest only. What operators have asked for is left out.
        """
        self._feed(GenerationHeard(generation=known_generation))
        while True:
            moved = self._moved
            if self._state.placement.generation > known_generation:
                known_generation = self._state.placement.generation
                yield replace(self._state.placement, intent=Intent())
            else:
                await moved.wait()

    def _described(self, change: Change) -> tuple[BundleFacts, ...]:
        """Describe the bundles that a change brings; raises what is wrong with one."""
        if isinstance(change, DeployRelease):
            return self._catalogue.describe_release(change.release)
        if isinstance(change, HoldModel):
            return (self._catalogue.describe_held(change.policy.model),)
        return ()

    def _known_bundles(self, placement: Placement) -> tuple[BundleFacts, ...]:
        """Describe what the placement names; a bundle that is gone from disk may still be served."""
        return tuple(
            described
            for model in bundles_named(placement)
            if (described := self._known_bundle(placement, model))
        )

    def _known_bundle(self, placement: Placement, model: ModelVersion) -> BundleFacts | None:
        try:
            return self._catalogue.describe(model)
        except HeadraceError as error:
            log.warning("%s is wanted, but %s", model, error)
            assignment = placement.assignments.get(model)
            return BundleFacts(model=model, stage=assignment.stage) if assignment else None

    async def _follow(self, link: ShardLink, shard_id: str) -> None:
        """Look at one shard as long as it is the cluster's; every look is also the controller's clock."""
        while self._links.get(shard_id) is link:
            self._feed(await link.look())
            await asyncio.sleep(self._config.poll_s)
        await link.close()

    def _feed(self, event: Event) -> None:
        generation = self._state.placement.generation
        self._state, actions = step(self._state, event, self.now_ms())
        self._relink()
        self._make_room()
        for action in actions:
            self._run(self._carry_out(action))
            if isinstance(action, RefuseChange):
                self._waiters.refuse(action.operation_id, action.error)
        self._waiters.look(self._state)
        if self._state.placement.generation != generation:
            self._moved.set()
            self._moved = asyncio.Event()

    def _relink(self) -> None:
        """Follow the shards that have come to the cluster, and those no longer that have gone."""
        shards = self._state.shards
        if self._links.keys() == shards.keys():
            return
        self._links = {s: link for s, link in self._links.items() if s in shards}
        for shard_id in shards.keys() - self._links.keys():
            link = ShardLink(shard_id, shards[shard_id].address, self._host, self._shown)
            self._links[shard_id] = link
            self._run(self._follow(link, shard_id))

    def _make_room(self) -> None:
        """Tell the host of a new number of shards, or share of a GPU, before any is started."""
        intent = self._state.draft.intent
        wanted = desired_ids(self._state.configured, intent), gpu_fraction(intent)
        if wanted != self._room:
            self._room = wanted
            self._run(self._effects.make_room(*wanted))

    async def _close_links(self) -> None:
        while self._links:
            _, link = self._links.popitem()
            await link.close()

    async def _carry_out(self, action: Action) -> None:
        link = self._links.get(getattr(action, "shard_id", ""))
        event = await self._effects.carry_out(action, link)
        if isinstance(event, CommitFailed):
            self.commit_failures += 1
            self._waiters.lose(event.error)
        if event:
            self._feed(event)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _stop(self) -> None:
        for task in self._running:
            task.cancel()
