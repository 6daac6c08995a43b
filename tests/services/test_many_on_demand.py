"""Three times as many bundles as fit, end to end: every search is answered, and what is steady stays so."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from protos.headrace.v1 import cluster_service_pb2 as pb
from router.client import HeadraceClient
from router.router_config import RouterConfig
from router.router_server import Router
from shards.changes import ModelPolicy
from shards.errors import Unavailable
from shards.placement import Placement
from shards.planner import Limits
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from shards.replica import Replica, ReplicaState
from tests.services.process_shards import ProcessShards, process_shards
from tests.services.running_controller import RunningController, running_controller
from tests.services.shard_client import Models, connect
from tests.shards.bundles import SURFACE, VERSION
from tests.shards.many_bundles import write_copy

ONE_BYTES = 12 << 20
"""Of each bundle on demand: far more than measuring errs by."""
FIT = 5
"""Bundles on demand that fit on one shard, beside the steady release and the pinned bundle."""
STEADY_BYTES = 48 << 20
SINGLES, CASCADES = 24, 2
PINNED = ModelVersion("pinned", VERSION)
LIMITS = Limits(min_replicas=2, max_replicas=2, grace_ms=500)
READY, COLD, LOADING = ReplicaState.READY, ReplicaState.COLD, ReplicaState.LOADING


def single(name: str) -> Release:
    model = ModelVersion(name, VERSION)
    return Release(
        surface=name,
        version="1",
        channels=(ReleaseChannel(name="only", model=model),),
        attributes=("title",),
        on_demand=True,
    )


def patient(release: Release) -> Release:
    """Return the release with budgets that suit a busy test machine."""
    assert release.pre_ranker
    assert release.ranker
    return replace(
        release,
        retrieval_budget_ms=3_000,
        pre_ranker=replace(release.pre_ranker, budget_ms=3_000),
        ranker=replace(release.ranker, budget_ms=3_000),
    )


def cascade(name: str, steady: Release) -> Release:
    """Return a release of a retriever, a pre-ranker and a ranker of its own, all cold."""
    assert steady.pre_ranker
    assert steady.ranker
    pre_ranker, ranker = (ModelVersion(f"{name}-{stage}", VERSION) for stage in ("pre", "rank"))
    return replace(
        steady,
        surface=name,
        version="1",
        channels=(ReleaseChannel(name="two_tower", model=ModelVersion(f"{name}-tower", VERSION)),),
        pre_ranker=ReleaseScorer(model=pre_ranker, candidates=60, budget_ms=1_500),
        ranker=ReleaseScorer(model=ranker, candidates=20, budget_ms=1_500),
        on_demand=True,
    )


def write_bundles(root: Path, models: Models) -> list[Release]:
    """Write all that is on demand; returns their releases, the most wanted first."""
    steady = models.release
    assert steady.pre_ranker
    assert steady.ranker
    releases = [cascade(f"cascade-{number}", steady) for number in range(CASCADES)]
    releases[1:1] = [single(f"single-{number:02d}") for number in range(SINGLES)]
    originals = {
        "tower": ModelVersion("two_tower", VERSION),
        "pre": steady.pre_ranker.model,
        "rank": steady.ranker.model,
    }
    for release in releases:
        for model in release.models():
            kind = originals.get(model.model.rpartition("-")[2], ModelVersion("lexical", VERSION))
            write_copy(root, models.path(kind), model.model, padding_bytes=ONE_BYTES)
    write_copy(root, models.path(ModelVersion("lexical", VERSION)), PINNED.model, padding_bytes=ONE_BYTES)
    return releases


@dataclass
class Watch:
    """Looks at every replica all the time; `wrong` has what must never be seen."""

    shards: ProcessShards
    capacity_bytes: int
    steady: frozenset[ModelVersion]
    wrong: set[str] = field(default_factory=set)
    seen: dict[str, dict[ModelVersion, Replica]] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.02)

    async def look(self) -> None:
        for shard_id, address in self.shards.living().items():
            # It may be killed just now.
            with suppress(Unavailable):
                async with connect(address) as client:
                    self.seen[shard_id] = await client.replicas()
        loading: Counter[ModelVersion] = Counter()
        for shard_id in self.shards.living():
            replicas = self.seen.get(shard_id, {}).values()
            held = sum(replica.memory_bytes for replica in replicas if replica.state is READY)
            if held > self.capacity_bytes:
                self.wrong.add(f"{shard_id} holds {held} bytes")
            gone = [r.model for r in replicas if r.model in self.steady and r.evictions]
            self.wrong |= {f"{shard_id} evicted {model}" for model in gone}
            loading.update(replica.model for replica in replicas if replica.state is LOADING)
        self.wrong |= {f"{model} loads twice at once" for model, count in loading.items() if count > 1}

    async def counted(self) -> tuple[int, int]:
        """Return how often anything was loaded and evicted."""
        await self.look()
        replicas = [replica for held in self.seen.values() for replica in held.values()]
        return sum(r.loads for r in replicas), sum(r.evictions for r in replicas)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All that runs."""

    controller: RunningController
    shards: ProcessShards
    client: HeadraceClient
    watch: Watch
    releases: Sequence[Release]

    async def search(self, surface: str, query: str = "red mug") -> None:
        """Search and find every stage of the surface in the answer."""
        result = await self.client.search(surface, query, timeout_s=25)
        assert result.items, surface
        assert result.gaps == (), (surface, result.gaps)

    async def search_many(self, releases: Sequence[Release], count: int, seed: int) -> None:
        """Search as some users do: the most wanted surface twice as often as the second one, and so on."""
        rng = random.Random(seed)
        weights = [1 / rank for rank in range(1, len(releases) + 1)]
        for release in rng.choices(releases, weights, k=count):
            await self.search(release.surface)


