"""A server whose one method fails as it is told, and the call that finds out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from protos.headrace.v1 import event_service_pb2, event_service_pb2_grpc
from services import chassis


class _Failing(event_service_pb2_grpc.EventServiceServicer):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def RecordEvents(  # noqa: N802
        self,
        request: event_service_pb2.RecordEventsRequest,  # noqa: ARG002
        context: "grpc.aio.ServicerContext[Any, Any]",  # noqa: ARG002
    ) -> event_service_pb2.RecordEventsResponse:
        raise self._error


@asynccontextmanager
async def failing_server(error: BaseException) -> AsyncIterator[str]:
    """Serve RecordEvents, which raises `error`; gives the address."""

    def register(server: grpc.aio.Server) -> None:
        event_service_pb2_grpc.add_EventServiceServicer_to_server(_Failing(error), server)

    async with chassis.serve(
        "127.0.0.1:0", register=[register], service_names=["headrace.v1.EventService"]
    ) as server:
        yield server.address


async def raised_by(address: str, *, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.aio.AioRpcError:
    """Return what a call of RecordEvents raises."""
    async with grpc.aio.insecure_channel(address, options=chassis.channel_options()) as channel:
        stub = event_service_pb2_grpc.EventServiceStub(channel)
        try:
            await stub.RecordEvents(event_service_pb2.RecordEventsRequest(), timeout=10, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError("the call did not fail")
