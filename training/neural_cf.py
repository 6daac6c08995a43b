"""Trains neural collaborative filtering, and precomputes what each user is recommended.

Log loss with a few uniform negatives for each positive. Positives are events of some actions only, which is
where a threshold on watch time goes: a data set with ratings names its actions by them. The item that is to
be predicted is taken out of its user's row first. What is left is a table from users to their best items,
which the engine "table" serves: no search runs the model.

Legend: U = users, N = items, B = positives of a batch, X = 1 + negatives, R = rows, E = entries.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from shards.grouped_rows import entries_of
from training.checkpoints import Checkpoints
from training.keyed_table import Best, best_of, keyed_table
from training.models.neural_cf import NeuralCF, NeuralCFConfig, Rows
from training.sparse_rows import Ints, SparseRows, sparse_rows
from training.trainer import FitConfig, Observer, Seeded, fit, ignore, shuffled_batches

_TOGETHER = 256
"""Users who are scored at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralCFTraining:
    """How to train the towers."""

    model: NeuralCFConfig = field(default_factory=NeuralCFConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    negatives: int = 4
    """Items drawn for each positive."""
    neighbours: int = 100
    """Items that an item's row keeps: those that most of its users take, too."""

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.neighbours < 1:
            raise ValueError("negatives and neighbours must be at least 1")


def neural_cf(
    training: NeuralCFTraining,
    items: pa.Table,
    user_ids: list[str],
    like_UN: SparseRows,
    met_UN: SparseRows,
    *,
    top: int,
    seeded: Seeded,
    observe: Observer = ignore,
    checkpoints: Checkpoints | None = None,
) -> pa.Table:
    """Return each user's best `top` items of those that they have not met, by probability."""
    generator = seeded.apply()
    model = NeuralCF(training.model, len(items))
    learner = _Learner(model, training, like_UN, met_UN, generator)
    fit(
        "neural_cf",
        model,
        training.fit,
        batches=lambda: shuffled_batches(len(learner.item_P), training.fit.batch_size, generator),
        loss=learner.loss,
        observe=observe,
        checkpoint=(checkpoints or Checkpoints()).next("neural_cf", generator),
    )
    return keyed_table(items, dict(zip(user_ids, learner.best(top), strict=True)))


def together(like_UN: SparseRows, keep: int) -> SparseRows:
    """Return for each item the `keep` items that most of its users like, too [N, N]: the item-item row.

    A value is log(1 + users who like both).
    """
    liked_by = like_UN.transposed()
    rows, columns, values = [], [], []
    for item in range(like_UN.width):
        users, _ = liked_by.row(item)
        count_N = like_UN.weighted_sum(users, np.ones(len(users)))
        count_N[item] = 0.0
        near, count = best_of(count_N, keep)
        rows.append(np.full(len(near), item))
        columns.append(near)
        values.append(np.log1p(count))
    return sparse_rows(
        np.concatenate(rows),
        np.concatenate(columns),
        np.concatenate(values),
        rows=like_UN.width,
        width=like_UN.width,
    )


class _Learner:
    """The loss of a batch of positives, and the answers afterwards."""

    def __init__(
        self,
        model: NeuralCF,
        training: NeuralCFTraining,
        like_UN: SparseRows,
        met_UN: SparseRows,
        generator: torch.Generator,
    ) -> None:
        self.model, self.training, self.generator = model, training, generator
        self.like_UN, self.met_UN = like_UN, met_UN
        self.item_NN = together(like_UN, training.neighbours)
        self.user_P, self.item_P = like_UN.entry_rows, like_UN.column_E

    def loss(self, batch_B: Tensor) -> Tensor:
        """Return the mean log loss of positives and of items that their users never met."""
        at_B = batch_B.numpy()
        user_B, taken_B = self.user_P[at_B], torch.from_numpy(self.item_P[at_B])
        shape = (len(at_B), self.training.negatives)
        drawn_BX = torch.randint(self.like_UN.width, shape, generator=self.generator)
        item_BX = torch.cat([taken_B.unsqueeze(1), drawn_BX], dim=1)
        counts_BX = self._unmet(user_B, drawn_BX)
        row_M, back_BX = torch.unique(item_BX, return_inverse=True)
        item_MD = self.model.item_tower(_rows(self.item_NN, row_M.numpy()))
        user_BD = self.model.user_tower(_rows(self.like_UN, user_B, without=taken_B.numpy()))
        logit_BX = self.model(user_BD, item_MD[back_BX])
        label_BX = torch.zeros_like(logit_BX)
        label_BX[:, 0] = 1.0
        loss_BX = F.binary_cross_entropy_with_logits(logit_BX, label_BX, reduction="none")
        return (loss_BX * counts_BX).sum() / counts_BX.sum()

    def _unmet(self, user_B: Ints, drawn_BX: Tensor) -> Tensor:
        """Return 1 for the positive and for each drawn item that the user never met, else 0 [B, X]."""
        met_BN = self.met_UN.dense(user_B) > 0
        unmet_BX = ~np.take_along_axis(met_BN, drawn_BX.numpy(), axis=1)
        return F.pad(torch.from_numpy(unmet_BX).float(), (1, 0), value=1.0)

    @torch.inference_mode()
    def best(self, top: int) -> list[Best]:
        """Return the best unmet items of each user, by probability."""
        item_ND = self.model.item_tower(_rows(self.item_NN, np.arange(self.like_UN.width)))
        found: list[Best] = []
        for first in range(0, len(self.like_UN), _TOGETHER):
            users = np.arange(first, min(first + _TOGETHER, len(self.like_UN)))
            user_RD = self.model.user_tower(_rows(self.like_UN, users))
            p_RN = torch.sigmoid(self.model.score_all(user_RD, item_ND).double()).numpy()
            p_RN[self.met_UN.dense(users) > 0] = 0.0
            found += [best_of(p_N, top) for p_N in p_RN]
        return found


def _rows(matrix: SparseRows, rows: Ints, without: Ints | None = None) -> Rows:
    """Return rows of a matrix over the root of their length, each without one of its columns if given."""
    at, counts = entries_of(matrix.starts, rows)
    value_E = matrix.value_E[at] / np.sqrt(np.repeat(np.maximum(counts, 1), counts))
    if without is not None:
        value_E = np.where(matrix.column_E[at] == np.repeat(without, counts), 0.0, value_E)
    return Rows(
        starts_R=torch.from_numpy(np.cumsum(counts) - counts),
        item_E=torch.from_numpy(matrix.column_E[at]),
        value_E=torch.from_numpy(value_E.astype(np.float32)),
    )
