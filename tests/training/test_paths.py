"""Learning paths: the model against the shard's arithmetic, where items move, and what is then scored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from shards.path_index import likeliest
from tests.training.model_batches import (
    ITEMS,
    assert_every_parameter_learns,
    item_batch,
    model_inputs,
    request_batch,
)
from training.models.path_model import PathModel, PathModelConfig
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.paths import LikelyPaths, PathLearner, PathTraining, assigned, path_recall
from training.retrieval import RetrievalLoss, RetrievalSet, encoded, recall_at, train_two_tower
from training.trainer import FitConfig, Seeded
from training.two_tower_training import TwoTowerTraining

CONFIG = PathModelConfig(layers=2, nodes=4, paths=2, hidden=8)


def path_model(config: PathModelConfig = CONFIG) -> PathModel:
    torch.manual_seed(0)
    return PathModel(config, width=6, items=ITEMS, generator=torch.Generator().manual_seed(0))


def test_the_model_computes_what_a_shard_searches() -> None:
    model, vector_BD = path_model(), torch.randn(3, 6)
    path_QP, log_p_QP = likeliest(model.arrays(), vector_BD.numpy(), 16)
    with torch.no_grad():
        found = model(vector_BD, torch.tensor([4, 1, 9]))
    for query, (row, value) in enumerate(zip([4, 1, 9], found.tolist(), strict=True)):
        by_path = dict(zip(path_QP[query].tolist(), np.exp(log_p_QP[query]).tolist(), strict=True))
        expected = np.log(sum(by_path[path] for path in model.path_numbers()[row].tolist()))
        assert value == pytest.approx(expected, rel=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    model = path_model()
    model(torch.randn(8, 6), torch.arange(8)).sum().backward()
    assert_every_parameter_learns(model)


def test_items_are_put_where_they_are_told() -> None:
    model = path_model()
    path_NJ = np.random.default_rng(0).integers(0, 16, size=(ITEMS, 2))
    model.place(path_NJ)
    np.testing.assert_array_equal(model.path_numbers(), path_NJ)


def likely(*items: dict[int, float], count: int = 1) -> LikelyPaths:
    return LikelyPaths(
        starts=np.cumsum([0, *map(len, items)]),
        path_E=np.array([path for item in items for path in item]),
        score_E=np.array([score for item in items for score in item.values()]),
        count_N=np.full(len(items), count),
    )


def test_items_move_to_their_likeliest_paths_where_nothing_is_crowded() -> None:
    found = assigned(likely({1: 0.1, 5: 0.6, 7: 0.3}, {1: 0.5, 2: 0.4}), np.zeros((2, 2), np.int64), 0.0)
    assert found.tolist() == [[5, 7], [1, 2]]


def test_a_penalty_moves_items_off_a_crowded_path() -> None:
    items = [{3: 0.6, item: 0.4} for item in range(10, 20)]
    before = np.zeros((10, 1), np.int64)
    assert (assigned(likely(*items), before, 0.0) == 3).all()
    # The k-th item on a path costs p (k^4 - (k-1)^4) / 4, and gains log(.6 / .4) = .405 there over its own.
    spread = assigned(likely(*items), before, 0.05)
    assert int((spread == 3).sum()) == 2
    assert len(np.unique(spread)) == 9


def test_an_item_that_nothing_was_found_for_stays() -> None:
    found = assigned(likely({}, {4: 1.0}), np.array([[8, 9], [8, 9]]), 0.1)
    assert found.tolist() == [[8, 9], [4, 9]]


def moved_by(rank: int, folder: Path) -> None:
    """Move items as one of two workers whose vectors differ, and leave behind where they lie."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    generator = torch.Generator().manual_seed(0)
    tower = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    learner = PathLearner(PathTraining(model=CONFIG), width=16, items=ITEMS, generator=generator)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(1 + rank)
    examples = RetrievalSet(request=request_batch(12), row_Q=torch.arange(12), owner_Q=torch.full((12,), -1))
    RetrievalLoss(tower, TwoTowerTraining(), examples, item_batch(), generator, learner).batches()
    np.save(folder / f"{rank}.npy", learner.model.path_numbers())
    torch.distributed.destroy_process_group()


def test_workers_who_train_together_put_items_on_the_same_paths(tmp_path: Path) -> None:
    start_processes(moved_by, args=(tmp_path,), nprocs=2, start_method="fork")  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy"))


def test_training_puts_items_where_their_requests_look() -> None:
    generator = Seeded(seed=0).apply()
    tower = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    examples = RetrievalSet(
        request=request_batch(12), row_Q=torch.arange(12) % ITEMS, owner_Q=torch.full((12,), -1)
    )
    training = PathTraining(model=PathModelConfig(layers=2, nodes=6, paths=2), penalty=0.1, beam=3)
    learner = PathLearner(training, width=16, items=ITEMS, generator=generator)
    fit = FitConfig(epochs=60, batch_size=6, learning_rate=0.01)
    train_two_tower(
        tower, TwoTowerTraining(fit=fit, negatives=8), examples, item_batch(), generator, paths=learner
    )
    with torch.inference_mode():
        vector_QD, vector_ND = encoded(tower, examples), tower.encode_item(item_batch())
        exact = recall_at(tower, examples, item_batch(), 1)
    recall, scored = path_recall(learner.index(), vector_QD, examples.row_Q, vector_ND, beam=3, k=1)
    assert exact > 0.7
    assert recall >= 0.9 * exact, "near brute force"
    assert scored < 0.5, "with a fraction of the scoring"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: PathTraining(weight=0.0), "weight must be positive"),
        (lambda: PathTraining(looked_at=2), "looked_at must be at least the paths of an item"),
        (lambda: PathModelConfig(nodes=1), "nodes at least 2"),
        (lambda: PathModelConfig(layers=1, nodes=2, paths=3), "as many paths as an item has"),
    ],
)
def test_what_cannot_be_is_refused(make, problem: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=problem):
        make()
