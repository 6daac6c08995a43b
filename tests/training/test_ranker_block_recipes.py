"""Each published ranker trained on a slice of the grocer's trips, exported, and asked of a real shard."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.candidates import Candidates
from tests.training.grocer_slice import grocer
from tests.training.shard_answers import ranked
from training.channels import Destination
from training.datasets.tables import Dataset
from training.evaluation.offline import open_cascade
from training.evaluation.tasks import held_out
from training.pipeline import train
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run import Run
from training.trainer import FitConfig

pytestmark = pytest.mark.data

_FIT = FitConfig(epochs=1, batch_size=64, learning_rate=2e-3)


@pytest.fixture(scope="module")
def trips() -> Dataset:
    return grocer(150)


def in_small(recipe: Recipe) -> Recipe:
    """Return the recipe as it is, but for one task, two channels, the newest trips and one epoch."""
    assert recipe.ranker is not None
    ranker = recipe.ranker
    return replace(
        recipe,
        tasks=recipe.tasks[:1],
        channels=tuple(c for c in recipe.channels if c.source in ("own", "popular")),
        ranking_queries=200,
        ranker=replace(
            ranker,
            model=replace(ranker.model, tasks=(recipe.tasks[0].name,), wide_tasks=()),
            training=replace(ranker.training, fit=_FIT),
        ),
    )


@pytest.mark.parametrize("name", ["grocer_dcn", "grocer_ppnet", "grocer_fibinet", "grocer_din", "grocer_sim"])
def test_a_shard_ranks_as_the_trained_model(trips: Dataset, name: str, tmp_path: Path) -> None:
    run = Run(recipe=in_small(RECIPES[name]), dataset=trips, seed=0, gate=lambda *_: True)
    models = tmp_path / "models"
    release = train(run, Destination(root=models, prefix=name, version="1")).release
    assert release.ranker is not None
    asked = held_out(trips, "test", limit=4, history_limit=release.history_limit)
    sold = trips.items.column("item_id").to_pylist()[:60]
    candidates = Candidates(item_ids=(*sold, "nowhere"))
    cascade = open_cascade(release, models)
    assert cascade.ranker is not None
    answers = ranked(models, tmp_path / "state", release.ranker.model, asked.contexts, candidates)
    pages = set()
    for answer, context in zip(answers, asked.contexts, strict=True):
        expected = cascade.ranker.score(context, candidates, 0, {}, (), 0)
        assert answer.item_ids == expected.item_ids
        assert len(answer) == len(sold)
        np.testing.assert_allclose(answer.columns["purchase"], expected.columns["purchase"], rtol=1e-4)
        pages.add(answer.item_ids)
    assert len(pages) > 1, "households see different pages"
