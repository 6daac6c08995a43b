"""Every bad input and fault of the design's table, through real channels to a real router and shards."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.headrace.v1 import (
    shard_service_pb2,
)
from router.shard_channels import RawCall
from router.stage_client import RETRIEVE
from tests.router.bad_requests import LOAD, SEARCH, SEARCHES, STAGE_CALLS, Case, model, retrieve
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import running


@asynccontextmanager
async def channel_to_router(models: Models, folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        real_shards(models, folder, ["s1"]) as addresses,
        running(models.placed_on(addresses), folder) as router,
        grpc.aio.insecure_channel(router.address) as channel,
    ):
        yield channel


async def problem_with(channel: grpc.aio.Channel, case: Case) -> str:
    """Send the request; return what is wrong with the answer, nothing when all is as it must be."""
    payload = case.request if isinstance(case.request, bytes) else case.request.SerializeToString()
    method: RawCall = channel.unary_unary(case.path)
    try:
        await method(payload, timeout=10)
    except grpc.aio.AioRpcError as error:
        found = Found.of(error)
    else:
        return "it was answered"
    wanted = Found(case.code, case.reason, tuple(case.fields))
    if (found.code, found.reason, found.fields) != (wanted.code, wanted.reason, wanted.fields):
        return f"{wanted} wanted, {found} found"
    missing = case.metadata.items() - found.metadata.items()
    return f"{missing} wanted in {found.metadata}" if missing else ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a caller got."""

    code: grpc.StatusCode
    reason: str
    fields: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "Found":
        status = rpc_status.from_call(error)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details if status else ():
            detail.Unpack(info)
            detail.Unpack(bad)
        assert "Traceback" not in f"{error.details()} {bad}"
        assert all(violation.description for violation in bad.field_violations)
        fields = tuple(violation.field for violation in bad.field_violations)
        return cls(error.code(), info.reason, fields, dict(info.metadata))


def test_every_bad_request_gets_its_status_and_details(models: Models, tmp_path: Path) -> None:
    async def main() -> dict[str, str]:
        async with channel_to_router(models, tmp_path) as channel:
            return {case.name: await problem_with(channel, case) for case in SEARCHES + STAGE_CALLS}

    problems = asyncio.run(main())
    assert {name: problem for name, problem in problems.items() if problem} == {}
    assert len(problems) == len(SEARCHES) + len(STAGE_CALLS)


def altered(models: Models, folder: Path) -> Path:
    path = folder / "altered"
    shutil.copytree(models.root / "lexical" / "1", path)
    (path / "items.parquet").write_bytes(b"altered")
    return path


def test_bad_bundles_are_refused_and_the_others_serve_on(models: Models, tmp_path: Path) -> None:
    others = replace(models, release=replace(models.release, channels=models.release.channels[1:]))

    def load(path: Path, name: str, version: str) -> shard_service_pb2.LoadModelRequest:
        return shard_service_pb2.LoadModelRequest(model=model(name, version), path=str(path))

    cases = [
        Case(
            name="corrupt",
            path=LOAD,
            request=load(altered(models, tmp_path), "lexical", "1"),
            code=grpc.StatusCode.DATA_LOSS,
            reason="CORRUPT_BUNDLE",
            metadata={"file": "items.parquet"},
        ),
        Case(
            name="mismatched",
            path=LOAD,
            request=load(models.root / "memory" / "1", "lexical", "1"),
            code=grpc.StatusCode.FAILED_PRECONDITION,
            reason="MISMATCHED_BUNDLE",
            metadata={"file": "manifest.json"},
        ),
        Case(
            name="not held here",
            path=RETRIEVE,
            request=retrieve("elsewhere"),
            code=grpc.StatusCode.FAILED_PRECONDITION,
            reason="NOT_OWNER",
            metadata={"model": "elsewhere@1"},
        ),
    ]

    async def main() -> dict[str, str]:
        async with (
            real_shards(others, tmp_path, ["s1"]) as addresses,
            grpc.aio.insecure_channel(addresses["s1"]) as channel,
        ):
            problems = {case.name: await problem_with(channel, case) for case in cases}
            method: RawCall = channel.unary_unary(RETRIEVE)
            assert await method(retrieve("memory").SerializeToString(), timeout=10)
        return problems

    assert {name: problem for name, problem in asyncio.run(main()).items() if problem} == {}


@pytest.mark.parametrize(
    ("path", "payload", "code"),
    [
        ("/headrace.v1.SearchService/Guess", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/headrace.v1.ShardService/LoadModel", b"", grpc.StatusCode.UNIMPLEMENTED),
        (SEARCH, b"\x00" * (17 * 2**20), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_what_never_reaches_a_handler_is_refused_by_grpc(
    models: Models, tmp_path: Path, path: str, payload: bytes, code: grpc.StatusCode
) -> None:
    async def main() -> None:
        async with (
            running(models.placed_on({}), tmp_path) as router,
            grpc.aio.insecure_channel(router.address) as channel,
        ):
            method: RawCall = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(payload, timeout=10)
        assert caught.value.code() is code

    asyncio.run(main())
