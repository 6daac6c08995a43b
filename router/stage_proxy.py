"""The stage services of every model behind one door; the bytes of requests and answers pass undecoded."""

from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from router.admission import Admission
from router.budget import Deadline
from router.routing_table import RoutingTable
from router.shard_calls import ShardCalls
from router.stage_client import PRE_RANK, RANK, RETRIEVE
from router.wire import read_model, with_version
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
        for path in (RETRIEVE, PRE_RANK, RANK):
            _, service, method = path.split("/")
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
                self._forward(path)
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )

    def _forward(self, path: str) -> Forward:
        async def forward(payload: bytes, context: Context) -> bytes:
            with self._admission.admitted():
                deadline, table = self._deadline_of(context.time_remaining()), self._newest()
                model, payload = _addressed(payload, table)
                try:
                    return await self._calls.call(path, payload, model=model, table=table, deadline=deadline)
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details() or "", _details(error))

        return forward


def _addressed(payload: bytes, table: RoutingTable) -> tuple[ModelVersion, bytes]:
    """Return the model that the request names, and the request with the live version where it named none."""
    name, version = read_model(payload)
    if not name:
        raise InvalidInput(FieldViolation("model.model", "must not be empty"))
    if version:
        return ModelVersion(name, version), payload
    model = table.live_version(name)
    return model, with_version(payload, model.version)


def _details(error: grpc.aio.AioRpcError) -> tuple[tuple[str, str | bytes], ...]:
    return tuple((key, value) for key, value in error.trailing_metadata() or ())
