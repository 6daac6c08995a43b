"""Calls of the Python client that got no answer."""

from dataclasses import dataclass
from typing import Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request and what is wrong with it."""

    field: str
    description: str


class CallError(Exception):
    """A call that got no answer.

    `violations` name the fields at fault, `reason` is the stable word of an `ErrorInfo`, and
    `retry_after_s` says when an overloaded router may be asked again; each where the router sent it.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.violations = violations
        self.reason = reason
        self.retry_after_s = retry_after_s

    @classmethod
    def read(cls, response: type[M], payload: bytes) -> M:
        """Return the answer; raises what came instead of one."""
        try:
            return response.FromString(payload)
        except DecodeError as error:
            raise cls(grpc.StatusCode.INTERNAL, f"the answer cannot be read: {error}") from None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Self:
        """Return what the router said."""
        violations: tuple[Violation, ...] = ()
        reason, retry_after_s = "", None
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            bad_request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(bad_request):
                violations = tuple(Violation(v.field, v.description) for v in bad_request.field_violations)
            elif detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        return cls(
            error.code(),
            error.details() or "",
            violations=violations,
            reason=reason,
            retry_after_s=retry_after_s,
        )


class SearchError(CallError):
    """A search that got no answer."""


class RecordError(CallError):
    """Events of which it is not known that they are recorded; to send them again counts none twice."""


class StageError(CallError):
    """A model that was asked alone and gave no answer."""
