"""Refuses what there is no room for before it is read: under overload most of what comes ends here.

To gRPC the handler of a refused call takes a stream, as such a one is asked to begin before a message was
received. For the caller there is no difference, and it costs half of what it does to read the request first.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Never, TypeAlias

import grpc

from router.admission import Admission
from services.status import abort
from shards.errors import Overloaded

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"

RETRY_AFTER_S = 0.1


class Refusals(grpc.aio.ServerInterceptor):
    """Guards methods, each by the admission that will let its calls in; `refused` is told the method."""

    def __init__(self, doors: Mapping[str, Admission], refused: Callable[[str], None]) -> None:
        self._doors = doors
        self._refused = refused
        self._handler: _Handler = grpc.stream_stream_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the handler of the method, untouched, or one that refuses."""
        method = handler_call_details.method
        door = self._doors.get(method)
        if door is None or not door.full:
            return await continuation(handler_call_details)
        door.refused += 1
        self._refused(method)
        return self._handler


async def _refuse(_: object, context: "grpc.aio.ServicerContext[Any, Any]") -> Never:
    await abort(context, Overloaded("no more requests can be answered in time", retry_after_s=RETRY_AFTER_S))
