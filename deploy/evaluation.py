"""An evaluation through the running cluster, and whether it agrees with the one in a single process.

One explained search per query shows every ranking at once: the channels, the merged list, the pre-ranked
and the ranked one. Only where the gate kept channels closed are those asked for on their own, through the
router's retrieval proxy, so that "a channel alone" means the same in both evaluations.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc.aio
import numpy as np

from deploy.caller_channel import caller_channel
from protos.headrace.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from router.client import HeadraceClient
from router.client_results import SearchResult
from router.credentials import NOTHING, Credentials
from services.codec import Retrieval, retrieve_to_proto
from services.status import from_rpc_error
from services.tls import Party
from shards.errors import Unavailable
from shards.release import Release, ReleaseChannel
from shards.search_context import SearchContext
from training.evaluation.judgements import Judged
from training.evaluation.report import (
    DEPTH,
    DIVERSIFIED,
    HYBRID,
    PRE_RANKED,
    RANKED,
    Difference,
    Ranks,
    rank_of,
)

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.retrieval_service_pb2_grpc import RetrievalServiceAsyncStub

Q = TypeVar("Q")
A = TypeVar("A")

_LOOK_EVERY_S = 0.05

ATTEMPTS = 3
"""A degraded answer is asked for again: this compares scores, not speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineOptions:
    """How the cluster is asked: `concurrency` searches at once, within `timeout_s`, with `credentials`."""

    concurrency: int = 4
    timeout_s: float = 10.0
    credentials: Credentials = NOTHING

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.timeout_s <= 0:
            raise ValueError("concurrency and timeout_s must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRun:
    """What the cluster answered; `degraded` queries never got a complete answer.

    `opened` says for each query whether the gate was open.
    """

    ranks: Ranks
    degraded: tuple[str, ...]
    opened: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far online may be from offline before they disagree.

    `figure` bounds the gap between two overall figures. Equal scores are broken by item id in both, but
    floating-point sums may differ in the last bit between batches, so a share of `moved_far` queries
    may have their relevant item more than one place away.
    """

    figure: float = 0.001
    moved_far: float = 0.005


async def run_online(
    target: str,
    release: Release,
    judged: Sequence[Judged],
    options: OnlineOptions,
    *,
    on_query: Callable[[], None] = lambda: None,
) -> OnlineRun:
    """Send every query to the router at `target` (HOST:PORT) and return where the relevant items stood.

    Raises `Unavailable` if the router serves another release, and what a search or a retrieval raises.
    """
    async with (
        _client(target, options) as client,
        caller_channel(target, options.credentials, Party.ROUTER) as channel,
    ):
        replay = _Replay(client, RetrievalServiceStub(channel), release, options.timeout_s)
        return _as_run(judged, await _all(judged, replay.answer, options.concurrency, on_query))


async def await_release(target: str, release: Release, options: OnlineOptions) -> None:
    """Return when the router at `target` answers with this release.

    Raises `Unavailable` where it does not within `timeout_s`, and what a search raises.
    """
    until_s = time.monotonic() + options.timeout_s
    async with _client(target, options) as client:
        while True:
            answered = (await client.search(release.surface, release.surface, page_size=1)).release
            if answered == release.version:
                return
            if time.monotonic() > until_s:
                raise Unavailable(f"the router still serves release {answered}, not {release.version}")
            await asyncio.sleep(_LOOK_EVERY_S)


async def browse_online(
    target: str,
    release: Release,
    contexts: Sequence[SearchContext],
    options: OnlineOptions,
    *,
    page_size: int,
    on_page: Callable[[], None] = lambda: None,
) -> list[tuple[str, ...]]:
    """Return the first items that the router at `target` answers each user with, who asks without a query.

    Raises what `run_online` raises.
    """
    async with _client(target, options) as client:

        async def page(context: SearchContext) -> tuple[str, ...]:
            result = await _search(client, release, context, page_size=page_size, explain=False)
            return tuple(item.item_id for item in result.items)

        return await _all(contexts, page, options.concurrency, on_page)


def _client(target: str, options: OnlineOptions) -> HeadraceClient:
    shown = options.credentials
    return HeadraceClient(target, shown.token, tls=shown.tls, timeout_s=options.timeout_s)


async def _search(
    client: HeadraceClient, release: Release, context: SearchContext, *, page_size: int, explain: bool
) -> SearchResult:
    """Return a complete answer of this release, or the last of `ATTEMPTS`."""
    for _ in range(ATTEMPTS):
        result = await client.search(
            release.surface,
            context.query,
            user_id=context.user.user_id,
            page_size=page_size,
            now_ms=context.now_ms,
            explain=explain,
        )
        if result.release != release.version:
            raise Unavailable(f"the router serves release {result.release}, not {release.version}")
        if result.complete:
            break
    return result


@dataclass(frozen=True, slots=True)
class _Answered:
    ranks: dict[str, int]
    complete: bool
    opened: bool


async def _all(
    asked: Sequence[Q], ask: Callable[[Q], Awaitable[A]], concurrency: int, on_answer: Callable[[], None]
) -> list[A]:
    """Ask for all, so many at once; the first to fail ends the others, and is what is raised."""
    limit = asyncio.Semaphore(concurrency)

    async def answer(each: Q) -> A:
        async with limit:
            answered = await ask(each)
        on_answer()
        return answered

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(each)) for each in asked]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


@dataclass(frozen=True, slots=True)
class _Replay:
    """Sends queries to one router for one release."""

    client: HeadraceClient
    retrieval: "RetrievalServiceAsyncStub"
    release: Release
    timeout_s: float

    async def answer(self, query: Judged) -> _Answered:
        result = await _search(self.client, self.release, query.context, page_size=DEPTH, explain=True)
        seen = _rankings(result, self.release)
        found = {}
        for channel in self.release.channels:
            shown = channel.name in seen
            found[channel.name] = seen[channel.name] if shown else await self._retrieve(channel, query)
        found |= seen
        ranks = {name: rank_of(item_ids, query.relevant) for name, item_ids in found.items()}
        return _Answered(ranks, result.complete, result.gate.open)

    async def _retrieve(self, channel: ReleaseChannel, query: Judged) -> tuple[str, ...]:
        """Return the items of a channel that the search left out because its gate was closed or it failed."""
        call = Retrieval(model=channel.model, context=query.context, k=channel.k)
        try:
            response = await self.retrieval.Retrieve(retrieve_to_proto(call), timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return tuple(response.candidates.item_ids)


def _rankings(result: SearchResult, release: Release) -> dict[str, tuple[str, ...]]:
    """Return every ranking that the answer explains; a stage that did not run leaves the order as it was."""
    seen = result.explanation
    if seen is None:
        raise Unavailable("the router did not explain its answer")
    found = {name: tuple(candidates.item_ids) for name, candidates in seen.channels.items()}
    found[HYBRID] = tuple(seen.merged.item_ids)
    page = tuple(item.item_id for item in result.items)
    if release.pre_ranker:
        found[PRE_RANKED] = tuple(seen.pre_ranked.item_ids) or found[HYBRID]
    if release.ranker:
        found[RANKED] = tuple(seen.ranked.item_ids) if release.diversity else page
    if release.diversity:
        found[DIVERSIFIED] = page
    return found


def _as_run(judged: Sequence[Judged], answers: Sequence[_Answered]) -> OnlineRun:
    names = answers[0].ranks if answers else {}
    ranks = Ranks(
        query_ids=tuple(query.query_id for query in judged),
        with_history=np.array([bool(query.context.user.history.item_ids) for query in judged], np.bool_),
        by_ranking={name: np.array([a.ranks[name] for a in answers], np.int64) for name in names},
    )
    pairs = zip(judged, answers, strict=True)
    return OnlineRun(
        ranks=ranks,
        degraded=tuple(q.query_id for q, a in pairs if not a.complete),
        opened=tuple(answer.opened for answer in answers),
    )


def disagreements(differences: Sequence[Difference], tolerance: Tolerance) -> tuple[str, ...]:
    """Return one sentence for every ranking in which online and offline are too far apart."""
    found = []
    for difference in differences:
        if difference.largest_figure > tolerance.figure:
            found.append(
                f"{difference.ranking}: a figure differs by {difference.largest_figure:.4f}, "
                f"more than {tolerance.figure:g}"
            )
        if difference.moved_far > tolerance.moved_far:
            found.append(
                f"{difference.ranking}: {difference.moved_far:.1%} of the queries moved by more than one "
                f"place, more than {tolerance.moved_far:.1%}"
            )
    return tuple(found)