@asynccontextmanager
async def steadily(stage: Stage) -> AsyncIterator[list[str]]:
    """Search the steady release and the pinned bundle's all the while; gives the surfaces that answered."""
    answered: list[str] = []

    async def search() -> None:
        while True:
            for surface in (SURFACE, PINNED.model):
                await stage.search(surface)
                answered.append(surface)

    task = asyncio.create_task(search())
    try:
        yield answered
    finally:
        if not task.done():
            task.cancel()
        for error in await asyncio.gather(task, return_exceptions=True):
            if isinstance(error, Exception):
                raise error


@asynccontextmanager
async def crowded(models: Models, root: Path) -> AsyncIterator[Stage]:
    shutil.copytree(models.root, root / "models")
    capacity_bytes = STEADY_BYTES + (FIT + 1) * ONE_BYTES
    releases = write_bundles(root / "models", models)
    async with (
        process_shards(
            root / "state",
            memory_bytes=capacity_bytes,
            min_idle_s=0.1,
            min_residence_s=1.0,
            load_backoff_s=0.1,
        ) as shards,
        running_controller(root, shards, limits=LIMITS, shard_capacity_bytes=capacity_bytes) as controller,
    ):
        for release in [patient(models.release), *releases, single(PINNED.model)]:
            operation = await controller.deploy(release)
            assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail
        await controller.hold(ModelPolicy(model=PINNED, pinned=True, standalone=False))
        steady = frozenset({*models.release.models(), PINNED})
        watch = Watch(shards, capacity_bytes, steady)
        config = RouterConfig(controller=controller.address, max_deadline_s=30, grace_s=0)
        async with Router(config) as router, HeadraceClient(router.address, max_attempts=1) as client:
            await router.ready()
            looking = asyncio.create_task(watch.run())
            try:
                yield Stage(
                    controller=controller, shards=shards, client=client, watch=watch, releases=releases
                )
            finally:
                looking.cancel()
            assert watch.wrong == set()


def test_three_times_what_fits_answers_every_search(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with crowded(models, tmp_path) as stage, steadily(stage) as answered:
            async with asyncio.TaskGroup() as clients:
                for seed in range(4):
                    clients.create_task(stage.search_many(stage.releases, 40, seed))
            _, evictions = await stage.watch.counted()
            assert evictions > 0
            # What fits settles, and is not loaded again and again.
            few = stage.releases[1:FIT]
            for release in few:
                await stage.search(release.surface)
            loads, _ = await stage.watch.counted()
            await stage.search_many(few, 60, 9)
            assert (await stage.watch.counted())[0] == loads
            # What a dead shard held on demand answers from the other one, where it is cold at first.
            await stage.shards.kill("shard-1")
            await stage.controller.placement_that(lambda placement: on_one_shard(placement, "shard-0"))
            assert COLD in {replica.state for replica in stage.watch.seen["shard-0"].values()}
            for release in stage.releases:
                await stage.search(release.surface)
            assert len(answered) > 100

    asyncio.run(main())


def on_one_shard(placement: Placement, shard_id: str) -> bool:
    return all(a.shard_ids == (shard_id,) for a in placement.assignments.values())
