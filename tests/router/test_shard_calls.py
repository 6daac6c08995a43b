import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from router.budget import Deadline
from router.replicas import ReplicaHealth
from router.retry_budget import RetrySettings
from router.routing_table import RoutingTable
from router.shard_calls import DEFAULTS, CallSettings, ShardCalls
from router.shard_channels import ShardChannels
from router.stage_client import RETRIEVE, StageClient
from services import chassis
from services.chassis import channel_options
from services.codec import Retrieval, Scoring, StageAnswer, retrieve_to_proto
from shards.candidates import Candidates
from shards.errors import (
    DeadlineExceeded,
    FieldViolation,
    HeadraceError,
    InvalidInput,
    NotFound,
    NotOwner,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Stage
from shards.search_context import History, SearchContext, UserState
from tests.router.memory_stages import ranked
from tests.router.scripted_shard import Call, ScriptedShard, hang

TOWER = ModelVersion("tower", "1")
CONTEXT = SearchContext(
    query="red mug",
    user=UserState(user_id="u1", features={"age": 30.0}, history=History(("a",), ("buy",), (3,))),
    features={"device": "phone"},
    now_ms=5_000,
)
CALL = Retrieval(model=TOWER, context=CONTEXT, k=7, attributes=("title",), attribute_count=2)
SLOW = replace(CALL, context=replace(CONTEXT, query="slow"))


def table(
    *holders: ScriptedShard, others: tuple[ScriptedShard, ...] = (), generation: int = 1
) -> RoutingTable:
    return RoutingTable(
        Placement(
            generation=generation,
            endpoints={shard.shard_id: shard.address for shard in (*holders, *others)},
            assignments={
                TOWER: Assignment(
                    model=TOWER, stage=Stage.RETRIEVAL, shard_ids=tuple(shard.shard_id for shard in holders)
                )
            },
        )
    )


class KnownTables:
    """Tables that a test makes newest; `waited` is set when a call waits for a newer one."""

    def __init__(self, newest: RoutingTable) -> None:
        self._newest = newest
        self._news = asyncio.Event()
        self.waited = asyncio.Event()

    def newest(self) -> RoutingTable:
        return self._newest

    def publish(self, table: RoutingTable) -> None:
        self._newest = table
        self._news.set()

    async def after(self, generation: int) -> RoutingTable:
        self.waited.set()
        await self._news.wait()
        assert self._newest.generation > generation
        return self._newest


@asynccontextmanager
async def calls_of(
    newest: RoutingTable | KnownTables, *, seed: int = 1, settings: CallSettings = DEFAULTS
) -> AsyncIterator[ShardCalls]:
    channels = ShardChannels(channel_options(), closing_s=5.0)
    tables = newest if isinstance(newest, KnownTables) else KnownTables(newest)
    health = ReplicaHealth(random.Random(seed))
    yield ShardCalls(channels=channels, health=health, tables=tables, settings=settings)
    await channels.close()


async def retrieved(
    used: RoutingTable, *, newest: RoutingTable | None = None, times: int = 1, timeout_s: float = 5.0
) -> list[StageAnswer]:
    async with calls_of(newest or used) as calls:
        client = StageClient(calls, used)
        return [await client.retrieve(CALL, timeout_s) for _ in range(times)]


def test_a_call_arrives_whole_and_its_answer_too() -> None:
    async def main() -> None:
        async with ScriptedShard("s1", {"tower@1": ranked("a", "b", titles=2)}) as shard:
            (answer,) = await retrieved(table(shard))
        assert shard.calls == [CALL]
        assert (answer.shard_id, answer.model, answer.compute_s) == ("s1", TOWER, 0.001)
        assert answer.candidates.item_ids == ("a", "b")
        assert answer.candidates.attributes == {"title": ("The a", "The b")}

    asyncio.run(main())


def test_scoring_calls_arrive_whole() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": ranked("b", buy=0.5)}) as shard,
            calls_of(table(shard)) as calls,
        ):
            client = StageClient(calls, table(shard))
            scoring = Scoring(model=TOWER, context=CONTEXT, candidates=ranked("a", "b"), keep=1)
            pre_ranked = await client.pre_rank(scoring, 5.0)
            answer = await client.rank(scoring, 5.0)
        assert pre_ranked.candidates.item_ids == answer.candidates.item_ids == ("b",)
        assert answer.candidates.columns["buy"].tolist() == [0.5]
        assert [call.candidates.item_ids for call in shard.calls if isinstance(call, Scoring)] == [
            ("a", "b"),
            ("a", "b"),
        ]

    asyncio.run(main())


