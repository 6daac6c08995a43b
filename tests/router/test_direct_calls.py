"""A Python client that asks shards itself, beside a real router that answers where it may not or cannot."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import numpy as np
import pytest

from router.client import HeadraceClient, Show, StageError, StageList, StageResult
from services import chassis
from services.access import AccessRules, Caller, Role, digest
from services.codec import placement_to_proto
from shards.candidates import Candidates
from shards.errors import FieldViolation, InvalidInput, NotOwner, Overloaded, PermissionDenied
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from shards.search_context import SearchContext, UserState
from tests.router.running_router import placed, running
from tests.router.scripted_controller import ScriptedController
from tests.router.scripted_shard import Answer, ScriptedShard, hang

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="ann", model=ModelVersion("tower", "1")),),
    pre_ranker=ReleaseScorer(model=ModelVersion("light", "1"), candidates=100),
    ranker=ReleaseScorer(model=ModelVersion("ranker", "1"), candidates=100),
)
MODELS = [str(model) for model in RELEASE.models()]
TOWER = "tower@1"
FOUND = Candidates(
    item_ids=("a", "b"),
    columns={"score": np.array([2.0, 1.0], dtype=np.float32)},
    attributes={"title": ("A mug",)},
)
SEARCH = SearchContext(query="mug", user=UserState(user_id="u"), now_ms=1_000)
ALL: Mapping[str, Answer] = dict.fromkeys(MODELS, FOUND)


def known_to_routers(shard: ScriptedShard) -> Placement:
    return placed([RELEASE], {model: [shard.shard_id] for model in MODELS}, {shard.shard_id: shard.address})


@dataclass
class World:
    """A client that follows a controller, two shards, and a router that knows the second one only."""

    client: HeadraceClient
    controller: ScriptedController
    first: ScriptedShard
    second: ScriptedShard

    async def tell(self, generation: int, holder: str, also: Mapping[str, str]) -> None:
        """Let the client know a placement in which this shard holds everything."""
        addresses = {"s1": self.first.address, "s2": self.second.address, **also}
        made = placed([RELEASE], {model: [holder] for model in MODELS}, addresses)
        await self.controller.publish(placement_to_proto(replace(made, generation=generation)))

    async def retrieve(self, **asked: Any) -> StageResult:
        return await self.client.retrieve("tower", SEARCH, **{"k": 2, **asked})


@asynccontextmanager
async def world(
    folder: Path, *, first: Mapping[str, Answer] = ALL, also: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[World]:
    """Run all of it; the client knows that the first shard holds everything, and where `also` others are."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(ScriptedShard("s1", dict(first)))
        two = await stack.enter_async_context(ScriptedShard("s2", dict(ALL)))
        controller = await stack.enter_async_context(ScriptedController())
        router = await stack.enter_async_context(running(known_to_routers(two), folder))
        client = await stack.enter_async_context(
            HeadraceClient(
                router.address, controller=controller.address, timeout_s=10.0, rng=random.Random(1)
            )
        )
        made = World(client, controller, one, two)
        await made.tell(1, "s1", also)
        await client.placement_known()
        yield made


def test_every_stage_is_asked_of_the_shard_that_holds_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as made:
            found = await made.retrieve(show=Show(attributes=["title"], count=1))
            light = await made.client.pre_rank("light", SEARCH, found.candidates, keep=1)
            ranked = await made.client.rank(
                "ranker", SEARCH, found.candidates, version="1", task_exponents={"buy": 0.5}
            )
        assert [each.direct for each in (found, light, ranked)] == [True, True, True]
        assert (found.model, found.version, found.shard_id) == ("tower", "1", "s1")
        assert found.candidates == StageList(
            item_ids=["a", "b"], columns={"score": [2.0, 1.0]}, attributes={"title": ["A mug"]}
        )
        assert light.candidates.item_ids == ["a"]
        retrieval, _, ranking = made.first.calls
        assert retrieval.context == SEARCH
        assert ranking.task_exponents == {"buy": 0.5}  # type: ignore[union-attr]
        assert not made.second.calls

    asyncio.run(main())


def test_a_call_that_is_sent_away_follows_once_and_is_then_a_routers(tmp_path: Path) -> None:
    async def main() -> None:
        moved = NotOwner(TOWER, owner="s2", generation=2)
        async with (
            ScriptedShard("s3", dict(ALL)) as third,
            world(tmp_path, first={TOWER: moved}, also={"s3": third.address}) as made,
        ):
            followed = await made.retrieve()
            assert (followed.direct, followed.shard_id) == (True, "s2")
            # The second one sends it on, too: now it is the router's, which does not know the third.
            made.second.answers[TOWER] = NotOwner(TOWER, owner="s3", generation=3)
            with pytest.raises(StageError):
                await made.retrieve(timeout_s=2.0)
            assert not third.calls
        assert len(made.first.calls) == 2

    asyncio.run(main())


