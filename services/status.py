"""The one map from exceptions to gRPC codes and `google.rpc` details, and the way back.

Names of reasons and their metadata are part of the contract: callers in other languages read them.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Never, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as details_pb2
from google.rpc.status_pb2 import Status

from shards.errors import (
    Conflict,
    CorruptBundle,
    CorruptRecord,
    DeadlineExceeded,
    FailedModel,
    FieldViolation,
    HeadraceError,
    InvalidInput,
    MismatchedBundle,
    NoRoomYet,
    NotFound,
    NotOwner,
    Overloaded,
    OversizedBundle,
    PermissionDenied,
    Refused,
    StillLoading,
    StoreFull,
    Unauthenticated,
    Unavailable,
    UntrustedBundle,
)

DOMAIN = "headrace.dev"
DETAILS_KEY = "grpc-status-details-bin"
INTERNAL_MESSAGE = "internal error"

# Metadata of a response is limited to 8 KiB by default, and holds the details in base64.
_DETAILS_BYTES = 2560
_MESSAGE_BYTES = 512
_TEXT_BYTES = 200
_DEFAULT_RETRY_S = 1.0

_CODES: Mapping[type[HeadraceError], tuple[grpc.StatusCode, str]] = {
    InvalidInput: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT"),
    NotFound: (grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    NotOwner: (grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER"),
    Conflict: (grpc.StatusCode.ABORTED, "CONFLICT"),
    Refused: (grpc.StatusCode.FAILED_PRECONDITION, "REFUSED"),
    Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    NoRoomYet: (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM"),
    StoreFull: (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"),
    Unavailable: (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    FailedModel: (grpc.StatusCode.UNAVAILABLE, "FAILED_MODEL"),
    DeadlineExceeded: (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    StillLoading: (grpc.StatusCode.DEADLINE_EXCEEDED, "STILL_LOADING"),
    Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    CorruptRecord: (grpc.StatusCode.DATA_LOSS, "CORRUPT_RECORD"),
    CorruptBundle: (grpc.StatusCode.DATA_LOSS, "CORRUPT_BUNDLE"),
    MismatchedBundle: (grpc.StatusCode.FAILED_PRECONDITION, "MISMATCHED_BUNDLE"),
    UntrustedBundle: (grpc.StatusCode.FAILED_PRECONDITION, "UNTRUSTED_BUNDLE"),
    OversizedBundle: (grpc.StatusCode.FAILED_PRECONDITION, "OVERSIZED_BUNDLE"),
}


class Aborting(Protocol):
    """The part of a servicer's context that ends a call with an error."""

    async def abort(  # noqa: D102
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, bytes], ...] = ()
    ) -> Never: ...


