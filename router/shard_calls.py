"""Calls of a shard by model, in bytes: picks a replica, and asks another where that may help."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc.aio

from router.attempts import (
    MOST_ATTEMPTS,
    Refused,
    hedge_after_s,
    is_final,
    news_may_help,
    news_within_s,
    next_choices,
    refused,
    untried,
)
from router.budget import Deadline
from router.replicas import ReplicaHealth
from router.retry_policy import RetryBudget
from router.routing_table import Endpoint, RoutingTable
from router.shard_channels import ShardChannels
from shards.errors import DeadlineExceeded, FailedModel, Unavailable
from shards.release import ModelVersion

Outcome = bytes | Refused


class Tables(Protocol):
    """Knows the newest routing table."""

    def newest(self) -> RoutingTable: ...  # noqa: D102
    async def after(self, generation: int) -> RoutingTable: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    path: str
    payload: bytes
    models: tuple[ModelVersion, ...]
    table: RoutingTable
    deadline: Deadline
    sent_s: float


class ShardCalls:
    """Sends stage calls, all of them idempotent reads, to the shards that hold their model.

    A replica that drains, died or lost the model passes its call on to another. Beside one that is silent
    for a share of the call's time another is asked, and the first answer counts. `tables` knows the newest
    placement, for a call that finds that its own is out of date.
    """

    def __init__(self, *, channels: ShardChannels, health: ReplicaHealth, tables: Tables) -> None:
        self._channels = channels
        self._health = health
        self._tables = tables
        # A replica that answers others is only slow, and must not be relieved by doubling the load.
        self._hedges = RetryBudget(tokens=20.0, refill=0.05)

    async def call(
        self,
        path: str,
        payload: bytes,
        *,
        models: tuple[ModelVersion, ...],
        table: RoutingTable,
        deadline: Deadline,
    ) -> bytes:
        """Return the response of a shard that holds the model, or each of several.

        Raises `NotFound` for a model that the table does not know, `Unavailable` when no shard holds them,
        and `grpc.aio.AioRpcError` as the last shard that refused raised it.
        """
        replicas = table.replicas(*models)
        if not replicas:
            raise Unavailable(f"no shard holds {' and '.join(map(str, models))}")
        sent_s = deadline.clock()
        first = self._health.choose(replicas, sent_s)
        call = _Call(path=path, payload=payload, models=models, table=table, deadline=deadline, sent_s=sent_s)
        outcome = await self._outcome(call, first, hedged=len(replicas) > 1)
        if isinstance(outcome, Refused):
            raise outcome.status
        return outcome

    async def _outcome(self, call: _Call, first: Endpoint, *, hedged: bool) -> Outcome:
        """Return the first answer, or the refusal after which nobody is left to ask."""
        patience_s = hedge_after_s(call.deadline.remaining_s()) if hedged else None
        async with asyncio.TaskGroup() as group:
            attempts = _Attempts(group, lambda replica: self._ask(replica, call))
            attempts.start(first)
            try:
                while True:
                    outcome = await attempts.next(patience_s)
                    patience_s = None
                    if isinstance(outcome, bytes):
                        return outcome
                    if outcome is None:
                        others = self._beside(call, attempts.tried)
                    elif is_final(outcome):
                        return outcome
                    else:
                        others = await self._after_refusal(call, outcome, attempts)
                    if others:
                        attempts.start(self._health.choose(others, call.deadline.clock(), probe=False))
                    elif outcome is not None and not attempts.running:
                        return outcome
            finally:
                attempts.cancel()

    def _beside(self, call: _Call, tried: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """Return whom to ask beside the replica that has not answered yet, if that is worth it."""
        (first,) = tried
        if self._health.silent_since(first, call.sent_s):
            self._health.failed(first, call.deadline.clock())
        elif not self._hedges.failed():
            return ()
        return untried(call.models, tried, call.table, self._tables.newest())

    async def _after_refusal(
        self, call: _Call, refusal: Refused, attempts: "_Attempts"
    ) -> Sequence[Endpoint]:
        """Return whom to ask after a refusal, waiting for news where only news can help."""
        if len(attempts.tried) >= MOST_ATTEMPTS or call.deadline.remaining_s() <= 0:
            return ()
        newest = self._tables.newest()
        others = next_choices(refusal, attempts.tried, call.models, call.table, newest)
        if others or attempts.running or not news_may_help(refusal):
            return others
        try:
            async with asyncio.timeout(news_within_s(call.deadline.remaining_s())):
                newest = await self._tables.after(newest.generation)
        except TimeoutError:
            return untried(call.models, attempts.tried, call.table, newest)
        return next_choices(refusal, attempts.tried, call.models, call.table, newest)

    async def _ask(self, replica: Endpoint, call: _Call) -> Outcome:
        method = self._channels.method(replica.address, call.path)
        sent_s = call.deadline.clock()
        try:
            with self._health.asking(replica):
                response = await method(call.payload, timeout=max(0.0, call.deadline.remaining_s()))
        except grpc.aio.AioRpcError as status:
            refusal = refused(replica, status)
            self._learn(refusal, sent_s, call.deadline.clock())
            return refusal
        self._health.answered(replica, call.deadline.clock())
        self._hedges.succeeded()
        return response

    def _learn(self, refusal: Refused, sent_s: float, now: float) -> None:
        """Avoid a replica that cannot be reached, drains or hangs; one that answers others does not hang."""
        match refusal.error:
            case FailedModel():
                self._health.answered(refusal.replica, now)
            case Unavailable():
                self._health.failed(refusal.replica, now)
            case DeadlineExceeded():
                if not refusal.told and self._health.silent_since(refusal.replica, sent_s):
                    self._health.failed(refusal.replica, now)
            case _:
                self._health.answered(refusal.replica, now)


class _Attempts:
    """The attempts of one call: started one after the other, running beside each other."""

    def __init__(self, group: asyncio.TaskGroup, ask: Callable[[Endpoint], Awaitable[Outcome]]) -> None:
        self._group = group
        self._ask = ask
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self.tried: list[Endpoint] = []
        self.running = 0

    def start(self, replica: Endpoint) -> None:
        """Ask the replica."""
        self.tried.append(replica)
        self.running += 1
        self._tasks.append(self._group.create_task(self._run(replica)))

    async def next(self, patience_s: float | None) -> Outcome | None:
        """Return the next outcome of any, or None when the patience ends before there is one."""
        while True:
            waited_from_s = time.monotonic()
            try:
                async with asyncio.timeout(patience_s):
                    outcome = await self._outcomes.get()
            except TimeoutError:
                # If it is much later, this process was held up itself, and answers may lie there unread.
                if patience_s is None or time.monotonic() - waited_from_s < 2 * patience_s:
                    return None
            else:
                self.running -= 1
                return outcome

    def cancel(self) -> None:
        """Give up what still runs."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, replica: Endpoint) -> None:
        self._outcomes.put_nowait(await self._ask(replica))
