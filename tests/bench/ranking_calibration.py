"""Whether probabilities are right after the down-sampling of negatives, for `make bench-ranking`.

What is predicted is compared with what happened within one period: requests before the test are dealt at
random into folds, and each is judged by a model that learned from three others and was calibrated by one
more. So each request is judged once by what has not seen it, and no drift comes in.

Legend: Q = requests, C = candidates, F = requests of a fold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.bench.ranking_data import RankingData
from tests.bench.ranking_models import Compared
from tests.bench.ranking_runs import calibrated, figures_of
from training.models.task_links import TaskLinks
from training.ranking import RankingSet

_FOLDS = 5
WAYS = ("uncorrected", "exact", "calibrated")
"""As trained; with the shift that undoes down-sampling, as exported; calibrated besides, as recipes do it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """How many candidates of each request were taken [Q], and should be by each way of correcting [Q]."""

    taken: NDArray[np.float64]
    predicted: dict[str, NDArray[np.float64]]
    ece: float
    """Of the calibrated ones, over bins of equally many."""

    def ratio(self, way: str) -> float:
        """Return predicted over taken."""
        return float(self.predicted[way].sum() / self.taken.sum())

    @property
    def standard_error(self) -> float:
        """Return how far chance moves the ratio: requests are independent, candidates of one are not."""
        error_Q = self.predicted["calibrated"] - self.taken
        return float(np.sqrt(np.square(error_Q).sum()) / self.taken.sum())


def calibration_of(model: Compared, data: RankingData, seed: int = 0) -> dict[str, Any]:
    """Return predicted over taken of all folds together by each way, and of single folds.

    A fold's ratio strays as its sample and that which calibrated it do; over all folds that cancels, as each
    is judged and calibrates once, and what is left is the model's fault.
    """
    folds = list(_folds(model, data, seed))
    taken = sum(float(fold.taken.sum()) for fold in folds)
    return {
        "requests": len(data.train),
        "taken": taken,
        **{way: round(sum(float(f.predicted[way].sum()) for f in folds) / taken, 5) for way in WAYS},
        "single_folds": [round(fold.ratio("calibrated"), 4) for fold in folds],
        "standard_error_of_one": round(float(np.mean([fold.standard_error for fold in folds])), 5),
        "ece": round(float(np.mean([fold.ece for fold in folds])), 6),
    }


def _folds(model: Compared, data: RankingData, seed: int) -> Iterator[Fold]:
    """Yield each fold, judged by what learned from the others."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randperm(len(data.train), generator=generator).chunk(_FOLDS)
    every = data.tasks.links()
    first = every.kinds[:1], every.scale_T[:1].tolist()
    exact = TaskLinks(*first, every.shift_T[:1].tolist())
    trained = TaskLinks(*first, data.tasks.offsets[:1])
    for k, asked_F in enumerate(parts):
        test, held_out = data.train[asked_F], data.train[parts[(k + 1) % _FOLDS]]
        learned_F = torch.cat(
            [part for other, part in enumerate(parts) if other not in (k, (k + 1) % _FOLDS)]
        )
        score = model.fit(replace(data, train=data.train[learned_F], held_out=held_out, test=test), seed)
        raw_QC, held_out_QC = (torch.from_numpy(score(part)).float() for part in (test, held_out))
        by_way = {
            "uncorrected": trained(raw_QC.unsqueeze(-1)).squeeze(-1),
            "exact": exact(raw_QC.unsqueeze(-1)).squeeze(-1),
            "calibrated": calibrated(held_out_QC, held_out, exact)(raw_QC),
        }
        yield Fold(
            taken=_sums(test.label_QCT[..., 0] > 0, test),
            predicted={way: _sums(found_QC, test) for way, found_QC in by_way.items()},
            ece=figures_of(by_way["calibrated"], test).ece,
        )


def _sums(value_QC: Tensor, examples: RankingSet) -> NDArray[np.float64]:
    """Return the sum over the candidates of each request [Q]."""
    return (value_QC * examples.present_QC).double().sum(dim=1).numpy()
