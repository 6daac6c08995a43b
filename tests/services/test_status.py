"""The map of errors is exhaustive, survives a real channel both ways, and never outgrows its metadata."""

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from services import status
from shards import errors
from shards.errors import (
    BundleError,
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
from tests.services.failing_server import failing_server, raised_by

CASES: list[tuple[HeadraceError, grpc.StatusCode, str]] = [
    (InvalidInput(FieldViolation("k", "must be 1")), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT"),
    (NotFound("model", "tower"), grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    (NotFound("user store", "/x"), grpc.StatusCode.NOT_FOUND, "USER_STORE_NOT_FOUND"),
    (NotOwner("m@1", owner="s2", generation=7), grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER"),
    (NotOwner("m@1"), grpc.StatusCode.FAILED_PRECONDITION, "NOT_OWNER"),
    (Conflict("generation 3 is not 4"), grpc.StatusCode.ABORTED, "CONFLICT"),
    (Refused("frozen", reason="CLUSTER_FROZEN"), grpc.StatusCode.FAILED_PRECONDITION, "CLUSTER_FROZEN"),
    (Overloaded("full", retry_after_s=0.25), grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (NoRoomYet("tight", retry_after_s=3.5), grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM"),
    (StoreFull("full", retry_after_s=5.0), grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL"),
    (Unavailable("no replica"), grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    (FailedModel("goldens differ"), grpc.StatusCode.UNAVAILABLE, "FAILED_MODEL"),
    (DeadlineExceeded("late"), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    (StillLoading("not yet"), grpc.StatusCode.DEADLINE_EXCEEDED, "STILL_LOADING"),
    (Unauthenticated("who?"), grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (PermissionDenied("not you"), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    (CorruptRecord("user store", "u1", "short"), grpc.StatusCode.DATA_LOSS, "CORRUPT_RECORD"),
    (CorruptBundle("scorer.pt2", "is altered"), grpc.StatusCode.DATA_LOSS, "CORRUPT_BUNDLE"),
    (MismatchedBundle("golden.npz", "differs"), grpc.StatusCode.FAILED_PRECONDITION, "MISMATCHED_BUNDLE"),
    (
        UntrustedBundle("signature.json", "is missing"),
        grpc.StatusCode.FAILED_PRECONDITION,
        "UNTRUSTED_BUNDLE",
    ),
    (OversizedBundle("tower@1", "needs more"), grpc.StatusCode.FAILED_PRECONDITION, "OVERSIZED_BUNDLE"),
]


def _raised(kind: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    if kind.__module__ == errors.__name__ and kind not in {HeadraceError, BundleError}:
        yield kind
    for child in kind.__subclasses__():
        yield from _raised(child)


def test_every_error_has_a_code() -> None:
    assert {type(error) for error, _, _ in CASES} == set(_raised(HeadraceError))


@pytest.mark.parametrize(("error", "code", "reason"), CASES, ids=lambda value: type(value).__name__)
def test_an_error_survives_a_channel(error: HeadraceError, code: grpc.StatusCode, reason: str) -> None:
    async def main() -> None:
        async with failing_server(error) as address:
            caught = await raised_by(address)
        assert caught.code() is code
        assert caught.details() == str(error)
        back = status.from_rpc_error(caught)
        assert type(back) is type(error)
        assert str(back) == str(error)
        for name in vars(error):
            assert getattr(back, name) == getattr(error, name)

    asyncio.run(main())
    info = error_details_pb2.ErrorInfo()
    assert status.to_status(error).details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "headrace.dev")


@pytest.mark.parametrize("error", [HeadraceError("secret"), BundleError("f", "secret"), KeyError("secret")])
def test_an_unplanned_error_tells_nothing(error: Exception) -> None:
    message = status.to_status(error, request_id="r1")
    assert status.code_of(message) is grpc.StatusCode.INTERNAL
    assert message.message == "internal error"
    assert b"secret" not in message.SerializeToString()
    assert b"r1" in message.SerializeToString()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(FieldViolation, st.text(), st.text()), min_size=1, max_size=5), st.integers(1, 400))
def test_details_always_fit_the_metadata(violations: list[FieldViolation], times: int) -> None:
    message = status.to_status(InvalidInput(*violations * times), request_id="x" * 64)
    # The limit is 8 KiB for the whole; details go as base64, the message percent-encoded besides.
    assert len(message.SerializeToString()) * 4 / 3 + len(message.message.encode()) * 3 < 7 * 1024
    bad_request = error_details_pb2.BadRequest()
    assert message.details[1].Unpack(bad_request)
    told = bad_request.field_violations
    # The last entry counts what was left out, and is none itself.
    left_out = int(told[-1].description.split()[1]) - 1 if told[-1].field == "…" else 0
    assert len(told) + left_out == len(violations) * times


def test_hundreds_of_violations_arrive() -> None:
    error = InvalidInput(*(FieldViolation(f"context.features[{i}]", "é" * 300) for i in range(500)))

    async def main() -> None:
        async with failing_server(error) as address:
            caught = await raised_by(address)
        assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
        back = status.from_rpc_error(caught)
        assert isinstance(back, InvalidInput)
        assert back.violations[0].field == "context.features[0]"
        assert back.violations[-1].description.endswith("more")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.UNIMPLEMENTED, HeadraceError),
        (grpc.StatusCode.DATA_LOSS, HeadraceError),
    ],
)
@pytest.mark.parametrize("trailing", [(), ((status.DETAILS_KEY, b"\xff not a status"),)])
def test_servers_that_are_not_ours(
    code: grpc.StatusCode, kind: type[HeadraceError], trailing: tuple[tuple[str, bytes], ...]
) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), "their words")
    back = status.from_rpc_error(error)
    assert type(back) is kind
    assert "their words" in str(back)
