import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.headrace.v1 import retrieval_service_pb2, types_pb2
from router.shard_channels import RawCall
from router.stage_client import EXPLAIN, PRE_RANK, RANK, RETRIEVE
from services import chassis
from shards.errors import FieldViolation, InvalidInput, NotOwner, Overloaded, Unavailable
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Release, ReleaseChannel, Stage
from tests.router.running_router import running

V1, V2 = ModelVersion("tower", "1"), ModelVersion("tower", "2")
LIVE = Release(surface="gifts", version="r1", channels=(ReleaseChannel(name="ann", model=V2),))
UNKNOWN_FIELD = b"\xf2\x07\x05hello"
"""Field 126, which no version of the contract knows yet."""


class EchoShard:
    """A shard that answers with the bytes it was asked with, or with an error."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.timeouts_s: list[float | None] = []
        self.error: Exception | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    def register(self, server: grpc.aio.Server) -> None:
        for path in (RETRIEVE, PRE_RANK, RANK, EXPLAIN):
            _, service, method = path.split("/")
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
                self._answers(path)
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )

    def _answers(self, path: str) -> Any:
        async def answer(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            self.asked.append((path, payload))
            self.timeouts_s.append(context.time_remaining())
            await self.answering.wait()
            if self.error:
                raise self.error
            return b"answer to " + payload

        return answer


@asynccontextmanager
async def proxied(folder: Path, **shards: EchoShard) -> AsyncIterator[grpc.aio.Channel]:
    """Run the shards and a router before them; "s1" holds both versions of the model."""
    async with AsyncExitStack() as stack:
        addresses = {}
        for shard_id, shard in shards.items():
            serving = chassis.serve("127.0.0.1:0", register=[shard.register], service_names=[])
            addresses[shard_id] = (await stack.enter_async_context(serving)).address
        placement = Placement(
            generation=1,
            endpoints=addresses,
            assignments={
                model: Assignment(model=model, stage=Stage.RETRIEVAL, shard_ids=("s1",)) for model in (V1, V2)
            },
            releases={"gifts": LIVE},
        )
        router = await stack.enter_async_context(running(placement, folder, max_in_flight=4))
        yield await stack.enter_async_context(grpc.aio.insecure_channel(router.address))


def request(model: str = "tower", version: str = "") -> bytes:
    message = retrieval_service_pb2.RetrieveRequest(
        model=types_pb2.ModelVersion(model=model, version=version),
        context=types_pb2.SearchContext(query="red mug"),
        k=7,
    )
    return message.SerializeToString() + UNKNOWN_FIELD


async def called(
    channel: grpc.aio.Channel, payload: bytes, path: str = RETRIEVE, timeout_s: float | None = 5.0
) -> bytes:
    method: RawCall = channel.unary_unary(path)
    return await method(payload, timeout=timeout_s)


async def refused(channel: grpc.aio.Channel, payload: bytes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await called(channel, payload)
    return caught.value


def details_of(error: grpc.aio.AioRpcError, *kinds: Any) -> list[Any]:
    """Return the details of the error, one for each kind, that must all be there."""
    found = []
    for kind in kinds:
        message = kind()
        assert any(detail.Unpack(message) for detail in rpc_status.from_call(error).details)
        found.append(message)
    return found


@pytest.mark.parametrize("path", [RETRIEVE, PRE_RANK, RANK, EXPLAIN])
def test_bytes_pass_both_ways_as_they_are(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        shard, payload = EchoShard(), request(version="1")
        async with proxied(tmp_path, s1=shard) as channel:
            assert await called(channel, payload, path) == b"answer to " + payload
        assert shard.asked == [(path, payload)]
        assert shard.timeouts_s[0] is not None
        assert 4 < shard.timeouts_s[0] < 5.1

    asyncio.run(main())


def test_the_live_version_is_filled_in(tmp_path: Path) -> None:
    async def main() -> None:
        shard = EchoShard()
        async with proxied(tmp_path, s1=shard) as channel:
            await called(channel, request())
        arrived = retrieval_service_pb2.RetrieveRequest.FromString(shard.asked[0][1])
        assert (arrived.model.model, arrived.model.version) == ("tower", "2")
        assert (arrived.context.query, arrived.k) == ("red mug", 7)
        assert UNKNOWN_FIELD in shard.asked[0][1]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("payload", "field"),
    [(b"\x0a\x09tow", "model"), (b"", "model.model"), (request(model=""), "model.model")],
)
def test_a_request_without_a_model_is_refused(tmp_path: Path, payload: bytes, field: str) -> None:
    async def main() -> None:
        shard = EchoShard()
        async with proxied(tmp_path, s1=shard) as channel:
            error = await refused(channel, payload)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (bad,) = details_of(error, error_details_pb2.BadRequest)
        assert [violation.field for violation in bad.field_violations] == [field]
        assert shard.asked == []

    asyncio.run(main())


@pytest.mark.parametrize("payload", [request(model="ghost"), request(version="9")])
def test_an_unknown_model_or_version_is_not_found(tmp_path: Path, payload: bytes) -> None:
    async def main() -> None:
        async with proxied(tmp_path, s1=EchoShard()) as channel:
            error = await refused(channel, payload)
        assert error.code() is grpc.StatusCode.NOT_FOUND
        (info,) = details_of(error, error_details_pb2.ErrorInfo)
        assert (info.reason, info.domain) == ("MODEL_NOT_FOUND", "headrace.dev")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (
            InvalidInput(FieldViolation("k", "must be 1 to 10000, not 0")),
            grpc.StatusCode.INVALID_ARGUMENT,
            error_details_pb2.BadRequest,
        ),
        (
            Overloaded("the queue is full", retry_after_s=0.5),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            error_details_pb2.RetryInfo,
        ),
        (Unavailable("draining"), grpc.StatusCode.UNAVAILABLE, error_details_pb2.ErrorInfo),
    ],
)
def test_errors_of_the_shard_pass_with_their_details(
    tmp_path: Path, error: Exception, code: grpc.StatusCode, kind: type[Any]
) -> None:
    async def main() -> None:
        shard = EchoShard()
        shard.error = error
        async with proxied(tmp_path, s1=shard) as channel:
            seen = await refused(channel, request())
        assert (seen.code(), seen.details()) == (code, str(error))
        details_of(seen, kind, error_details_pb2.ErrorInfo)

    asyncio.run(main())


def test_a_shard_that_lost_the_model_is_rerouted_once(tmp_path: Path) -> None:
    async def main() -> None:
        old, new = EchoShard(), EchoShard()
        old.error = NotOwner("tower@2", owner="s2", generation=2)
        async with proxied(tmp_path, s1=old, s2=new) as channel:
            assert (await called(channel, request())).startswith(b"answer to")
            new.error = NotOwner("tower@2", owner="s1", generation=3)
            error = await refused(channel, request())
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        (info,) = details_of(error, error_details_pb2.ErrorInfo)
        assert (info.reason, info.metadata["owner"]) == ("NOT_OWNER", "s1")
        assert (len(old.asked), len(new.asked)) == (2, 2)

    asyncio.run(main())


def test_a_call_without_a_deadline_gets_the_routers(tmp_path: Path) -> None:
    async def main() -> None:
        shard = EchoShard()
        async with proxied(tmp_path, s1=shard) as channel:
            await called(channel, request(), timeout_s=None)
        assert shard.timeouts_s[0] is not None
        assert 4 < shard.timeouts_s[0] < 5.1

    asyncio.run(main())


def test_load_beyond_the_limit_is_shed(tmp_path: Path) -> None:
    async def main() -> None:
        shard = EchoShard()
        shard.answering.clear()
        async with proxied(tmp_path, s1=shard) as channel:
            waiting = {asyncio.create_task(called(channel, request(), timeout_s=20)) for _ in range(5)}
            # Four are admitted and wait for the shard; whichever comes fifth is refused at once.
            (refusal,), waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            error = refusal.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            details_of(error, error_details_pb2.RetryInfo)
            shard.answering.set()
            assert all(b"answer to" in answer for answer in await asyncio.gather(*waiting))
        assert len(shard.asked) == 4

    asyncio.run(main())
