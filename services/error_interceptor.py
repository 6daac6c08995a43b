"""Every handler's errors become statuses here, and every unary call gets a deadline."""

import asyncio
import contextlib
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from services.interception import Context, Continuation, Handler
from services.status import INTERNAL_MESSAGE, abort, code_of, from_rpc_error, to_status
from shards.errors import DeadlineExceeded, FieldViolation, InvalidInput, Overloaded

log = logging.getLogger(__name__)

REQUEST_ID_KEY = "x-request-id"
"""Metadata of a request: the id under which logs and errors mention it."""

_REQUEST_ID_CHARS = 64

_Parse: TypeAlias = Callable[[bytes], Any] | None


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps what handlers raise by `services.status`; a cancelled call stays cancelled.

    Unary calls that come without a deadline get `default_deadline_s`. Errors nobody planned for
    are logged with their traceback, and the caller gets "internal error" and the request's id.
    """

    def __init__(self, default_deadline_s: float) -> None:
        self._default_deadline_s = default_deadline_s

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler of the method, guarded; streams of requests pass as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.request_streaming:
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._guard_stream(handler.unary_stream, method, handler.request_deserializer),
                None,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guard_unary(handler.unary_unary, method, handler.request_deserializer),
            None,
            handler.response_serializer,
        )

    def _guard_unary(self, inner: Any, method: str, parse: _Parse) -> Any:
        async def guarded(payload: bytes, context: Context) -> Any:
            bound_s = self._default_deadline_s if context.time_remaining() is None else None
            bound = asyncio.timeout(bound_s)
            try:
                async with bound:
                    answer = inner(read_request(payload, parse), context)
                    return await answer if inspect.isawaitable(answer) else answer
            except Exception as error:
                late = isinstance(error, TimeoutError) and bound.expired()
                await _end(
                    context, DeadlineExceeded(f"no answer within {bound_s:g} s") if late else error, method
                )

        return guarded

    def _guard_stream(self, inner: Any, method: str, parse: _Parse) -> Any:
        async def guarded(payload: bytes, context: Context) -> AsyncIterator[Any]:
            try:
                responses = inner(read_request(payload, parse), context)
                if inspect.isawaitable(responses):
                    await responses  # A handler that writes to the context, as grpc's own health check does.
                    return
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        yield response
            except Exception as error:
                await _end(context, error, method)

        return guarded


def read_request(payload: bytes, parse: _Parse) -> Any:
    """Return the request; here, because gRPC itself would answer UNKNOWN with the parser's own words."""
    try:
        return parse(payload) if parse else payload
    except DecodeError:
        raise InvalidInput(FieldViolation("request", "is not a message of this method")) from None


async def _end(context: Context, error: Exception, method: str) -> None:
    """End the call with the status of the error; one that has been ended already stays so."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if type(error) is Overloaded:  # The cheapest end there is, for calls that come in floods.
        await abort(context, error)
    # Generated servicers set the code before they raise; a model's NotImplementedError is a fault.
    if isinstance(error, NotImplementedError) and context.code() is grpc.StatusCode.UNIMPLEMENTED:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented")
    known = from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else error
    request_id = _request_id(context)
    if code_of(to_status(known)) is grpc.StatusCode.INTERNAL:
        log.error("%s failed: %s, request %r", method, INTERNAL_MESSAGE, request_id, exc_info=error)
    await abort(context, known, request_id=request_id)


def _request_id(context: Context) -> str:
    # At run time the metadata is a tuple of pairs, whatever the stubs say.
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID_KEY)
    return given[:_REQUEST_ID_CHARS] if isinstance(given, str) and given else uuid.uuid4().hex