def test_replicas_share_the_calls() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": ranked("a")}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
        ):
            await retrieved(table(one, two), times=40)
        # How evenly is for what they take to say, on a machine that may be busy with other things.
        assert min(len(one.calls), len(two.calls)) >= 1

    asyncio.run(main())


def test_a_killed_replica_fails_no_call_and_is_then_avoided() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": ranked("a")}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
        ):
            used = table(one, two)
            async with calls_of(used) as calls:
                client = StageClient(calls, used)
                for _ in range(10):
                    await client.retrieve(CALL, 5.0)
                await one.kill()
                answers = [await client.retrieve(CALL, 5.0) for _ in range(20)]
            assert {answer.shard_id for answer in answers} == {"s2"}

    asyncio.run(main())


def test_a_call_in_flight_when_its_shard_dies_is_answered_by_another() -> None:
    async def main() -> None:
        arrived = asyncio.Event()

        async def hang_aloud(call: Call) -> Candidates:
            arrived.set()
            return await hang(call)

        async with ScriptedShard("s1", {"tower@1": hang_aloud}) as one, ScriptedShard("s2") as two:
            used, newest = table(one, others=(two,)), table(two, generation=2)
            two.answers["tower@1"] = ranked("a")
            task = asyncio.create_task(retrieved(used, newest=newest))
            await arrived.wait()
            await one.kill()
            (answer,) = await task
        assert answer.shard_id == "s2"

    asyncio.run(main())


def test_a_model_that_moved_is_found_with_its_new_owner() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": NotOwner("tower@1", owner="s2", generation=2)}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
        ):
            (answer,) = await retrieved(table(one, others=(two,)))
        assert answer.shard_id == "s2"

    asyncio.run(main())


def test_a_model_is_rerouted_once_only() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": NotOwner("tower@1", owner="s2")}) as one,
            ScriptedShard("s2", {"tower@1": NotOwner("tower@1", owner="s1")}) as two,
        ):
            with pytest.raises(NotOwner):
                await retrieved(table(one, others=(two,)))
        assert (len(one.calls), len(two.calls)) == (1, 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput(FieldViolation("filter.clauses[0].attribute", "is unknown")),
        PermissionDenied("no"),
    ],
)
def test_mistakes_of_callers_are_not_retried(error: HeadraceError) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", {"tower@1": error}) as one, ScriptedShard("s2") as two:
            two.answers["tower@1"] = error
            with pytest.raises(HeadraceError) as caught:
                await retrieved(table(one, two))
        assert len(one.calls) + len(two.calls) == 1
        if isinstance(error, InvalidInput):
            assert isinstance(caught.value, InvalidInput)
            assert caught.value.violations == error.violations

    asyncio.run(main())


def test_a_hung_shard_fails_no_call_and_is_then_avoided() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": hang}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
            calls_of(table(one, two)) as calls,
        ):
            client = StageClient(calls, table(one, two))
            answers = [await client.retrieve(CALL, 1.0) for _ in range(12)]
        assert {answer.shard_id for answer in answers} == {"s2"}
        assert len(one.calls) == 1

    asyncio.run(main())


def test_a_sole_shard_that_hangs_costs_the_timeout() -> None:
    async def main() -> None:
        async with ScriptedShard("s1", {"tower@1": hang}) as shard:
            with pytest.raises(DeadlineExceeded):
                await retrieved(table(shard), timeout_s=0.2)
        assert len(shard.calls) == 1

    asyncio.run(main())


def test_a_slow_answer_that_comes_first_counts() -> None:
    async def main() -> None:
        second_asked = asyncio.Event()

        async def answer_first_asked(call: Call) -> Candidates:
            """Whoever is asked first answers, once the other is asked, which then never does."""
            if len(one.calls) + len(two.calls) == 2:
                second_asked.set()
                return await hang(call)
            await second_asked.wait()
            return ranked("a")

        async with (
            ScriptedShard("s1", {"tower@1": answer_first_asked}) as one,
            ScriptedShard("s2", {"tower@1": answer_first_asked}) as two,
        ):
            await retrieved(table(one, two))
        assert (len(one.calls), len(two.calls)) == (1, 1)

    asyncio.run(main())


