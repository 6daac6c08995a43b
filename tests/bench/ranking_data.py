"""What `make bench-ranking` ranks: one split of candidates with their features, for our models and for peers.

Rankers learn from the queries between the early moment and the test, and are judged on those of the test, all
with candidates and statistics of a release that is refreshed as the recipe says: see `training.pipeline`.

Legend: Q = requests, C = candidates.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from deploy.training import opens
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset, timestamps_ms
from training.embedding import Embedding
from training.features import fit_spec, model_inputs
from training.judgements import Judgements, encoded, fitting_data
from training.learning import judgements_of, trained_embedding
from training.models.fields import ModelInputs
from training.models.three_tower import ThreeTower
from training.ranking import RankingSet, ndcg_at_10, predict, train_ranker
from training.recipe import Recipe
from training.release_writing import write_channels
from training.run import Run
from training.snapshot import Requests, Snapshot
from training.task_labels import task_labels
from training.task_losses import FittedTasks, fitted_tasks

HELD_OUT = 2000
"""Queries by whose recall the two-tower model stops."""
_SEED = 0
"""Of what finds and pre-ranks candidates; the rankers that are compared have seeds of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingData:
    """The candidates of the requests to train on, to stop and tune by, and to be judged on."""

    train: RankingSet
    held_out: RankingSet
    test: RankingSet
    inputs: ModelInputs
    tasks: FittedTasks


def ranking_data(
    recipe: Recipe, dataset: Dataset, folder: Path, *, queries: int = 0, tested: int = 0
) -> RankingData:
    """Return the data of a recipe, from the newest `queries` before the test and `tested` of it; 0: all.

    Those tested are at most so many, evenly spread over its time.
    """
    if queries:
        recipe = replace(recipe, ranking_queries=queries)
    run = Run(recipe=recipe, dataset=dataset, seed=_SEED, gate=partial(opens, recipe.gate))
    test_ms = known_until_ms(dataset)
    end_ms = int(timestamps_ms(dataset.queries).max()) + 1
    early = run.snapshot(run.early_ms(test_ms))
    learnt = run.requests_between(early.now_ms, test_ms, newest=recipe.ranking_queries)
    asked = run.requests_between(test_ms, end_ms, newest=end_ms)
    tokenizer = run.tokenizer(early)
    embedding = trained_embedding(
        run, early, tokenizer, run.requests_until(early.now_ms), held_out=learnt[:HELD_OUT]
    )
    judged = _judgements(run, early, tokenizer, embedding, learnt, folder / "early")
    late = run.snapshot(test_ms)
    embedding = trained_embedding(run, late, tokenizer, run.requests_until(test_ms), early=embedding)
    asked = asked[:: -(-len(asked) // tested)] if tested else asked
    judged_late = _judgements(run, late, tokenizer, embedding, asked, folder / "late")
    labels = task_labels(dataset, asked, recipe.tasks, until_ms=end_ms)
    return _sets(run, early, tokenizer, judged, replace(judged_late, labels=labels))


def _judgements(
    run: Run,
    known: Snapshot,
    tokenizer: Tokenizer,
    embedding: Embedding | None,
    requests: Requests,
    root: Path,
) -> Judgements:
    """Return the requests with what channels find that learnt from what was known before them."""
    root.mkdir()
    destination = Destination(root=root, prefix=run.recipe.surface, version="bench")
    write_channels(run, known, tokenizer, embedding, requests, destination)
    return judgements_of(run, known, requests, destination)[0]


def _sets(
    run: Run, early: Snapshot, tokenizer: Tokenizer, judged: Judgements, tested: Judgements
) -> RankingData:
    """Return what a pre-ranker passes on of all, where the recipe has one."""
    recipe = run.recipe
    items = ForwardIndex(early.items)
    cut = int(len(judged) * (1 - recipe.holdout))
    train = judged[:cut]
    spec = fit_spec(recipe.features.ranking, fitting_data(items, train))
    inputs = model_inputs(spec, tokenizer, len(items))
    parts = [encoded(spec, tokenizer, items, part) for part in (train, judged[cut:], tested)]
    tasks = fitted_tasks(recipe.tasks, parts[0].label_QCT, parts[0].weight_QCT, at_rate=recipe.start_at_rate)
    assert recipe.ranker is not None, "there is a ranker to compare"
    if recipe.pre_ranker:
        parts = _pre_ranked(run, inputs, tasks, parts, recipe.ranker.candidates)
    examples, held_out, test = parts
    return RankingData(train=examples, held_out=held_out, test=test, inputs=inputs, tasks=tasks)


def _pre_ranked(
    run: Run, inputs: ModelInputs, tasks: FittedTasks, parts: list[RankingSet], keep: int
) -> list[RankingSet]:
    assert run.recipe.pre_ranker is not None
    examples, held_out, _ = parts
    generator = run.seeded().apply()
    model = ThreeTower(run.recipe.pre_ranker.model, inputs)
    train_ranker(
        "pre_ranker",
        model,
        run.recipe.pre_ranker.training,
        examples,
        tasks,
        generator,
        evaluate=lambda: ndcg_at_10(predict(model, held_out)[..., 0], held_out),
    )
    with torch.inference_mode():
        return [part.best(predict(model, part)[..., 0], keep) for part in parts]
