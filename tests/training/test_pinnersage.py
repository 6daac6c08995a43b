"""PinnerSage: trained on real reviews, a shard asks with medoids of what a user met."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.bundle import open_bundle
from shards.item_vectors import open_item_vectors
from tests.bench.quality_medoids import average_of
from tests.training.beauty_slice import real_slice
from tests.training.shard_answers import asked
from training.channels import Destination
from training.evaluation.next_items import next_items
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run

K = 60


@pytest.mark.data
def test_every_interest_has_its_part_of_a_list_that_one_average_gives_to_few(tmp_path: Path) -> None:
    dataset, recipe = real_slice(600), RECIPES["pinnersage"]
    assert recipe.item_pairs is not None
    fit = replace(recipe.item_pairs.fit, epochs=1)
    recipe = replace(recipe, item_pairs=replace(recipe.item_pairs, fit=fit, negatives=300))
    destination = Destination(root=tmp_path / "models", prefix="beauty", version="1")
    release = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination).release
    model = release.channels[0].model
    engine = open_item_vectors(open_bundle(destination.root / model.model / model.version), "cpu")
    users = next_items(dataset, "test", history_limit=release.history_limit)
    mixed = [user for user in users if len(engine.asking(user.context)) > 1][:10]
    answers = asked(destination.root, tmp_path / "state", model, [user.context for user in mixed], k=K)
    reached: list[float] = []
    by_average: list[float] = []
    for user, item_ids in zip(mixed, answers, strict=True):
        average_1D = average_of(engine, user.context)
        lists = (engine.items.rows_of(item_ids), engine.ann.search(average_1D, K)[1])
        for found, rows in zip((reached, by_average), lists, strict=True):
            for medoid in engine.asking(user.context).tolist():
                vector_1D = engine.ann.vectors_at(np.array([medoid]))
                nearest = set(engine.ann.search(vector_1D, K // 3)[1].tolist())
                found.append(len(nearest & set(rows.tolist())) / len(nearest))
    assert reached == [1.0] * len(reached)
    assert sum(by_average) < 0.8 * len(by_average)
