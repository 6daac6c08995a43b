"""The stages as the cascade calls them, one by one or together: typed values, over one table."""

from collections.abc import Iterator
from contextlib import contextmanager

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
    Retrieval,
    Scoring,
    StageAnswer,
    answer_from_proto,
    cascade_answer_from_proto,
    cascade_to_proto,
    pre_rank_to_proto,
    rank_to_proto,
    retrieve_to_proto,
)
from services.status import from_rpc_error
from shards.cascade import CascadeCall
from shards.errors import HeadraceError, InvalidInput, NotFound
from shards.release import ModelVersion

RETRIEVE = "/headrace.v1.RetrievalService/Retrieve"
PRE_RANK = "/headrace.v1.PreRankingService/PreRank"
RANK = "/headrace.v1.RankingService/Rank"
RUN = "/headrace.v1.CascadeService/Run"


class StageClient:
    """Calls the stages for one search, with the routing table that the search started with."""

    def __init__(self, calls: ShardCalls, table: RoutingTable) -> None:
        self._calls = calls
        self._table = table

    async def retrieve(self, call: Retrieval, timeout_s: float) -> StageAnswer:
        """Return the candidates of one channel; raises `HeadraceError`."""
        payload = await self._send(RETRIEVE, (call.model,), retrieve_to_proto(call), timeout_s)
        return _answer(retrieval_service_pb2.RetrieveResponse(), payload)

    async def pre_rank(self, call: Scoring, timeout_s: float) -> StageAnswer:
        """Return the pre-ranked candidates; raises `HeadraceError`."""
        payload = await self._send(PRE_RANK, (call.model,), pre_rank_to_proto(call), timeout_s)
        return _answer(pre_ranking_service_pb2.PreRankResponse(), payload)

    async def rank(self, call: Scoring, timeout_s: float) -> StageAnswer:
        """Return the ranked candidates; raises `HeadraceError`."""
        payload = await self._send(RANK, (call.model,), rank_to_proto(call), timeout_s)
        return _answer(ranking_service_pb2.RankResponse(), payload)

    def held_together(self, models: tuple[ModelVersion, ...]) -> bool:
        """Return whether every shard that holds one of the models holds them all."""
        try:
            return self._table.together(models)
        except NotFound:  # Whoever asks for that model is told.
            return False

    async def run(self, call: CascadeCall, timeout_s: float) -> CascadeAnswer:
        """Return what one shard answers for all steps; raises `HeadraceError`."""
        models = tuple(step.model for step in call.steps)
        payload = await self._send(RUN, models, cascade_to_proto(call), timeout_s)
        with _reading():
            return cascade_answer_from_proto(cascade_service_pb2.RunResponse.FromString(payload))

    async def _send(
        self, path: str, models: tuple[ModelVersion, ...], request: Message, timeout_s: float
    ) -> bytes:
        try:
            return await self._calls.call(
                path,
                request.SerializeToString(),
                models=models,
                table=self._table,
                deadline=Deadline.after(timeout_s),
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


def _answer(
    response: retrieval_service_pb2.RetrieveResponse
    | pre_ranking_service_pb2.PreRankResponse
    | ranking_service_pb2.RankResponse,
    payload: bytes,
) -> StageAnswer:
    with _reading():
        response.ParseFromString(payload)
        return answer_from_proto(response)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (DecodeError, InvalidInput) as error:
        # The shard's mistake, which must not be mistaken for the caller's.
        raise HeadraceError(f"the shard's answer cannot be read: {error}") from None
