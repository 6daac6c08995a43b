"""Drives the controller: feeds it what happens and carries out what it asks for."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Self, assert_never

from services.bundle_catalogue import BundleCatalogue
from services.change_waiters import ChangeWaiters
from services.placement_store import Committed, PlacementStore
from services.shard_host import ShardHost
from services.shard_link import ShardLink
from shards.changes import Change, DeployRelease, HoldModel
from shards.cluster_events import (
    Action,
    CancelRequested,
    ChangeRequested,
    CommitFailed,
    CommitPlacement,
    Event,
    FinishOperation,
    GenerationHeard,
    LoadModel,
    PlacementCommitted,
    RefuseChange,
    RestartShard,
    ShardStopped,
    StartShard,
    StopShard,
    Tick,
    UnloadModel,
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

_RESTART_DRAIN_S = 5.0
"""What a shard that nobody asks any more may need for its last requests."""


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
        bundles = await asyncio.to_thread(self._described, change)
        operation_id = uuid.uuid4().hex
        committed = self._waiters.request(operation_id)
        self._feed(ChangeRequested(operation_id=operation_id, change=change, bundles=bundles))
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
            return (self._catalogue.describe(change.policy.model),)
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
            link = ShardLink(shard_id, shards[shard_id].address, self._host)
            self._links[shard_id] = link
            self._run(self._follow(link, shard_id))

    def _make_room(self) -> None:
        """Tell the host of a new number of shards, or share of a GPU, before any is started."""
        intent = self._state.draft.intent
        wanted = desired_ids(self._state.configured, intent), gpu_fraction(intent)
        if wanted != self._room:
            self._room = wanted
            self._run(self._scale_host(*wanted))

    async def _scale_host(self, shard_ids: tuple[str, ...], fraction: float | None) -> None:
        try:
            if self._leads():
                await self._host.scale(shard_ids, fraction)
        except Exception:
            # Room is only asked for; shards for which there is none stay silent and are started again.
            log.exception("no room for %d shards can be asked for", len(shard_ids))

    async def _close_links(self) -> None:
        while self._links:
            _, link = self._links.popitem()
            await link.close()

    async def _carry_out(self, action: Action) -> None:
        if not self._leads():
            if isinstance(action, CommitPlacement):
                self._feed(CommitFailed(error="another controller leads"))
            return
        match action:
            case StartShard():
                await self._start(action)
            case LoadModel() | UnloadModel():
                await self._change_replica(action)
            case RestartShard() | StopShard():
                await self._end(action)
            case CommitPlacement():
                self._feed(await self._commit(action))
            case RefuseChange():
                log.info("%s was refused: %s", action.operation_id, action.error)
            case FinishOperation(operation=done):
                log.info("%s %s: %s %s", done.kind, done.operation_id, done.state.value, done.detail)
            case _:
                assert_never(action)

    async def _change_replica(self, action: LoadModel | UnloadModel) -> None:
        link = self._links.get(action.shard_id)
        if link is None:
            return
        if isinstance(action, LoadModel):
            self._feed(await link.load(action, self._catalogue.path(action.model).absolute()))
        else:
            log.info("unloading %s from %s", action.model, action.shard_id)
            self._feed(await link.unload(action))

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

    async def _end(self, action: RestartShard | StopShard) -> None:
        """Let the shard finish what it is doing, then end its process."""
        log.info("%s: %s", type(action).__name__, action.shard_id)
        if link := self._links.get(action.shard_id):
            await link.drain(_RESTART_DRAIN_S)
        try:
            if isinstance(action, RestartShard):
                await self._host.restart(action.shard_id)
                return
            await self._host.stop(action.shard_id)
        except Exception:
            # Whatever the host's trouble is, the shard is told to end again later.
            log.exception("%s cannot be ended", action.shard_id)
        else:
            self._feed(ShardStopped(shard_id=action.shard_id))

    async def _commit(self, action: CommitPlacement) -> PlacementCommitted | CommitFailed:
        """Return what the store holds after the attempt, or why it cannot be written."""
        try:
            outcome = await self._store.commit(action.expected_generation, action.placement)
        except (OSError, HeadraceError) as error:
            log.exception("generation %d cannot be committed", action.placement.generation)
            self._waiters.lose(str(error))
            return CommitFailed(error=str(error))
        if isinstance(outcome, Committed):
            log.info("generation %d", outcome.placement.generation)
            return PlacementCommitted(placement=outcome.placement)
        log.warning("somebody else committed generation %d", outcome.current.generation)
        return PlacementCommitted(placement=outcome.current)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _stop(self) -> None:
        for task in self._running:
            task.cancel()
