"""A shard without models: a real server on loopback that answers stage calls as a test tells it to.

It can be as sick as a test wants: slow, hung, failing, or sending bytes that mean nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from protos.headrace.v1.pre_ranking_service_pb2 import PreRankRequest, PreRankResponse
from protos.headrace.v1.ranking_service_pb2 import RankRequest, RankResponse
from protos.headrace.v1.retrieval_service_pb2 import RetrieveRequest, RetrieveResponse
from router.stage_client import PRE_RANK, RANK, RETRIEVE
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
    """Serves while its `async with` block runs, or until `kill`; `answers` by model@version.

    Where `garbled` says so, its responses are those bytes instead. `active` calls are under way.
    """

    shard_id: str
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    timeouts_s: list[float | None] = field(default_factory=list)
    address: str = "127.0.0.1:0"
    garbled: bytes | None = None
    active: int = 0

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
            self.active += 1
            try:
                answer = await answer(call)
            finally:
                self.active -= 1
        if isinstance(answer, HeadraceError):
            raise answer
        if isinstance(call, codec.Scoring):
            answer = kept(answer, call)
        return codec.StageAnswer(shard_id=self.shard_id, model=call.model, compute_s=0.001, candidates=answer)

    def _register(self, server: grpc.aio.Server) -> None:
        for path, handler in (
            (RETRIEVE, self._handler(self._retrieve, RetrieveRequest)),
            (PRE_RANK, self._handler(self._pre_rank, PreRankRequest)),
            (RANK, self._handler(self._rank, RankRequest)),
        ):
            _, service, method = path.split("/")
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )

    def _handler(self, answer: Any, request: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request.FromString, response_serializer=self._written
        )

    def _written(self, response: Message) -> bytes:
        return response.SerializeToString() if self.garbled is None else self.garbled

    async def _retrieve(self, request: RetrieveRequest, context: _Context) -> RetrieveResponse:
        answer = await self.answer(codec.retrieve_from_proto(request), context)
        return RetrieveResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )

    async def _pre_rank(self, request: PreRankRequest, context: _Context) -> PreRankResponse:
        answer = await self.answer(codec.pre_rank_from_proto(request), context)
        return PreRankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )

    async def _rank(self, request: RankRequest, context: _Context) -> RankResponse:
        answer = await self.answer(codec.rank_from_proto(request), context)
        return RankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )
