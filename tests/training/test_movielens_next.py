"""The two-tower model of next films: trained in several ways, exported, and asked on a real shard."""

from dataclasses import replace
from pathlib import Path

import pytest

from shards.catalogue import CATALOGUE_FILE
from shards.forward_index import ITEMS_FILE, ForwardIndex
from shards.golden import GOLDEN_FILE, read_golden
from tests.bench.quality_negatives import Task, figures_of
from tests.training.movielens_slice import real_slice
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run

RECIPE = replace(RECIPES["movielens_next"], two_tower_queries=6_000)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return real_slice(500)


def test_log_q_gives_back_the_popular_that_in_batch_negatives_push_away(dataset: Dataset) -> None:
    task = Task.of(RECIPE, dataset)
    settings = ("two_tower.negatives=0", "two_tower.fit.batch_size=128")
    corrected = figures_of(task, task.trained(settings, 0, 2))
    plain = figures_of(task, task.trained((*settings, "two_tower.log_q=false"), 0, 2))
    assert corrected["recall_100"] > 1.1 * plain["recall_100"]


def test_a_model_of_hard_negatives_answers_on_a_shard_as_its_goldens_say(
    dataset: Dataset, tmp_path: Path
) -> None:
    recent = replace(RECIPE.channels[0], active_within_days=5.0)
    recipe = with_overrides(
        replace(RECIPE, channels=(recent,)),
        (
            "two_tower.loss=hinge",
            "two_tower.log_q=false",
            "two_tower.margin=3",
            "two_tower.hard.per_positive=2",
            "two_tower.hard.first_rank=51",
            "two_tower.fit.epochs=2",
        ),
    )
    destination = Destination(root=tmp_path / "models", prefix="films", version="1")
    trained = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination)
    assert trained.figures["embedding recall@100"] > 0.2
    model = trained.release.channels[0].model
    path = tmp_path / "models" / model.model / model.version
    everything = len(dataset.items)
    assert (
        len(ForwardIndex.open(path / ITEMS_FILE))
        < everything
        == len(ForwardIndex.open(path / CATALOGUE_FILE))
    )
    golden = read_golden(tmp_path / "models" / model.model / model.version / GOLDEN_FILE)
    answers = asked(tmp_path / "models", tmp_path / "state", model, golden.contexts)
    assert [answer[: len(ids)] for answer, ids in zip(answers, golden.item_ids, strict=True)] == [
        tuple(ids) for ids in golden.item_ids
    ]