@pytest.mark.parametrize("answer", [NotOwner(TOWER), NotOwner(TOWER, owner="s9", generation=9)])
def test_a_shard_that_knows_no_owner_leaves_it_to_the_router(tmp_path: Path, answer: NotOwner) -> None:
    async def main() -> None:
        async with world(tmp_path, first={TOWER: answer}) as made:
            result = await made.retrieve()
        assert (result.direct, result.shard_id, len(made.first.calls)) == (False, "s2", 1)

    asyncio.run(main())


def test_a_dead_shard_costs_no_call_and_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as made:
            assert (await made.retrieve()).direct
            await made.first.kill()
            for _ in range(3):
                result = await made.retrieve()
                assert (result.direct, result.shard_id) == (False, "s2")

    asyncio.run(main())


def test_a_shard_that_hangs_leaves_the_router_half_of_the_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, first={TOWER: hang}) as made:
            result = await made.retrieve(timeout_s=3.0)
            assert (result.direct, result.shard_id) == (False, "s2")
            await made.retrieve()
        assert len(made.first.calls) == 1

    asyncio.run(main())


def test_closed_shards_are_not_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path, first={TOWER: PermissionDenied("not a router")}) as made:
            for _ in range(3):
                assert (await made.retrieve()).shard_id == "s2"
        assert len(made.first.calls) == 1

    asyncio.run(main())


def test_mistakes_are_final_and_overload_waits_for_the_router(tmp_path: Path) -> None:
    async def main() -> None:
        mistake = InvalidInput(FieldViolation("k", "is 0"))
        async with world(tmp_path, first={TOWER: mistake}) as made:
            with pytest.raises(StageError) as caught:
                await made.retrieve()
            assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [v.field for v in caught.value.violations] == ["k"]
            assert not made.second.calls
            made.first.answers[TOWER] = Overloaded("busy", retry_after_s=0.2)
            began_s = asyncio.get_running_loop().time()
            assert not (await made.retrieve()).direct
            assert asyncio.get_running_loop().time() - began_s >= 0.2

    asyncio.run(main())


def test_unknown_models_get_the_routers_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as made:
            with pytest.raises(StageError) as caught:
                await made.client.retrieve("nobody", SEARCH, k=1)
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")

    asyncio.run(main())


def test_a_newer_placement_is_followed(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as made:
            assert (await made.retrieve()).shard_id == "s1"
            await made.tell(2, "s2", {})
            async with asyncio.timeout(20):
                while (result := await made.retrieve()).shard_id != "s2":
                    pass
            assert result.direct

    asyncio.run(main())


def test_who_may_not_watch_the_placement_asks_the_router(tmp_path: Path) -> None:
    async def main() -> StageResult:
        rules = AccessRules(callers=(Caller(name="web", token_sha256=digest("word"), roles=(Role.SEARCH,)),))
        async with (
            ScriptedShard("s2", dict(ALL)) as shard,
            ScriptedController(access=lambda: rules) as controller,
            running(known_to_routers(shard), tmp_path, access=lambda: rules) as router,
            HeadraceClient(router.address, "word", controller=controller.address, timeout_s=10.0) as client,
        ):
            return await client.retrieve("tower", SEARCH, k=1)

    assert asyncio.run(main()).direct is False


def test_garbled_answers_are_errors_of_the_client(tmp_path: Path) -> None:
    async def main() -> None:
        async with world(tmp_path) as made:
            made.first.garbled = b"\xff\xff"
            with pytest.raises(StageError) as caught:
                await made.retrieve()
        assert caught.value.code is grpc.StatusCode.INTERNAL

    asyncio.run(main())


def test_no_controller_at_all_leaves_everything_to_routers(tmp_path: Path) -> None:
    async def main() -> StageResult:
        async with chassis.serve("127.0.0.1:0", register=[], service_names=[]) as gone:
            pass
        async with (
            ScriptedShard("s2", dict(ALL)) as shard,
            running(known_to_routers(shard), tmp_path) as router,
            HeadraceClient(router.address, controller=gone.address, timeout_s=10.0) as client,
        ):
            return await client.retrieve("tower", SEARCH, k=1)

    assert asyncio.run(main()).direct is False
