"""The door for search frontends: admits a search, gathers what the cascade needs, answers."""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import grpc.aio

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc
from router import cascade
from router.admission import Admission
from router.answer import Answer
from router.answer_codec import answer_to_proto
from router.budget import Deadline
from router.coalescing import Coalescing
from router.coverage import Gap, reason_of
from router.gate_shadow import compare_gate, is_gate_shadowed, unopened, with_open_gate
from router.gatekeeper import Gatekeepers
from router.outcome_log import OutcomeLog
from router.routing_table import RoutingTable
from router.search import Search
from router.search_observer import SearchObserver, WatchedSearch
from router.shadow_comparison import compare, unanswered
from router.shadowing import Shadowing, ShadowSearch
from router.shard_calls import ShardCalls
from router.stage_client import StageClient
from services.codec import SearchRequest, search_from_proto
from services.user_store import UserStore
from shards.errors import CorruptRecord, HeadraceError
from shards.release import Release
from shards.search_context import SearchContext, UserState

log = logging.getLogger(__name__)

_USER_SHARE = 0.25
"""Of the time of a search, what reading its user may take."""

Context = grpc.aio.ServicerContext[search_service_pb2.SearchRequest, search_service_pb2.SearchResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seconds:
    """What a search took to be answered, and what it had been given."""

    took_s: float
    given_s: float


class SearchServicer(search_service_pb2_grpc.SearchServiceServicer):
    """Answers searches with the newest routing table, read once for each."""

    def __init__(
        self,
        *,
        calls: ShardCalls,
        newest: Callable[[], RoutingTable],
        users: UserStore,
        admission: Admission,
        deadline_of: Callable[[float | None], Deadline],
        shadowing: Shadowing,
        user_timeout_s: float,
        coalescing: Coalescing,
        observer: SearchObserver,
        gatekeepers: Gatekeepers,
        outcomes: OutcomeLog | None,
        max_page_size: int,
    ) -> None:
        self._calls = calls
        self._newest = newest
        self._users = users
        self._admission = admission
        self._deadline_of = deadline_of
        self._shadowing = shadowing
        self._user_timeout_s = user_timeout_s
        self._coalescing = coalescing
        self._observer = observer
        self._gatekeepers = gatekeepers
        self._outcomes = outcomes
        self._max_page_size = max_page_size

    async def Search(  # noqa: N802
        self, request: search_service_pb2.SearchRequest, context: Context
    ) -> search_service_pb2.SearchResponse:
        """Answer one search; raises `HeadraceError`, which the chassis maps to a status."""
        with self._observer.watching(context) as seen:
            return await self._search(request, context, seen)

    async def _search(
        self, request: search_service_pb2.SearchRequest, context: Context, seen: WatchedSearch
    ) -> search_service_pb2.SearchResponse:
        started_s, deadline = time.monotonic(), self._deadline_of(context.time_remaining())
        with self._admission.admitted(deadline):
            given_s = deadline.remaining_s()
            asked = search_from_proto(request, most_items=self._max_page_size)
            table = self._newest()
            release = table.release(asked.surface, asked.user_id)
            asked = _told_all(asked, release)
            seen.asks(asked, release, table.generation)
            within = self._admission.sooner(deadline)
            answer = await self._answer(asked, release, table, within, equal=_wanted(request))
            seen.answer = answer
            if self._outcomes is not None:
                self._outcomes.searched(asked, answer, pinned=table.pins(asked.surface))
            seconds = _Seconds(took_s=time.monotonic() - started_s, given_s=given_s)
            for search in self._shadows(asked, answer, table, seconds):
                # Called when the answer is out, so that the shadow never delays it. Any function will do,
                # though the stubs ask for an instance of a class of theirs.
                context.add_done_callback(lambda _, search=search: self._shadowing.offer(search))  # type: ignore[arg-type]
            return answer_to_proto(
                answer, request_id=asked.request_id, generation=table.generation, explain=asked.explain
            )

    def _shadows(
        self, asked: SearchRequest, answer: Answer, table: RoutingTable, seconds: "_Seconds"
    ) -> Iterator[ShadowSearch]:
        """Yield what else shall see the search: the release's shadow, and its own with the gate open."""

        def run(release: Release) -> Callable[[], Awaitable[Answer]]:
            return lambda: self._answer(asked, release, table, Deadline.after(seconds.given_s))

        if shadow := table.shadow(answer.release, asked.request_id):
            yield ShadowSearch(
                name=f"shadow {shadow.name}",
                run=run(shadow),
                answered=lambda other, other_s: compare(answer, other, extra_s=other_s - seconds.took_s),
                failed=lambda: unanswered(shadow),
            )
        if is_gate_shadowed(answer, asked.request_id):
            opened = with_open_gate(answer.release)
            yield ShadowSearch(
                name=f"the open gate of {opened.name}",
                run=run(opened),
                answered=lambda other, _: compare_gate(answer, other),
                failed=lambda: unopened(answer.release),
            )

    async def _answer(
        self,
        asked: SearchRequest,
        release: Release,
        table: RoutingTable,
        deadline: Deadline,
        *,
        equal: bytes | None = None,
    ) -> Answer:
        """Return what the release answers; the table is the one that the search started with.

        Searches of one release that want the same, as `equal` tells, and know the same of the user may share
        an answer.
        """
        assert asked.now_ms is not None
        user, gaps = await self._user(asked.user_id, asked.now_ms, release.history_limit, deadline)
        context = SearchContext(query=asked.query, user=user, features=asked.context, now_ms=asked.now_ms)
        search = Search(request=asked, context=context, release=release, deadline=deadline)
        gatekeeper = self._gatekeepers.of(release, table.gates)

        async def compute() -> Answer:
            return await cascade.run(search, StageClient(self._calls, table), gatekeeper)

        if equal is None:
            answer = await compute()
        else:
            answer = await self._coalescing.answer((release.name, equal), user, deadline, compute)
        return replace(answer, gaps=gaps + answer.gaps)

    async def _user(
        self, user_id: str, now_ms: int, limit: int, deadline: Deadline
    ) -> tuple[UserState, tuple[Gap, ...]]:
        """Return the user and what is missing of them: one who cannot be read is a stranger.

        A store elsewhere may take a part of the time only, so that there is an answer without it.
        """
        if not user_id:
            return UserState(), ()
        timeout_s = min(self._user_timeout_s, deadline.remaining_s() * _USER_SHARE)
        try:
            return await self._users.get(user_id, now_ms, limit, timeout_s=timeout_s), ()
        except HeadraceError as error:
            if isinstance(error, CorruptRecord):
                log.error("a user's record is unreadable: %s", error.problem)
            detail = f"the user's features and history are unreadable: {type(error).__name__}"
            return UserState(user_id=user_id), (Gap(reason=reason_of(error), detail=detail),)


def _told_all(asked: SearchRequest, release: Release) -> SearchRequest:
    """Return the search with the moment that it is answered for, and with an id."""
    moments = (asked.now_ms, release.as_of_ms)
    now_ms = next((moment for moment in moments if moment is not None), time.time_ns() // 1_000_000)
    return replace(asked, now_ms=now_ms, request_id=asked.request_id or uuid.uuid4().hex)


def _wanted(request: search_service_pb2.SearchRequest) -> bytes:
    """Return what two requests for the same have in common: all of it but the id, which is read before."""
    request.ClearField("request_id")
    return request.SerializeToString(deterministic=True)
