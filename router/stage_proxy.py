"""The stage services of every model behind one door; the bytes of requests and answers pass undecoded.

Only a retrieval from a partitioned model is read, as it goes to all partitions and comes back as one answer.
"""

from collections.abc import Awaitable, Callable, Sequence

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from protos.headrace.v1.retrieval_service_pb2 import RetrieveRequest, RetrieveResponse
from router.admission import Admission
from router.budget import Deadline
from router.routing_table import RoutingTable
from router.scatter import Refusal, Reply, gathered, scatter
from router.shard_calls import ShardCalls
from router.stage_client import EXPLAIN, PRE_RANK, RANK, RETRIEVE, StageClient
from router.wire import MalformedMessage, read_model, with_version
from services.codec import (
    Retrieval,
    StageAnswer,
    candidates_to_proto,
    header_to_proto,
    retrieve_from_proto,
)
from shards.errors import FieldViolation, InvalidInput
from shards.release import ModelVersion

Context = grpc.aio.ServicerContext[bytes, bytes]
Forward = Callable[[bytes, Context], Awaitable[bytes]]


class StageProxy:
    """Forwards stage calls to a shard that holds their model, and errors of shards with all their details."""

    def __init__(
        self,
        *,
        calls: ShardCalls,
        newest: Callable[[], RoutingTable],
        admission: Admission,
        deadline_of: Callable[[float | None], Deadline],
    ) -> None:
        self._calls = calls
        self._newest = newest
        self._admission = admission
        self._deadline_of = deadline_of

    def register(self, server: grpc.aio.Server) -> None:
        """Add the three stage services to the server, without decoders."""
        for path in (RETRIEVE, PRE_RANK, RANK, EXPLAIN):
            _, service, method = path.split("/")
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
                self._forward(path)
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )

    def _forward(self, path: str) -> Forward:
        async def forward(payload: bytes, context: Context) -> bytes:
            deadline = self._deadline_of(context.time_remaining())
            with self._admission.admitted(deadline):
                table = self._newest()
                model, payload = _addressed(payload, table)
                if path == RETRIEVE and (partitions := table.partitions(model)):
                    return await self._scattered(payload, partitions, table, deadline)
                try:
                    return await self._calls.call(
                        path, payload, models=(model,), table=table, deadline=deadline, read=bytes
                    )
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details() or "", _details(error))

        return forward

    async def _scattered(
        self, payload: bytes, partitions: Sequence[ModelVersion], table: RoutingTable, deadline: Deadline
    ) -> bytes:
        """Answer for a partitioned model; raises the error of a partition that does not answer."""
        call = _retrieval(payload)
        stages = StageClient(self._calls, table)
        outcomes = await scatter(call, partitions, stages, deadline.remaining_s(), deadline)
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                raise outcome.error
        replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        answer = StageAnswer(
            shard_id=",".join(dict.fromkeys(reply.answer.shard_id for reply in replies)),
            model=call.model,
            queue_s=max(reply.answer.queue_s for reply in replies),
            compute_s=max(reply.answer.compute_s for reply in replies),
            candidates=gathered(call, partitions, replies),
        )
        header, candidates = header_to_proto(answer), candidates_to_proto(answer.candidates)
        return RetrieveResponse(header=header, candidates=candidates).SerializeToString()


def _retrieval(payload: bytes) -> Retrieval:
    try:
        return retrieve_from_proto(RetrieveRequest.FromString(payload))
    except DecodeError as error:
        raise InvalidInput(FieldViolation("request", f"cannot be read: {error}")) from None


def _addressed(payload: bytes, table: RoutingTable) -> tuple[ModelVersion, bytes]:
    """Return the model that the request names, and the request with the live version where it named none."""
    try:
        name, version = read_model(payload)
    except MalformedMessage as error:
        raise InvalidInput(FieldViolation("model", f"the request cannot be read: {error}")) from None
    if not name:
        raise InvalidInput(FieldViolation("model.model", "must not be empty"))
    if version:
        return ModelVersion(name, version), payload
    model = table.live_version(name)
    return model, with_version(payload, model.version)


def _details(error: grpc.aio.AioRpcError) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in error.trailing_metadata() or ())
