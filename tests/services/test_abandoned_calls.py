"""Callers who vanish leave a shard no work: what waits is not computed, and a cascade stops between steps."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from services.worker_pool import Interest, WorkerPool
from shards import cascade
from shards.cascade import CascadeCall, CascadeStep
from shards.errors import DeadlineExceeded
from shards.release import ModelVersion, Stage
from shards.search_context import SearchContext
from shards.stages import Servable
from tests.router.memory_stages import ranked
from tests.services.asked_models import AskedRetriever, AskedScorer
from tests.services.shard_client import Models, connect
from tests.services.test_stages import whole

STEPS = (
    CascadeStep(stage=Stage.RETRIEVAL, channel="words", model=ModelVersion("words", "1"), keep=2),
    CascadeStep(stage=Stage.PRE_RANKING, model=ModelVersion("light", "1"), keep=2, intake=2),
    CascadeStep(stage=Stage.RANKING, model=ModelVersion("heavy", "1"), keep=2, intake=2),
)
CALL = CascadeCall(context=SearchContext(query="mug", now_ms=1), steps=STEPS, merged=2)


def test_a_cascade_stops_between_two_steps_when_its_caller_leaves() -> None:
    computed: list[str] = []
    begun, left = threading.Event(), threading.Event()

    def ask(call: Any) -> Any:
        computed.append(call.model.model)
        if call.model.model == "light":
            begun.set()
            assert left.wait(10)
        return ranked("a", "b")

    scorers = [AskedScorer(step.model, ask) for step in STEPS[1:]]
    held: list[Servable] = [AskedRetriever(STEPS[0].model, ask), *scorers]

    async def main() -> None:
        interest = Interest()
        async with WorkerPool(workers=1, max_queue=4) as pool:

            def compute() -> cascade.CascadeResult:
                return cascade.run(CALL, held, until_s=float("inf"), wanted=interest.__bool__)

            caller = asyncio.create_task(pool.run(compute, within_s=10, interest=interest))
            waiting = asyncio.create_task(pool.run(lambda: computed.append("late"), within_s=10))
            await asyncio.to_thread(begun.wait)
            caller.cancel()
            waiting.cancel()
            await asyncio.gather(caller, waiting, return_exceptions=True)
            left.set()
            assert await pool.wait_idle(10) == 0
        assert computed == ["words", "light"]

    asyncio.run(main())


def test_a_cascade_that_nobody_wants_does_not_begin() -> None:
    asked = AskedRetriever(STEPS[0].model, lambda _: pytest.fail("it was computed"))
    with pytest.raises(DeadlineExceeded, match="nobody waits"):
        cascade.run(CascadeCall(context=CALL.context, steps=STEPS[:1]), [asked], until_s=1e9, wanted=bool)


def test_calls_of_vanished_callers_leave_a_shard_idle(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path)
        async with ShardServer(config) as server, connect(server.address) as client:
            for model in models.release.models():
                await client.load(model, models.path(model))
            calls = [asyncio.create_task(client.run(whole(models))) for _ in range(50)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert any(isinstance(each, asyncio.CancelledError) for each in ended)
            assert not any(isinstance(each, grpc.aio.AioRpcError) for each in ended)
            async with asyncio.timeout(10):
                while (await client.shard()).in_flight:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            answered = sum(replica.requests for replica in (await client.shard()).replicas)
            assert answered < 50 * len(models.release.models())
            assert len((await client.run(whole(models))).candidates) > 0

    asyncio.run(main())
