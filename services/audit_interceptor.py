"""Writes down every call that would change the cluster: who asked for what, and what came of it."""

import asyncio
import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.access_interceptor import current_caller
from services.audit_log import AuditEntry, AuditLog
from services.error_interceptor import read_request
from services.interception import Context, Continuation, Handler
from shards.errors import HeadraceError, PermissionDenied, Unauthenticated

_SERVICE = pb.DESCRIPTOR.services_by_name["ClusterService"]
_ONLY_LOOKS = frozenset(
    {
        "ListShards",
        "ListModels",
        "ListReleases",
        "ListOperations",
        "GetOperation",
        "GetPlacement",
        "WatchPlacement",
        "PlanRebalance",
        "ReportShadow",
    }
)
"""What changes nothing; whatever else the service has is written down."""

AUDITED: Mapping[str, Any] = {
    f"/{_SERVICE.full_name}/{method.name}": GetMessageClass(method.input_type)
    for method in _SERVICE.methods
    if method.name not in _ONLY_LOOKS
}
"""The methods that are written down, and the type of their requests."""


class AuditInterceptor(grpc.aio.ServerInterceptor):
    """Goes before the one that refuses callers, so that what it refuses is written down too."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler of the method, untouched, or one that writes down what it did."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in AUDITED:
            return handler
        inner: Any = handler.unary_unary
        parse = handler.request_deserializer

        async def audited(payload: bytes, context: Context) -> Any:
            try:
                answer = inner(read_request(payload, parse), context)
                response = await answer if inspect.isawaitable(answer) else answer
            except asyncio.CancelledError:
                gone = "CallerGone", "the caller did not wait for the answer; it may have been done"
                self._audit.append(_entry(method, _fields(method, payload), context, *gone))
                raise
            except Exception as error:
                # Nothing is parsed for who may not ask.
                turned_away = isinstance(error, Unauthenticated | PermissionDenied)
                fields = {} if turned_away else _fields(method, payload)
                await self._note(_entry(method, fields, context, *_refusal(error)))
                raise
            accepted = "accepted", response.operation.operation_id
            await self._note(_entry(method, _fields(method, payload), context, *accepted))
            return response

        return grpc.unary_unary_rpc_method_handler(audited, None, handler.response_serializer)

    async def _note(self, entry: AuditEntry) -> None:
        await asyncio.to_thread(self._audit.append, entry)


def _entry(method: str, request: Mapping[str, Any], context: Context, result: str, detail: str) -> AuditEntry:
    caller = current_caller()
    return AuditEntry(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        caller=caller.name if caller else "",
        peer=context.peer(),
        method=method.rpartition("/")[2],
        request=request,
        result=result,
        detail=detail,
    )


def _refusal(error: Exception) -> tuple[str, str]:
    if isinstance(error, HeadraceError):
        return type(error).__name__, str(error)
    return "Failed", "an error that nobody planned for; see the controller's log"


def _fields(method: str, payload: bytes) -> Mapping[str, Any]:
    try:
        return MessageToDict(AUDITED[method].FromString(payload), preserving_proto_field_name=True)
    except (DecodeError, ValueError):
        return {}
