"""A part of `make bench-quality`: neural collaborative filtering beside popularity and item-KNN.

Leave-one-out over the likes of MovieLens-100K, each user's last one among 100 films that they never rated;
every channel is the bundle that a shard would open.
"""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import mean_of, spread_of
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.datasets.tables import Dataset
from training.evaluation.offline import open_cascade
from training.evaluation.sampled_ranking import SampledFigures, figures_among, sampled
from training.pipeline import train
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run import Run

BASELINES = (
    ChannelRecipe(name="popular", source="popular", popularity="popularity", top=2_000),
    ChannelRecipe(name="item_knn", source="item_cf", actions=("like",), top=50),
)
"""Item-KNN's neighbours and its shrinkage were chosen on the valid split, of 50 or 2,000 and of 5 or 20."""


def neural_cf(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """HR@10 and NDCG@10 of three seeds; the films that are drawn differ from seed to seed as well."""
    recipe = RECIPES["neural_cf"]
    channel = next(c for c in recipe.channels if c.source == "neural_cf")
    if run.quick:
        quick = replace(channel.neural_cf, fit=replace(channel.neural_cf.fit, epochs=1), neighbours=30)
        channel = replace(channel, neural_cf=quick)
    recipe = replace(recipe, channels=(replace(channel, top=2_000), *BASELINES))
    dataset = run.load(recipe.dataset_name)
    runs = [_measured(recipe, dataset, seed) for seed in range(run.seeds)]
    rankings = {
        name: {
            metric: spread_of([asdict(each[name])[metric] for each in runs])
            for metric in ("hit_rate_10", "ndcg_10")
        }
        for name in runs[0]
    }
    ndcg = {name: mean_of([each[name].ndcg_10 for each in runs]) for name in runs[0]}
    hit_rate = {name: mean_of([each[name].hit_rate_10 for each in runs]) for name in runs[0]}
    figures = {"users": runs[0]["popular"].users, "seeds": run.seeds, "rankings": rankings}
    return figures, [
        at_least("neural CF, NDCG@10 among 101, against item-KNN", ndcg["neural_cf"], ndcg["item_knn"]),
        at_least("neural CF, HR@10 among 101, against item-KNN", hit_rate["neural_cf"], hit_rate["item_knn"]),
        at_least("neural CF, NDCG@10 among 101, against popular", ndcg["neural_cf"], ndcg["popular"]),
    ]


def _measured(recipe: Recipe, dataset: Dataset, seed: int) -> dict[str, SampledFigures]:
    asked = sampled(dataset, "test", seed=seed)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        destination = Destination(root=Path(folder), prefix="likes", version="1")
        run = Run(recipe=recipe, dataset=dataset, seed=seed, gate=lambda *_: True)
        cascade = open_cascade(train(run, destination).release, destination.root)
        return {name: figures_among(retriever, asked) for name, retriever in cascade.retrievers.items()}
