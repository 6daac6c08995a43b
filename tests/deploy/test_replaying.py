"""A split replayed through a real cluster, refreshed releases going live on the way."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.evaluation import OnlineOptions
from deploy.refreshing import run_of
from deploy.release_files import read_release
from deploy.replaying import Cluster, replay_online
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from router.client import HeadraceClient
from tests.deploy.running_cluster import running_cluster
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.datasets.splits import known_until_ms
from training.evaluation.judgements import judged_queries
from training.evaluation.replay import replay
from training.evaluation.report import compare
from training.recipe import Recipe
from training.trainer import ignore

DATA = shop_dataset()
TABLES = tuple(c for c in RECIPE.channels if c.source != "two_tower")
PLAIN = Recipe(name="shop", surface="shop", channels=TABLES)


def test_the_cluster_answers_as_one_process_does_while_releases_go_live(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    train_release(PLAIN, DATA, workspace, TrainingOptions(), ignore)
    release = read_release(workspace, "shop")
    judged = judged_queries(DATA, "test", limit=40, history_limit=release.history_limit)
    run, options = run_of(PLAIN, DATA, release, workspace), OnlineOptions(concurrency=2)
    with running_cluster(workspace, "--shards", "1") as up:
        cluster = Cluster(controller=up.controller, router=up.router)
        found = replay_online(run, release, workspace, judged, 2.0, cluster, options)
        assert live(up.router) == release.version
    assert found.releases == 3
    assert found.online.degraded == ()
    assert [d.ranking for d in compare(found.offline, found.online.ranks) if d.moved > 0] == []
    alone = replay(run, release, workspace.models_dir, judged, 2.0, gate=lambda *_: True)
    for ranking, ranks in found.offline.by_ranking.items():
        assert np.array_equal(ranks, alone.by_ranking[ranking])
    assert read_release(workspace, "shop") == replace(release, as_of_ms=known_until_ms(DATA))


def live(router: str) -> str:
    async def asked() -> str:
        async with HeadraceClient(router) as client:
            return (await client.search("shop", "mug", page_size=1)).release

    return asyncio.run(asked())
