"""Full and incremental updates of a two-tower model: training that goes on from where it was.

Once a day the whole model takes an epoch over the day's searches, in random order. In between, every few
minutes, only the embedding tables learn from what has come since, and the dense layers stay as they are: a
few hundred searches would pull those after themselves, while a user or an item that nobody knew yesterday has
a vector that says nothing. The next day begins with the last full model, not with what was added to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from training.models.two_tower import TwoTower
from training.retrieval import RetrievalSet, train_two_tower
from training.tensors import Tensors
from training.trainer import FitConfig, Fitted, Observer, ignore
from training.two_tower_training import TwoTowerTraining

_TABLES = "tables."
"""What the names of the parameters of embedding tables begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateTraining:
    """How a model goes on learning: `full` for all of it, `tables` for its embedding tables alone.

    The rest is as the model was trained at first. Tables learn by plain gradient descent: AdamW begins each
    update anew, and moves what was only drawn as a negative as far as what was liked.
    """

    full: FitConfig = field(
        default_factory=lambda: FitConfig(epochs=1, batch_size=256, learning_rate=1e-3, weight_decay=0.0)
    )
    tables: FitConfig = field(
        default_factory=lambda: FitConfig(
            epochs=2, batch_size=64, learning_rate=0.1, weight_decay=0.0, optimizer="sgd"
        )
    )


def go_on(
    model: TwoTower,
    training: TwoTowerTraining,
    updates: UpdateTraining,
    examples: RetrievalSet,
    item: Tensors,
    generator: torch.Generator,
    *,
    tables_only: bool,
    observe: Observer = ignore,
) -> Fitted:
    """Train the model in place on requests that it has not seen; `item` holds the whole catalogue [N, …]."""
    with _learning(model, tables_only=tables_only):
        return train_two_tower(
            model,
            replace(training, fit=updates.tables if tables_only else updates.full),
            examples,
            item,
            generator,
            observe=observe,
        )


@contextmanager
def _learning(model: TwoTower, *, tables_only: bool) -> Iterator[None]:
    """Have nothing but the tables learn meanwhile, where only those shall."""
    still = [
        parameter
        for name, parameter in model.named_parameters()
        if tables_only and parameter.requires_grad and not name.startswith(_TABLES)
    ]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
