"""Calls of a shard by model, in bytes: picks a replica, and asks another where that may help."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import grpc.aio

from router.attempts import (
    MOST_ATTEMPTS,
    Refused,
    is_final,
    is_rerouted,
    news_may_help,
    news_within_s,
    next_choices,
    refused,
    unanswered,
    unreadable,
    untried,
)
from router.budget import Deadline
from router.call_history import CallHistory
from router.hedging import HedgeSettings, pauses_s
from router.race import Attempt, Race
from router.replicas import ReplicaHealth
from router.retry_budget import RetrySettings, ShareBudget
from router.routing_table import Endpoint, RoutingTable
from router.shard_channels import ShardChannels
from services.tracing import outgoing
from shards.errors import DeadlineExceeded, FailedModel, HeadraceError, Overloaded, Unavailable
from shards.measures import Counts
from shards.release import ModelVersion

T = TypeVar("T")

_HEDGING, _RETRIES = HedgeSettings(), RetrySettings()

_GRACE_S = 1.0
"""More than a call's time until it is given up here, should gRPC not have done so."""


class Tables(Protocol):
    """Knows the newest routing table."""

    def newest(self) -> RoutingTable: ...  # noqa: D102
    async def after(self, generation: int) -> RoutingTable: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettings:
    """How calls of shards are hedged and retried."""

    hedging: HedgeSettings = _HEDGING
    retries: RetrySettings = _RETRIES


DEFAULTS = CallSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call(Generic[T]):
    path: str
    payload: bytes
    models: tuple[ModelVersion, ...]
    table: RoutingTable
    deadline: Deadline
    sent_s: float
    history: CallHistory
    read: Callable[[bytes], T]


