import asyncio

import grpc.aio
import pytest

from router.shard_channels import ShardChannels
from router.stage_client import RETRIEVE
from services.chassis import channel_options
from services.codec import Retrieval, retrieve_to_proto
from shards.candidates import Candidates
from shards.release import ModelVersion
from shards.search_context import SearchContext
from tests.router.memory_stages import ranked
from tests.router.scripted_shard import Call, ScriptedShard

REQUEST = retrieve_to_proto(
    Retrieval(model=ModelVersion("tower", "1"), context=SearchContext(now_ms=1), k=1)
).SerializeToString()


def test_methods_and_channels_are_opened_once() -> None:
    async def main() -> None:
        channels = ShardChannels(channel_options(), closing_s=5.0)
        assert channels.method("127.0.0.1:1", RETRIEVE) is channels.method("127.0.0.1:1", RETRIEVE)
        assert channels.method("127.0.0.1:1", RETRIEVE) is not channels.method("127.0.0.1:2", RETRIEVE)
        await channels.close()

    asyncio.run(main())


def test_a_shard_that_leaves_finishes_its_calls_and_can_come_back() -> None:
    async def main() -> None:
        arrived, answered = asyncio.Event(), asyncio.Event()

        async def answer_late(_: Call) -> Candidates:
            arrived.set()
            await answered.wait()
            return ranked("a")

        channels = ShardChannels(channel_options(), closing_s=5.0)
        async with ScriptedShard("s1", {"tower@1": answer_late}) as shard:
            method = channels.method(shard.address, RETRIEVE)
            call = asyncio.ensure_future(method(REQUEST, timeout=5))
            await arrived.wait()
            closing = asyncio.create_task(channels.retain([]))
            answered.set()
            assert await call
            await closing
            with pytest.raises(grpc.aio.UsageError):
                await method(REQUEST, timeout=5)
            assert await channels.method(shard.address, RETRIEVE)(REQUEST, timeout=5)
        await channels.close()

    asyncio.run(main())


def test_shards_that_stay_keep_their_channels() -> None:
    async def main() -> None:
        channels = ShardChannels(channel_options(), closing_s=5.0)
        kept = channels.method("127.0.0.1:1", RETRIEVE)
        gone = channels.method("127.0.0.1:2", RETRIEVE)
        await channels.retain(["127.0.0.1:1", "127.0.0.1:3"])
        assert channels.method("127.0.0.1:1", RETRIEVE) is kept
        assert channels.method("127.0.0.1:2", RETRIEVE) is not gone
        await channels.close()

    asyncio.run(main())
