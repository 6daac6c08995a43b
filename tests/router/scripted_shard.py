"""A shard without models: a real server on loopback that answers stage calls as a test tells it to."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import grpc.aio

from protos.headrace.v1 import (
    pre_ranking_service_pb2,
    pre_ranking_service_pb2_grpc,
    ranking_service_pb2,
    ranking_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)
from services import chassis, codec
from shards.candidates import Candidates
from shards.errors import HeadraceError, NotOwner
from tests.router.memory_stages import kept

Call = codec.Retrieval | codec.Scoring
Answer = Candidates | HeadraceError | Callable[[Call], Awaitable[Candidates]]
"""What to answer a model's calls with: always the same, an error, or what a function returns."""

_Context = grpc.aio.ServicerContext[Any, Any]


async def hang(_: Call) -> Candidates:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


@dataclass
class ScriptedShard:
    """Serves while its `async with` block runs, or until `kill`; `answers` by model@version."""

    shard_id: str
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    timeouts_s: list[float | None] = field(default_factory=list)
    address: str = "127.0.0.1:0"

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        self._server = await self._stack.enter_async_context(
            chassis.serve(
                self.address,
                register=[self._register],
                service_names=["headrace.v1.RetrievalService"],
                options=chassis.ChassisOptions(grace_s=0.0),
            )
        )
        self.address = self._server.address
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def kill(self) -> None:
        """Drop every call and connection at once."""
        await self._server.stop(0.0)

    async def answer(self, call: Call, context: _Context) -> codec.StageAnswer:
        """Return the scripted answer; a model without one is not held here."""
        self.calls.append(call)
        self.timeouts_s.append(context.time_remaining())
        answer = self.answers.get(str(call.model), NotOwner(str(call.model)))
        if callable(answer):
            answer = await answer(call)
        if isinstance(answer, HeadraceError):
            raise answer
        if isinstance(call, codec.Scoring):
            answer = kept(answer, call)
        return codec.StageAnswer(shard_id=self.shard_id, model=call.model, compute_s=0.001, candidates=answer)

    def _register(self, server: grpc.aio.Server) -> None:
        retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(_Retrieval(self), server)
        pre_ranking_service_pb2_grpc.add_PreRankingServiceServicer_to_server(_PreRanking(self), server)
        ranking_service_pb2_grpc.add_RankingServiceServicer_to_server(_Ranking(self), server)


@dataclass
class _Retrieval(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    shard: ScriptedShard

    async def Retrieve(  # noqa: N802
        self, request: retrieval_service_pb2.RetrieveRequest, context: _Context
    ) -> retrieval_service_pb2.RetrieveResponse:
        answer = await self.shard.answer(codec.retrieve_from_proto(request), context)
        return retrieval_service_pb2.RetrieveResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )


@dataclass
class _PreRanking(pre_ranking_service_pb2_grpc.PreRankingServiceServicer):
    shard: ScriptedShard

    async def PreRank(  # noqa: N802
        self, request: pre_ranking_service_pb2.PreRankRequest, context: _Context
    ) -> pre_ranking_service_pb2.PreRankResponse:
        answer = await self.shard.answer(codec.pre_rank_from_proto(request), context)
        return pre_ranking_service_pb2.PreRankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )


@dataclass
class _Ranking(ranking_service_pb2_grpc.RankingServiceServicer):
    shard: ScriptedShard

    async def Rank(  # noqa: N802
        self, request: ranking_service_pb2.RankRequest, context: _Context
    ) -> ranking_service_pb2.RankResponse:
        answer = await self.shard.answer(codec.rank_from_proto(request), context)
        return ranking_service_pb2.RankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )
