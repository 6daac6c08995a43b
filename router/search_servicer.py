"""The door for search frontends: admits a search, gathers what the cascade needs, answers."""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import grpc.aio

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc
from router import cascade
from router.admission import Admission
from router.answer_codec import answer_to_proto
from router.budget import Deadline
from router.coverage import Gap, GapReason
from router.routing_table import RoutingTable
from router.search import Search
from router.shard_calls import ShardCalls
from router.stage_client import StageClient
from services.codec import SearchRequest, search_from_proto
from services.user_store import UserStore
from shards.errors import CorruptRecord
from shards.release import Release
from shards.search_context import SearchContext, UserState

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[search_service_pb2.SearchRequest, search_service_pb2.SearchResponse]


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
    ) -> None:
        self._calls = calls
        self._newest = newest
        self._users = users
        self._admission = admission
        self._deadline_of = deadline_of

    async def Search(  # noqa: N802
        self, request: search_service_pb2.SearchRequest, context: Context
    ) -> search_service_pb2.SearchResponse:
        """Answer one search; raises `HeadraceError`, which the chassis maps to a status."""
        with self._admission.admitted():
            deadline = self._deadline_of(context.time_remaining())
            asked = search_from_proto(request)
            table = self._newest()
            release = table.release(asked.surface, asked.user_id)
            known, gaps = self._context(asked, release)
            search = Search(request=asked, context=known, release=release, deadline=deadline)
            answer = await cascade.run(search, StageClient(self._calls, table))
            return answer_to_proto(
                replace(answer, gaps=gaps + answer.gaps),
                request_id=asked.request_id or uuid.uuid4().hex,
                generation=table.generation,
                explain=asked.explain,
            )

    def _context(self, asked: SearchRequest, release: Release) -> tuple[SearchContext, tuple[Gap, ...]]:
        """Return what travels with the stage calls, and what is missing from it.

        A user whose record is damaged is answered like one without features and history.
        """
        now_ms = next(
            (moment for moment in (asked.now_ms, release.as_of_ms) if moment is not None),
            time.time_ns() // 1_000_000,
        )
        user, gaps = self._user(asked.user_id, now_ms, release.history_limit)
        return SearchContext(query=asked.query, user=user, features=asked.context, now_ms=now_ms), gaps

    def _user(self, user_id: str, now_ms: int, limit: int) -> tuple[UserState, tuple[Gap, ...]]:
        if not user_id:
            return UserState(), ()
        try:
            return self._users.get(user_id, now_ms, limit), ()
        except CorruptRecord as error:
            log.error("user %r is unreadable: %s", user_id, error)
            gap = Gap(reason=GapReason.FAILED, detail="the user's features and history are unreadable")
            return UserState(user_id=user_id), (gap,)