class ShardCalls:
    """Sends stage calls, all of them idempotent reads, to the shards that hold their model.

    A replica that drains, died, lost the model, has no room or answers with a fault of its own passes its
    call on to another. Beside one that is slower than usual another is asked, and the first answer counts.
    `tables` knows the newest placement, for a call that finds that its own is out of date.
    """

    def __init__(
        self,
        *,
        channels: ShardChannels,
        health: ReplicaHealth,
        tables: Tables,
        settings: CallSettings = DEFAULTS,
    ) -> None:
        self._channels = channels
        self._health = health
        self._tables = tables
        self._settings = settings
        self._hedges = ShareBudget(share=settings.hedging.share, reserve=settings.hedging.reserve)
        self.extra_attempts = Counts("kind")
        self._retries = ShareBudget(share=settings.retries.share, reserve=settings.retries.reserve)

    async def call(
        self,
        path: str,
        payload: bytes,
        *,
        models: tuple[ModelVersion, ...],
        table: RoutingTable,
        deadline: Deadline,
        read: Callable[[bytes], T],
    ) -> T:
        """Return what `read` makes of the response of a shard that holds the model, or each of several.

        An answer that it cannot read, for which it raises `HeadraceError`, is a fault of that shard. Raises
        `NotFound` for a model that the table does not know, `Unavailable` when no shard holds them, and
        `grpc.aio.AioRpcError` as the last shard that refused raised it.
        """
        replicas = table.replicas(*models)
        if not replicas:
            raise Unavailable(f"no shard holds {' and '.join(map(str, models))}")
        self._hedges.earn()
        self._retries.earn()
        call = _Call(
            path=path,
            payload=payload,
            models=models,
            table=table,
            deadline=deadline,
            sent_s=deadline.clock(),
            history=self._health.history(path, models),
            read=read,
        )
        race = Race()
        try:
            self._start(call, race, self._health.choose(replicas, call.sent_s, call.history))
            outcome = await self._outcome(call, race, alone=len(replicas) == 1)
        finally:
            self._give_up(call, race)
        if isinstance(outcome, Refused):
            raise outcome.status
        return outcome

    async def _outcome(self, call: _Call[T], race: Race, *, alone: bool) -> T | Refused:
        """Return the first answer, or the refusal after which nobody is left to ask."""
        remaining_s = call.deadline.remaining_s()
        pauses = () if alone else pauses_s(call.history.slow_s, remaining_s, self._settings.hedging)
        while True:
            ended = await race.next(pauses[0] if pauses else max(0.0, remaining_s) + _GRACE_S)
            outcome: T | Refused
            if ended is not None:
                outcome = await self._read(call, ended)
                if not isinstance(outcome, Refused) or is_final(outcome):
                    return outcome
                pauses = ()
                others = await self._after_refusal(call, outcome, race)
            elif pauses:
                pauses = pauses[1:]
                others = self._beside(call, race, hangs=not pauses)
            else:
                return unanswered(race.tried[-1])
            if others:
                self.extra_attempts.add("hedge" if ended is None else "retry")
                now = call.deadline.clock()
                self._start(call, race, self._health.choose(others, now, call.history, probe=False))
            elif ended is not None and not race.running:
                return outcome

    def _beside(self, call: _Call[T], race: Race, *, hangs: bool) -> Sequence[Endpoint]:
        """Return whom to ask beside the replica that has not answered yet, if that is worth it.

        A replica that answers others is only slow, and must not be relieved by doubling the load. One that
        `hangs`, for all that the time tells, answers nobody.
        """
        first, now = race.tried[0], call.deadline.clock()
        call.history.waiting(first, now - call.sent_s, now)
        others = untried(call.models, race.tried, call.table, self._tables.newest())
        if hangs and self._health.silent_since(first, call.sent_s):
            self._health.failed(first, now)
            return others if len(race.tried) < MOST_ATTEMPTS else ()
        others = tuple(other for other in others if self._health.well(other, now))
        return others if others and len(race.tried) == 1 and self._hedges.spend() else ()

    async def _after_refusal(self, call: _Call[T], refusal: Refused, race: Race) -> Sequence[Endpoint]:
        """Return whom to ask after a refusal, waiting for news where only news can help."""
        if len(race.tried) >= MOST_ATTEMPTS or call.deadline.remaining_s() <= 0:
            return ()
        newest = self._tables.newest()
        others = next_choices(refusal, race.tried, call.models, call.table, newest)
        if others:
            return others if is_rerouted(refusal) or self._retries.spend() else ()
        if race.running or not news_may_help(refusal):
            return ()
        try:
            async with asyncio.timeout(news_within_s(call.deadline.remaining_s())):
                newest = await self._tables.after(newest.generation)
        except TimeoutError:
            return untried(call.models, race.tried, call.table, newest)
        return next_choices(refusal, race.tried, call.models, call.table, newest)

    def _start(self, call: _Call[T], race: Race, replica: Endpoint) -> None:
        method = self._channels.method(replica.address, call.path)
        timeout_s = max(0.0, call.deadline.remaining_s())
        metadata = outgoing()
        if self._channels.metadata:
            metadata = (*(metadata or ()), *self._channels.metadata)
        running = method(call.payload, timeout=timeout_s, metadata=metadata)
        self._health.began(replica)
        race.enter(Attempt(replica, running, call.deadline.clock()))

    def _give_up(self, call: _Call[T], race: Race) -> None:
        """Cancel what still runs, which stops the shard's work on it, and remember how long that took."""
        for attempt in race.running:
            attempt.running.cancel()
            now = call.deadline.clock()
            call.history.given_up(attempt.replica, now - attempt.sent_s, now)
            self._health.ended(attempt.replica)

    async def _read(self, call: _Call[T], ended: Attempt) -> T | Refused:
        """Return the answer of an attempt that ended, or its refusal, and learn from either."""
        replica = ended.replica
        self._health.ended(replica)
        try:
            answer = call.read(await ended.running)
        except grpc.aio.AioRpcError as status:
            refusal = refused(replica, status)
            self._learn(call, ended, refusal)
            return refusal
        except HeadraceError as error:
            self._health.erred(replica, call.deadline.clock())
            return unreadable(replica, error)
        now = call.deadline.clock()
        self._health.answered(replica, now)
        call.history.answered(replica, now - ended.sent_s, now)
        return answer

    def _learn(self, call: _Call[T], ended: Attempt, refusal: Refused) -> None:
        """Avoid a replica that cannot be reached, drains or hangs; one that answers others does not hang."""
        replica, now = refusal.replica, call.deadline.clock()
        match refusal.error:
            case Overloaded() as error:
                self._health.heard(replica, now)
                # It refuses at once, and must not seem the faster for it.
                call.history.waiting(replica, error.retry_after_s, now)
            case FailedModel():
                self._health.heard(replica, now)
            case Unavailable():
                self._health.failed(replica, now)
            case DeadlineExceeded():
                call.history.given_up(replica, now - ended.sent_s, now)
                if not refusal.told and self._health.silent_since(replica, ended.sent_s):
                    self._health.failed(replica, now)
            case _ if is_final(refusal) or is_rerouted(refusal):
                self._health.answered(replica, now)
            case _:
                self._health.erred(replica, now)