def to_status(error: Exception, *, request_id: str = "") -> Status:
    """Return the `google.rpc.Status` of an error; of an unknown one only that it is internal, and the id.

    The whole stays well below the 8 KiB that gRPC allows for trailing metadata, however many
    fields are at fault: what does not fit is counted in the last entry.
    """
    code, reason, message = grpc.StatusCode.INTERNAL, "INTERNAL", INTERNAL_MESSAGE
    metadata = {"request_id": request_id} if request_id else {}
    if isinstance(error, HeadraceError) and type(error) in _CODES:
        code, reason = _CODES[type(error)]
        message = _short(str(error), _MESSAGE_BYTES)
        metadata |= _metadata(error)
    if isinstance(error, NotFound):
        reason = f"{_constant(error.kind)}_NOT_FOUND"
    if isinstance(error, Refused):
        reason = error.reason
    status = Status(code=code.value[0], message=message)
    _add(status, details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if isinstance(error, Overloaded):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        _add(status, details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, InvalidInput):
        _add(status, _bad_request(error))
    return status


def _metadata(error: HeadraceError) -> dict[str, str]:
    match error:
        case NotFound():
            found = {"kind": error.kind, "name": error.name}
        case NotOwner():
            found = {"model": error.model, "owner": error.owner, "generation": str(error.generation)}
        case CorruptBundle() | MismatchedBundle() | OversizedBundle() | UntrustedBundle():
            found = {"file": error.file, "problem": error.problem}
        case CorruptRecord():
            found = {"store": error.store, "key": error.key, "problem": error.problem}
        case _:
            found = {}
    return {key: _short(value, _TEXT_BYTES) for key, value in found.items()}


def _bad_request(error: InvalidInput) -> details_pb2.BadRequest:
    message = details_pb2.BadRequest()
    for told, violation in enumerate(error.violations):
        message.field_violations.add(
            field=_short(violation.field, _TEXT_BYTES), description=_short(violation.description, _TEXT_BYTES)
        )
        if message.ByteSize() > _DETAILS_BYTES:
            message.field_violations.pop()
            left = len(error.violations) - told
            message.field_violations.add(field="…", description=f"and {left} more")
            break
    return message


def _short(text: str, limit_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= limit_bytes:
        return text
    return encoded[: limit_bytes - 3].decode(errors="ignore") + "…"


def _constant(words: str) -> str:
    return words.upper().replace(" ", "_").replace("-", "_")


def _add(status: Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def code_of(status: Status) -> grpc.StatusCode:
    """Return the gRPC code of a status."""
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


def word_of(error: BaseException) -> str:
    """Return the code that an error ends a call with, in small letters; cheap, unlike the whole status."""
    if isinstance(error, HeadraceError) and type(error) in _CODES:
        return _CODES[type(error)][0].name.lower()
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "internal"


async def abort(context: Aborting, error: Exception, *, request_id: str = "") -> Never:
    """End the call with the status of the error, its details in the trailing metadata."""
    if type(error) is Overloaded:
        await context.abort(*_refusal(str(error), error.retry_after_s))
    status = to_status(error, request_id=request_id)
    await context.abort(code_of(status), status.message, ((DETAILS_KEY, status.SerializeToString()),))


@lru_cache(maxsize=1024)
def _refusal(
    message: str, retry_after_s: float
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return how a call ends for which there is no room; made once, as there may be very many of them.

    It names no request, being as true of any other.
    """
    status = to_status(Overloaded(message, retry_after_s=retry_after_s))
    return code_of(status), status.message, ((DETAILS_KEY, status.SerializeToString()),)


def from_rpc_error(error: grpc.aio.AioRpcError) -> HeadraceError:
    """Return the error that the far side raised.

    Servers that are not Headrace's, and gRPC itself, send a code without details: then the code
    decides, and a code that no error of ours has becomes a plain `HeadraceError`.
    """
    message = error.details() or error.code().name
    details = _read_details(error)
    build = _BY_REASON.get(details.info.reason) or _BY_CODE.get(error.code())
    return build(message, details) if build else HeadraceError(f"{error.code().name}: {message}")


@dataclass(frozen=True, slots=True)
class _Details:
    """What the details of a status say; empty messages where it has none of a kind."""

    info: details_pb2.ErrorInfo = field(default_factory=details_pb2.ErrorInfo)
    bad_request: details_pb2.BadRequest = field(default_factory=details_pb2.BadRequest)
    retry: details_pb2.RetryInfo = field(default_factory=details_pb2.RetryInfo)

    def said(self, key: str) -> str:
        """Return what the metadata says under this key, or nothing."""
        return str(self.info.metadata.get(key, ""))

    def violations(self, message: str) -> tuple[FieldViolation, ...]:
        """Return the fields at fault; the request as a whole where none is named."""
        named = tuple(FieldViolation(v.field, v.description) for v in self.bad_request.field_violations)
        return named or (FieldViolation("request", message),)

    def retry_after_s(self) -> float:
        """Return when to come back."""
        return self.retry.retry_delay.ToNanoseconds() / 1e9 or _DEFAULT_RETRY_S


def _read_details(error: grpc.aio.AioRpcError) -> _Details:
    found = _Details()
    try:
        for key, value in error.trailing_metadata() or ():
            if key != DETAILS_KEY or not isinstance(value, bytes):
                continue
            for detail in Status.FromString(value).details:
                # Unpack does nothing but answer False when the detail is of another type.
                for message in (found.info, found.bad_request, found.retry):
                    detail.Unpack(message)
    except DecodeError:
        return _Details()
    return (
        found if found.info.domain == DOMAIN else _Details(retry=found.retry, bad_request=found.bad_request)
    )


_Build = Callable[[str, _Details], HeadraceError]

_BY_REASON: Mapping[str, _Build] = {
    "NOT_OWNER": lambda _, d: NotOwner(
        d.said("model"), owner=d.said("owner"), generation=int(d.said("generation") or 0)
    ),
    "NO_ROOM": lambda message, d: NoRoomYet(message, retry_after_s=d.retry_after_s()),
    "STORE_FULL": lambda message, d: StoreFull(message, retry_after_s=d.retry_after_s()),
    "FAILED_MODEL": lambda message, _: FailedModel(message),
    "STILL_LOADING": lambda message, _: StillLoading(message),
    "MISMATCHED_BUNDLE": lambda _, d: MismatchedBundle(d.said("file"), d.said("problem")),
    "UNTRUSTED_BUNDLE": lambda _, d: UntrustedBundle(d.said("file"), d.said("problem")),
    "OVERSIZED_BUNDLE": lambda _, d: OversizedBundle(d.said("file"), d.said("problem")),
    "CORRUPT_BUNDLE": lambda _, d: CorruptBundle(d.said("file"), d.said("problem")),
    "CORRUPT_RECORD": lambda _, d: CorruptRecord(d.said("store"), d.said("key"), d.said("problem")),
}

_BY_CODE: Mapping[grpc.StatusCode, _Build] = {
    grpc.StatusCode.INVALID_ARGUMENT: lambda message, d: InvalidInput(*d.violations(message)),
    grpc.StatusCode.NOT_FOUND: lambda message, d: NotFound(
        d.said("kind") or "resource", d.said("name") or message
    ),
    grpc.StatusCode.ABORTED: lambda message, _: Conflict(message),
    grpc.StatusCode.FAILED_PRECONDITION: lambda message, d: Refused(
        message, reason=d.info.reason or "REFUSED"
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: lambda message, d: Overloaded(
        message, retry_after_s=d.retry_after_s()
    ),
    grpc.StatusCode.UNAVAILABLE: lambda message, _: Unavailable(message),
    # Ours raises CancelledError here; the code arrives when the far side gave the call up, as it stops.
    grpc.StatusCode.CANCELLED: lambda message, _: Unavailable(message),
    grpc.StatusCode.DEADLINE_EXCEEDED: lambda message, _: DeadlineExceeded(message),
    grpc.StatusCode.UNAUTHENTICATED: lambda message, _: Unauthenticated(message),
    grpc.StatusCode.PERMISSION_DENIED: lambda message, _: PermissionDenied(message),
}
