"""Refuses calls of those who may not make them, before their request is read."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Never, TypeAlias

import grpc

from services.access import AUTHORIZATION_KEY, AccessRules, authorise, roles_for, service_of
from shards.errors import HeadraceError, Unauthenticated

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets those pass whom the rules allow the method; `open_services` are everybody's.

    Goes behind the `ErrorInterceptor`, which makes statuses of what a refusal raises.
    """

    def __init__(self, rules: AccessRules, open_services: Collection[str]) -> None:
        self._rules = rules
        self._open_services = frozenset(open_services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the handler of the method, untouched, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or service_of(method) in self._open_services:
            return handler
        try:
            authorise(self._rules, _authorization(handler_call_details), roles_for(method))
        except HeadraceError as error:
            return _refusal(error)
        return handler


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    found = [value for key, value in details.invocation_metadata or () if key == AUTHORIZATION_KEY]
    if len(found) > 1:
        raise Unauthenticated("the authorization is there more than once")
    if not found:
        return None
    # gRPC hands on as bytes what is not text.
    return found[0] if isinstance(found[0], str) else ""


def _refusal(error: HeadraceError) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """Return a handler that raises; a refused stream looks the same to its caller as a refused unary call."""

    async def refuse(_: bytes, __: Any) -> Never:
        raise error

    return grpc.unary_unary_rpc_method_handler(refuse)
