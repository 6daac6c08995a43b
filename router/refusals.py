"""Refuses what there is no room for before it is read: under overload most of what comes ends here.

To gRPC the handler of a refused call takes a stream, as such a one is asked to begin before a message was
received. For the caller there is no difference, and it costs half of what it does to read the request first.
"""

from collections.abc import Callable, Mapping
from typing import Never

import grpc

from router.admission import Admission
from services.interception import Context, Continuation, Handler
from services.status import abort
from shards.errors import Overloaded


class Refusals(grpc.aio.ServerInterceptor):
    """Guards methods, each by the admission that will let its calls in; `refused` is told the method."""

    def __init__(self, doors: Mapping[str, Admission], refused: Callable[[str], None]) -> None:
        self._doors = doors
        self._refused = refused

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler of the method, untouched, or one that refuses."""
        method = handler_call_details.method
        door = self._doors.get(method)
        if door is None or not door.full:
            return await continuation(handler_call_details)
        self._refused(method)
        return _refusing(door.refusal())


def _refusing(refusal: Overloaded) -> Handler:
    async def refuse(_: object, context: Context) -> Never:
        await abort(context, refusal)

    return grpc.stream_stream_rpc_method_handler(refuse)
