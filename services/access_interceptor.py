"""Refuses calls of those who may not make them, before their request is read."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from contextvars import ContextVar
from typing import Any, Never, TypeAlias

import grpc

from services.access import (
    AUTHORIZATION_KEY,
    OPEN_SERVICES,
    UNLIMITED,
    Caller,
    Role,
    Shown,
    authorise,
    roles_for,
    service_of,
)
from services.error_interceptor import read_request
from services.followed_rules import RulesSource
from services.interception import Context, Continuation, Handler
from services.quotas import Quotas
from services.status import abort
from shards.errors import HeadraceError, Unauthenticated

_Admit: TypeAlias = Callable[[Context], AbstractContextManager[None]]

_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current_caller() -> Caller | None:
    """Return who makes the call that is worked on, None where nobody is asked who he is."""
    return _CALLER.get()


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets those pass whom the rules allow the method, as far as their quotas reach.

    Goes behind the `ErrorInterceptor`, which makes statuses of what a refusal raises. With `certificates`,
    callers without a token are known by the certificate of their connection.
    """

    def __init__(
        self,
        rules: RulesSource,
        *,
        roles: Callable[[str], tuple[Role, ...]] = roles_for,
        certificates: bool = False,
    ) -> None:
        self._rules = rules
        self._roles = roles
        self._certificates = certificates
        self._quotas = Quotas()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler of the method, untouched where that will do, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or service_of(method) in OPEN_SERVICES:
            return handler
        try:
            authorization = _authorization(handler_call_details)
            if authorization is None and self._certificates:
                return _guarded(handler, lambda context: self._admitted(self._known(context, method)))
            caller = authorise(self._rules(), Shown(authorization), self._roles(method))
        except HeadraceError as error:
            return _refusal(error)
        if caller.quota != UNLIMITED:
            return _guarded(handler, lambda _: self._admitted(caller))
        _CALLER.set(caller)
        return handler

    def _known(self, context: Context, method: str) -> Caller:
        """Return the caller by the certificate, of which gRPC tells only with the call itself."""
        names = tuple(name.decode(errors="replace") for name in context.peer_identities() or ())
        return authorise(self._rules(), Shown(certificate_names=names), self._roles(method))

    def _admitted(self, caller: Caller) -> AbstractContextManager[None]:
        _CALLER.set(caller)
        return nullcontext() if caller.quota == UNLIMITED else self._quotas.taking(caller)


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    found = [value for key, value in details.invocation_metadata or () if key == AUTHORIZATION_KEY]
    if len(found) > 1:
        raise Unauthenticated("the authorization is there more than once")
    if not found:
        return None
    # gRPC hands on as bytes what is not text.
    return found[0] if isinstance(found[0], str) else ""


def _guarded(handler: "grpc.RpcMethodHandler[Any, Any]", admit: _Admit) -> Handler:
    """Return the handler behind a look at its caller; nothing of a request is read before."""
    if handler.request_streaming:
        return _guarded_streams(handler, admit)
    parse, write = handler.request_deserializer, handler.response_serializer
    if handler.response_streaming:
        many: Any = handler.unary_stream

        async def stream(payload: bytes, context: Context) -> AsyncIterator[Any]:
            with admit(context):
                responses = many(read_request(payload, parse), context)
                if inspect.isawaitable(responses):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        yield response

        return grpc.unary_stream_rpc_method_handler(stream, None, write)
    one: Any = handler.unary_unary

    async def unary(payload: bytes, context: Context) -> Any:
        with admit(context):
            answer = one(read_request(payload, parse), context)
            return await answer if inspect.isawaitable(answer) else answer

    return grpc.unary_unary_rpc_method_handler(unary, None, write)


def _guarded_streams(handler: "grpc.RpcMethodHandler[Any, Any]", admit: _Admit) -> Handler:
    """Guard a method that takes a stream, as reflection alone does; nobody else maps its errors."""
    inner: Any = handler.stream_stream
    assert inner is not None, "no method of ours takes a stream"

    async def streams(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        try:
            with admit(context):
                async for response in inner(requests, context):
                    yield response
        except HeadraceError as error:
            await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(
        streams, handler.request_deserializer, handler.response_serializer
    )


def _refusal(error: HeadraceError) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """Return a handler that raises; a refused stream looks the same to its caller as a refused unary call."""

    async def refuse(_: bytes, __: Any) -> Never:
        raise error

    return grpc.unary_unary_rpc_method_handler(refuse)