def test_a_slow_call_beside_others_is_asked_twice_within_a_budget() -> None:
    async def main() -> None:
        async def answer_but_the_slow(call: Call) -> Candidates:
            return await hang(call) if call.context.query == "slow" else ranked("a")

        async with (
            ScriptedShard("s1", {"tower@1": answer_but_the_slow}) as one,
            ScriptedShard("s2", {"tower@1": answer_but_the_slow}) as two,
            calls_of(table(one, two)) as calls,
        ):
            client = StageClient(calls, table(one, two))
            pending = [asyncio.create_task(client.retrieve(SLOW, 1.0)) for _ in range(30)]
            while not all(task.done() for task in pending):
                assert (await client.retrieve(CALL, 5.0)).candidates.item_ids == ("a",)
            late = await asyncio.gather(*pending, return_exceptions=True)
            asked = sum(call == SLOW for shard in (one, two) for call in shard.calls)
        assert all(isinstance(error, DeadlineExceeded) for error in late)
        assert 30 < asked < 60

    asyncio.run(main())


def test_a_shard_that_stands_still_is_tried_again_by_one_call_a_second() -> None:
    async def main() -> None:
        now_s = 0.0
        async with (
            ScriptedShard("s1", {"tower@1": hang}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
            calls_of(table(one, two)) as calls,
        ):

            async def ask(times: int) -> None:
                for _ in range(times):
                    await calls.call(
                        RETRIEVE,
                        retrieve_to_proto(CALL).SerializeToString(),
                        models=(TOWER,),
                        table=table(one, two),
                        deadline=Deadline.after(1.0, lambda: now_s),
                        read=bytes,
                    )

            await ask(10)
            assert len(one.calls) == 1
            now_s = 1.0
            await ask(10)
            assert len(one.calls) == 2
            one.answers["tower@1"] = ranked("a")
            now_s = 2.0
            await ask(40)
            assert len(one.calls) > 8

    asyncio.run(main())


def test_a_draining_shard_passes_its_calls_on() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": Unavailable("shard 's1' is draining")}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
        ):
            answers = await retrieved(table(one, two), times=20)
        assert {answer.shard_id for answer in answers} == {"s2"}
        assert len(one.calls) <= 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "error", [Overloaded("full", retry_after_s=0.1), HeadraceError("a fault of this shard")]
)
def test_what_one_replica_refuses_or_fails_at_another_answers(error: HeadraceError) -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": error}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
        ):
            answers = await retrieved(table(one, two), times=40)
        assert {answer.shard_id for answer in answers} == {"s2"}
        assert 1 <= len(one.calls) <= 10

    asyncio.run(main())


def test_where_everybody_fails_further_attempts_end_with_their_budget() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": HeadraceError("broken")}) as one,
            ScriptedShard("s2", {"tower@1": HeadraceError("broken")}) as two,
            calls_of(
                table(one, two), settings=CallSettings(retries=RetrySettings(share=0.1, reserve=5.0))
            ) as calls,
        ):
            client = StageClient(calls, table(one, two))
            for _ in range(50):
                with pytest.raises(HeadraceError, match="internal error"):
                    await client.retrieve(CALL, 5.0)
        assert 55 <= len(one.calls) + len(two.calls) <= 60

    asyncio.run(main())


def test_a_slow_answer_is_hedged_after_what_is_slow_for_its_kind_and_the_loser_cancelled() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": ranked("a")}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
            calls_of(table(one, two)) as calls,
        ):
            client = StageClient(calls, table(one, two))
            for _ in range(20):
                await client.retrieve(CALL, 60.0)
            one.answers["tower@1"] = hang
            started_s = time.monotonic()
            while not one.calls or one.calls[-1] != SLOW:
                await client.retrieve(SLOW, 60.0)
            # Whether a replica hangs would be asked after a second only.
            assert time.monotonic() - started_s < 1.0
            async with asyncio.timeout(5):
                while one.active:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_an_owner_that_is_not_known_yet_is_waited_for() -> None:
    async def main() -> None:
        moved = NotOwner("tower@1", owner="s3", generation=2)
        async with (
            ScriptedShard("s1", {"tower@1": moved}) as one,
            ScriptedShard("s2", {"tower@1": moved}) as two,
            ScriptedShard("s3", {"tower@1": ranked("a")}) as three,
        ):
            tables = KnownTables(table(one, two))
            async with calls_of(tables) as calls:
                call = asyncio.create_task(StageClient(calls, table(one, two)).retrieve(CALL, 5.0))
                await tables.waited.wait()
                tables.publish(table(three, generation=2))
                assert (await call).shard_id == "s3"
        assert len(one.calls) + len(two.calls) == 1

    asyncio.run(main())


