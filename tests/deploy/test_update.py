"""`headrace update`: a release learns from what came since, and goes live while it is searched."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from deploy.release_files import read_release, write_release
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from router.client import Clause, HeadraceClient, SearchResult
from router.router_config import RouterConfig
from router.router_server import Router
from shards.bundle import read_manifest
from shards.errors import InvalidInput, NotFound
from shards.manifest import Manifest
from tests.deploy.commands import Ran, headrace
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller
from tests.training.movielens_slice import real_slice
from training.datasets import parquet
from training.datasets.splits import known_until_ms, rows_of
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.recipes import RECIPES
from training.trainer import ignore

RECIPE = "movielens_updates"
SURFACE = RECIPES[RECIPE].surface
MODEL = f"{SURFACE}-embedding"
QUICK = ("two_tower.fit.epochs=1", "two_tower_queries=2000", "ranking_queries=1000")


@dataclass(frozen=True)
class Shop:
    """A workspace with a release of films without the one that comes later, and the data with it."""

    workspace: Workspace
    new_title: str
    test_ms: int

    def update(self, days: float, *options: str) -> Ran:
        until = datetime.fromtimestamp(self.test_ms / 1000 + days * DAY_MS / 1000, UTC).isoformat()
        root = str(self.workspace.root)
        data = ("--dataset", f"{root}/data", "--workspace", root)
        return headrace("update", RECIPE, *data, "--until", until, *options)

    def manifest(self) -> Manifest:
        """Return that of the model that the workspace's release pins."""
        (channel,) = read_release(self.workspace, SURFACE).channels
        return read_manifest(self.workspace.models_dir / channel.model.model / channel.model.version)


def without(table: pa.Table, item_id: str) -> pa.Table:
    return table.filter(pc.not_equal(table.column("item_id"), item_id))


def shop_in(root: Path) -> Shop:
    """Return a shop that knows nothing of the film that is liked most in the test."""
    dataset = real_slice(200)
    ((new, _),) = Counter(rows_of(dataset.queries, "test").column("item_id").to_pylist()).most_common(1)
    early: Dataset = replace(
        dataset,
        items=without(dataset.items, new),
        events=without(dataset.events, new),
        queries=without(dataset.queries, new),
    )
    workspace = Workspace(root)
    options = TrainingOptions(version="first", settings=QUICK)
    trained = train_release(with_overrides(RECIPES[RECIPE], QUICK), early, workspace, options, ignore)
    # A busy machine may be slow; that is no failure of the release.
    write_release(workspace, replace(trained.release, retrieval_budget_ms=3_000))
    parquet.save(dataset, root / "data")
    titles = dict(
        zip(*(dataset.items.column(name).to_pylist() for name in ("item_id", "title")), strict=True)
    )
    return Shop(workspace, titles[new], known_until_ms(early))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop_in(tmp_path_factory.mktemp("updated"))


def test_a_release_goes_on_and_goes_live_without_a_pause(shop: Shop) -> None:
    """Tables learn, then everything does, and new items are found; no search fails meanwhile."""
    root = shop.workspace.root
    first = read_release(shop.workspace, SURFACE)

    async def main() -> list[SearchResult]:
        async with (
            in_process_shards(root / "state") as host,
            running_controller(root, host) as controller,
        ):
            await controller.deploy(first)
            config = RouterConfig(controller=controller.address, default_deadline_s=5.0, grace_s=0.0)
            async with Router(config) as router:
                await router.ready()
                async with HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client:

                    async def search() -> SearchResult:
                        wanted = Clause(attribute="title", any_of=(shop.new_title,))
                        return await client.search(SURFACE, user_id="1", filter=[wanted])

                    answers = [await search()]
                    done = asyncio.create_task(
                        asyncio.to_thread(_update_and_deploy, shop, controller.address)
                    )
                    while not done.done():
                        answers.append(await search())
                        await asyncio.sleep(0.02)
                    await done
                    return [*answers, await search()]

    answers = asyncio.run(main())
    assert all(answer.complete for answer in answers)
    assert (answers[0].release, answers[-1].release) == ("first", shop.manifest().version)
    assert [item.item_id for item in answers[0].items] == []
    assert len(answers[-1].items) == 1


def _update_and_deploy(shop: Shop, controller: str) -> None:
    """Update twice, divided the second time; each version says where a full update begins."""
    said = []
    for days, options in ((1, ("--tables-only",)), (2, ())):
        if not options:
            live = read_release(shop.workspace, SURFACE)
            divided = tuple(replace(channel, partitions=2) for channel in live.channels)
            write_release(shop.workspace, replace(live, channels=divided))
        done = shop.update(days, *options)
        assert done.code == 0, done.error
        manifest = shop.manifest()
        assert done.out == f"{SURFACE} {manifest.version}\n"
        said.append((manifest.full_version, manifest.version.endswith("-tables"), manifest.settings))
        release = str(shop.workspace.releases_dir / f"{SURFACE}.json")
        done = headrace("release", "deploy", release, "--controller", controller)
        assert done.code == 0, done.error
    assert said == [("first", True, QUICK), ("", False, QUICK)]


def test_what_cannot_be_updated_is_refused_and_leaves_nothing(shop: Shop) -> None:
    before = sorted(shop.workspace.models_dir.rglob("*"))
    done = shop.update(-1)
    assert isinstance(done.error, InvalidInput)
    assert "no searches that movielens-updates-embedding@" in str(done.error)
    done = headrace("update", "pinnerformer", "--dataset", str(shop.workspace.root / "data"))
    assert isinstance(done.error, NotFound | InvalidInput)
    assert sorted(shop.workspace.models_dir.rglob("*")) == before
