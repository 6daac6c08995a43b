"""The stages as the cascade calls them, one by one or together: typed values, over one table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc.aio
from google.protobuf.message import DecodeError, Message

from protos.headrace.v1 import (
    cascade_service_pb2,
    pre_ranking_service_pb2,
    ranking_service_pb2,
    retrieval_service_pb2,
)
from router.budget import Deadline
from router.routing_table import RoutingTable
from router.shard_calls import ShardCalls
from services.codec import (
    CascadeAnswer,
    Explaining,
    Retrieval,
    Scoring,
    StageAnswer,
    answer_from_proto,
    cascade_answer_from_proto,
    cascade_to_proto,
    explain_to_proto,
    pre_rank_to_proto,
    rank_to_proto,
    retrieve_to_proto,
)
from services.status import from_rpc_error
from services.tracing import part
from shards.cascade import CascadeCall
from shards.errors import HeadraceError, InvalidInput, NotFound
from shards.release import ModelVersion

RETRIEVE = "/headrace.v1.RetrievalService/Retrieve"
PRE_RANK = "/headrace.v1.PreRankingService/PreRank"
RANK = "/headrace.v1.RankingService/Rank"
EXPLAIN = "/headrace.v1.RankingService/Explain"
RUN = "/headrace.v1.CascadeService/Run"

T = TypeVar("T", StageAnswer, CascadeAnswer)


class StageClient:
    """Calls the stages for one search, with the routing table that the search started with."""

    def __init__(self, calls: ShardCalls, table: RoutingTable) -> None:
        self._calls = calls
        self._table = table

    async def retrieve(self, call: Retrieval, timeout_s: float) -> StageAnswer:
        """Return the candidates of one channel; raises `HeadraceError`."""
        request = retrieve_to_proto(call)
        return await self._send(RETRIEVE, (call.model,), request, timeout_s, _retrieved)

    async def pre_rank(self, call: Scoring, timeout_s: float) -> StageAnswer:
        """Return the pre-ranked candidates; raises `HeadraceError`."""
        request = pre_rank_to_proto(call)
        return await self._send(PRE_RANK, (call.model,), request, timeout_s, _pre_ranked)

    async def rank(self, call: Scoring, timeout_s: float) -> StageAnswer:
        """Return the ranked candidates; raises `HeadraceError`."""
        return await self._send(RANK, (call.model,), rank_to_proto(call), timeout_s, _ranked)

    async def explain(self, call: Explaining, timeout_s: float) -> StageAnswer:
        """Return what each feature contributes to the first candidates; raises `HeadraceError`."""
        return await self._send(EXPLAIN, (call.model,), explain_to_proto(call), timeout_s, _explained)

    def held_together(self, models: tuple[ModelVersion, ...]) -> bool:
        """Return whether every shard that holds one of the models holds them all."""
        try:
            return self._table.together(models)
        except NotFound:  # Whoever asks for that model is told.
            return False

    async def run(self, call: CascadeCall, timeout_s: float) -> CascadeAnswer:
        """Return what one shard answers for all steps; raises `HeadraceError`."""
        models = tuple(step.model for step in call.steps)
        return await self._send(RUN, models, cascade_to_proto(call), timeout_s, _run)

    async def _send(
        self,
        path: str,
        models: tuple[ModelVersion, ...],
        request: Message,
        timeout_s: float,
        decode: Callable[[bytes], T],
    ) -> T:
        def read(payload: bytes) -> T:
            with _reading():
                answer = decode(payload)
            # Bytes that mean nothing may still parse, as a message of fields that nobody knows.
            named = _models_of(answer)
            if not named or named != models[: len(named)]:
                raise HeadraceError("the shard's answer cannot be read: it is not of the model asked")
            return answer

        try:
            with part(path.rpartition("/")[2], calls=True) as span:
                if span:
                    span.tell({"headrace.model": [str(model) for model in models]})
                return await self._calls.call(
                    path,
                    request.SerializeToString(),
                    models=models,
                    table=self._table,
                    deadline=Deadline.after(timeout_s),
                    read=read,
                )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


def _retrieved(payload: bytes) -> StageAnswer:
    return answer_from_proto(retrieval_service_pb2.RetrieveResponse.FromString(payload))


def _pre_ranked(payload: bytes) -> StageAnswer:
    return answer_from_proto(pre_ranking_service_pb2.PreRankResponse.FromString(payload))


def _ranked(payload: bytes) -> StageAnswer:
    return answer_from_proto(ranking_service_pb2.RankResponse.FromString(payload))


def _explained(payload: bytes) -> StageAnswer:
    return answer_from_proto(ranking_service_pb2.ExplainResponse.FromString(payload))


def _run(payload: bytes) -> CascadeAnswer:
    return cascade_answer_from_proto(cascade_service_pb2.RunResponse.FromString(payload))


def _models_of(answer: StageAnswer | CascadeAnswer) -> tuple[ModelVersion, ...]:
    if isinstance(answer, StageAnswer):
        return (answer.model,)
    return tuple(done.model for done in answer.done)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (DecodeError, InvalidInput, ValueError) as error:
        # The shard's mistake, which must not be mistaken for the caller's.
        raise HeadraceError(f"the shard's answer cannot be read: {error}") from None