def test_a_sole_shard_that_drains_is_left_when_the_news_come() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"tower@1": Unavailable("shard 's1' is draining")}) as one,
            ScriptedShard("s2", {"tower@1": ranked("a")}) as two,
        ):
            tables = KnownTables(table(one))
            async with calls_of(tables) as calls:
                call = asyncio.create_task(StageClient(calls, table(one)).retrieve(CALL, 5.0))
                await tables.waited.wait()
                tables.publish(table(two, generation=2))
                assert (await call).shard_id == "s2"

    asyncio.run(main())


def test_news_that_do_not_come_end_in_the_refusal() -> None:
    async def main() -> None:
        async with ScriptedShard("s1", {"tower@1": NotOwner("tower@1", owner="s9", generation=7)}) as shard:
            with pytest.raises(NotOwner):
                await retrieved(table(shard), timeout_s=0.2)
        assert len(shard.calls) == 1

    asyncio.run(main())


def test_a_killed_replica_and_one_that_lost_the_model_lead_to_its_owner() -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1") as gone,
            ScriptedShard("s2", {"tower@1": NotOwner("tower@1", owner="s3", generation=1)}) as two,
            ScriptedShard("s3", {"tower@1": ranked("a")}) as three,
        ):
            await gone.kill()
            used = table(gone, two, others=(three,))
            for seed in range(4):
                async with calls_of(used, seed=seed) as calls:
                    assert (await StageClient(calls, used).retrieve(CALL, 5.0)).shard_id == "s3"

    asyncio.run(main())


def test_a_refused_connection_is_noticed_at_once() -> None:
    async def main() -> None:
        async with ScriptedShard("s1") as gone:
            pass
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await retrieved(table(gone), timeout_s=5.0)
        assert time.monotonic() - started < 1.0

    asyncio.run(main())


def test_a_shard_that_returns_is_found_again() -> None:
    async def main() -> None:
        shard = ScriptedShard("s1", {"tower@1": ranked("a")})
        async with shard:
            used = table(shard)
        async with calls_of(used) as calls:
            client = StageClient(calls, used)
            with pytest.raises(Unavailable):
                await client.retrieve(CALL, 5.0)
            async with shard, asyncio.timeout(5):
                while True:
                    try:
                        answer = await client.retrieve(CALL, 5.0)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.02)
        assert answer.shard_id == "s1"

    asyncio.run(main())


def test_a_model_nobody_holds_is_unavailable_and_an_unknown_one_not_found() -> None:
    async def main() -> None:
        async with calls_of(table()) as calls:
            with pytest.raises(Unavailable, match="no shard holds tower@1"):
                await StageClient(calls, table()).retrieve(CALL, 1.0)
            with pytest.raises(NotFound):
                await StageClient(calls, RoutingTable(Placement())).retrieve(CALL, 1.0)

    asyncio.run(main())


def test_a_malformed_answer_is_an_error_of_the_shard() -> None:
    async def main() -> None:
        repeated = Candidates(item_ids=("a", "a"))
        async with ScriptedShard("s1", {"tower@1": repeated}) as shard:
            with pytest.raises(HeadraceError, match="must not repeat 'a'") as caught:
                await retrieved(table(shard))
            assert not isinstance(caught.value, InvalidInput)

    asyncio.run(main())


def test_bytes_that_are_no_answer_are_an_error_of_the_shard() -> None:
    async def answer(_: bytes, __: object) -> bytes:
        return b"\xff"

    def register(server: grpc.aio.Server) -> None:
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("headrace.v1.RetrievalService", {"Retrieve": handler}),)
        )

    async def main() -> None:
        async with chassis.serve("127.0.0.1:0", register=[register], service_names=[]) as server:
            with pytest.raises(HeadraceError, match="the shard's answer cannot be read"):
                await retrieved(table(ScriptedShard("s1", address=server.address)))

    asyncio.run(main())


def test_a_passed_deadline_leaves_no_second_attempt() -> None:
    async def main() -> None:
        now_s = 0.0

        async def refuse_late(_: Call) -> Candidates:
            nonlocal now_s
            now_s = 9.0
            raise Unavailable("draining")

        async with (
            ScriptedShard("s1", {"tower@1": refuse_late}) as shard,
            calls_of(table(shard)) as calls,
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="draining"):
                await calls.call(
                    RETRIEVE,
                    retrieve_to_proto(CALL).SerializeToString(),
                    models=(TOWER,),
                    table=table(shard),
                    deadline=Deadline.after(5.0, lambda: now_s),
                    read=bytes,
                )
        assert len(shard.calls) == 1

    asyncio.run(main())
