"""What the controller's actions do to the world: none of them fails, and each tells what came of it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from services.bundle_catalogue import BundleCatalogue
from services.placement_store import Committed, PlacementStore
from services.shard_host import ShardHost
from services.shard_link import ShardLink
from shards.cluster_events import (
    Action,
    CommitFailed,
    CommitPlacement,
    Event,
    FinishOperation,
    LoadFailed,
    LoadModel,
    PlacementCommitted,
    RefuseChange,
    RestartShard,
    ShardStopped,
    StartShard,
    StopShard,
    UnloadDone,
    UnloadModel,
)
from shards.errors import HeadraceError

log = logging.getLogger(__name__)

_DRAIN_S = 5.0
"""What a shard that nobody asks any more may need for its last requests."""


@dataclass(frozen=True, slots=True)
class ControllerEffects:
    """Reaches the store, the host and, by their links, the shards; idle while another controller leads."""

    _store: PlacementStore
    _host: ShardHost
    _catalogue: BundleCatalogue
    _leads: Callable[[], bool]

    async def carry_out(self, action: Action, link: ShardLink | None) -> Event | None:
        """Carry out an action, on a shard over its link; returns what follows, if anything does."""
        if not self._leads():
            return _left_undone(action)
        match action:
            case StartShard():
                await self._start(action)
            case LoadModel() | UnloadModel():
                return await self._change_replica(action, link) if link else None
            case RestartShard() | StopShard():
                return await self._end(action, link)
            case CommitPlacement():
                return await self._commit(action)
            case RefuseChange():
                log.info("%s was refused: %s", action.operation_id, action.error)
            case FinishOperation(operation=done):
                log.info("%s %s: %s %s", done.kind, done.operation_id, done.state.value, done.detail)
            case _:
                assert_never(action)
        return None

    async def make_room(self, shard_ids: tuple[str, ...], gpu_fraction: float | None) -> None:
        """Tell the host how many shards there will be, and what share of a GPU each gets."""
        try:
            if self._leads():
                await self._host.scale(shard_ids, gpu_fraction)
        except Exception:
            # Room is only asked for; shards for which there is none stay silent and are started again.
            log.exception("no room for %d shards can be asked for", len(shard_ids))

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

    async def _change_replica(self, action: LoadModel | UnloadModel, link: ShardLink) -> Event:
        if isinstance(action, LoadModel):
            return await link.load(action, self._catalogue.path(action.model).absolute())
        log.info("unloading %s from %s", action.model, action.shard_id)
        return await link.unload(action)

    async def _end(self, action: RestartShard | StopShard, link: ShardLink | None) -> ShardStopped | None:
        """Let the shard finish what it is doing, then end its process."""
        stops = isinstance(action, StopShard)
        log.info("%s is %s", action.shard_id, "stopped" if stops else "restarted")
        if link:
            await link.drain(_DRAIN_S)
        try:
            if stops:
                await self._host.stop(action.shard_id)
                return ShardStopped(shard_id=action.shard_id)
            await self._host.restart(action.shard_id)
        except Exception:
            # Whatever the host's trouble is, the shard is told to end again later.
            log.exception("%s cannot be ended", action.shard_id)
        return None

    async def _commit(self, action: CommitPlacement) -> PlacementCommitted | CommitFailed:
        """Return what the store holds after the attempt, or why it cannot be written."""
        try:
            outcome = await self._store.commit(action.expected_generation, action.placement)
        except (OSError, HeadraceError) as error:
            log.exception("generation %d cannot be committed", action.placement.generation)
            return CommitFailed(error=str(error))
        if isinstance(outcome, Committed):
            log.info("generation %d", outcome.placement.generation)
            return PlacementCommitted(placement=outcome.placement)
        log.warning("somebody else committed generation %d", outcome.current.generation)
        return PlacementCommitted(placement=outcome.current)


def _left_undone(action: Action) -> Event | None:
    """Return what follows an action that is not this controller's to take: nobody waits for it for ever."""
    error = "another controller leads"
    match action:
        case CommitPlacement():
            return CommitFailed(error=error)
        case LoadModel():
            return LoadFailed(shard_id=action.shard_id, model=action.model, error=error, refused=False)
        case UnloadModel():
            return UnloadDone(shard_id=action.shard_id, model=action.model)
        case _:
            return None
