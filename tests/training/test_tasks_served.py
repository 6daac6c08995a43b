"""Tasks of every kind trained on real data, exported, and asked of a real shard."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from shards.bundle import read_manifest
from shards.candidates import Candidates
from shards.release import Release
from tests.training.grocer_slice import grocer
from tests.training.shard_answers import ranked
from training.channels import Destination
from training.datasets import movielens_small
from training.datasets.tables import Dataset
from training.evaluation.offline import open_cascade
from training.evaluation.tasks import Predicted, held_out, predicted
from training.pipeline import train
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run import Run
from training.tasks import Task
from training.trainer import FitConfig

pytestmark = pytest.mark.data

_LEFT_OUT = ("trend", "brand", "maker")
"""What features of channels that a quick recipe has not begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A release trained on a slice, and what its ranker says of the test's requests."""

    dataset: Dataset
    recipe: Recipe
    release: Release
    models_dir: Path
    found: dict[str, Predicted]


def served(recipe: Recipe, dataset: Dataset, models_dir: Path, *, requests: int) -> Served:
    run = Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True)
    release = train(run, Destination(root=models_dir, prefix=recipe.name, version="1")).release
    asked = held_out(dataset, "test", limit=requests, history_limit=release.history_limit)
    found = predicted(open_cascade(release, models_dir), dataset, asked, recipe.tasks)
    return Served(dataset=dataset, recipe=recipe, release=release, models_dir=models_dir, found=found)


def quick(name: str, tasks: tuple[Task, ...], *, queries: int, members: int) -> Recipe:
    """Return a recipe that trains for seconds on the newest queries."""
    recipe = RECIPES[name]
    assert recipe.ranker is not None
    return replace(
        recipe,
        tasks=tasks,
        channels=tuple(c for c in recipe.channels if c.source in ("popular", "own", "item_cf")),
        features=replace(
            recipe.features,
            ranking=tuple(f for f in recipe.features.ranking if not f.name.startswith(_LEFT_OUT)),
        ),
        ranker=replace(
            recipe.ranker,
            model=replace(
                recipe.ranker.model,
                tasks=tuple(t.name for t in tasks),
                wide_tasks=tuple(t.name for t in tasks if t.name in recipe.ranker.model.wide_tasks),
                members=members,
                width=8,
                dropout=0.0,
            ),
            training=replace(
                recipe.ranker.training, fit=FitConfig(epochs=5, batch_size=64, learning_rate=5e-3, patience=5)
            ),
        ),
        ranking_queries=queries,
    )


def data_dir() -> Path:
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    return Path(folder)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Served:
    recipe = RECIPES["movielens_small"]
    small = quick("movielens_small", recipe.tasks, queries=1500, members=3)
    return served(small, movielens_small.load(data_dir()), tmp_path_factory.mktemp("films"), requests=500)


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Served:
    by_name = {task.name: task for task in RECIPES["completejourney"].tasks}
    plain = Task(name="amount_regressed", kind="regression", value="amount")
    recipe = quick(
        "completejourney", (by_name["purchase"], by_name["amount"], plain), queries=2000, members=1
    )
    return served(recipe, grocer(800), tmp_path_factory.mktemp("trips"), requests=500)


def test_a_shard_answers_with_every_task_as_evaluated(films: Served, tmp_path: Path) -> None:
    assert films.release.ranker is not None
    model = films.release.ranker.model
    asked = held_out(films.dataset, "test", limit=5, history_limit=200)
    candidates = Candidates(item_ids=("318", "356", "2571", "nowhere"))

    answers = ranked(films.models_dir, tmp_path, model, asked.contexts, candidates)
    cascade = open_cascade(films.release, films.models_dir)
    assert cascade.ranker is not None
    for answer, context in zip(answers, asked.contexts, strict=True):
        expected = cascade.ranker.score(context, candidates, 0, {}, (), 0)
        assert answer.item_ids == expected.item_ids
        assert set(answer.columns) == {"score", "rate", "like", "rating", "completion"}
        for name, column in expected.columns.items():
            np.testing.assert_allclose(answer.columns[name], column, rtol=1e-4)


def test_probabilities_are_calibrated_after_down_sampling(trips: Served) -> None:
    found, task = trips.found["purchase"], trips.recipe.tasks[0]
    p = found.prediction_N
    observed = found.label_N.mean()
    # The odds before the exact correction are 1 / negatives as high.
    uncorrected = p / (p + task.negatives * (1 - p))
    assert abs(p.mean() - observed) < 0.01
    assert abs(p.mean() - observed) < 0.4 * abs(uncorrected.mean() - observed)


def test_watch_time_errs_less_than_a_regression_and_than_the_mean(trips: Served) -> None:
    amount, plain = trips.found["amount"], trips.found["amount_regressed"]
    error = np.abs(amount.prediction_N - amount.label_N).mean()
    assert error < np.abs(plain.prediction_N - plain.label_N).mean()
    assert error < np.abs(amount.label_N - amount.label_N.mean()).mean()


def test_completion_over_f_does_not_go_by_length(films: Served) -> None:
    assert films.release.ranker is not None
    model = films.release.ranker.model
    manifest = read_manifest(films.models_dir / model.model / model.version)
    adjustment = manifest.params["length_adjustments"]["completion"]
    years = dict(
        zip(*(films.dataset.items.column(n).to_pylist() for n in ("item_id", "release_year")), strict=True)
    )
    found = films.found["completion"]
    known = [row for row, item_id in enumerate(found.item_ids) if years[item_id] is not None]
    year_N = np.array([years[found.item_ids[row]] for row in known], np.float64)
    served_N = found.prediction_N[known]
    f_N = np.interp(year_N, adjustment["lengths"], adjustment["expected"])
    before, after = (abs(np.corrcoef(year_N, values)[0, 1]) for values in (served_N * f_N, served_N))
    assert math.isfinite(before)
    assert after < before
