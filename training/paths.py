"""Trains the paths of Deep Retrieval beside a two-tower model: on which paths items lie, and who goes there.

Gao et al., "Deep Retrieval" (arXiv 2007.07203, section 3), by expectation maximisation: items move to the
paths that their requests find likeliest, by coordinate descent under a penalty on crowded paths (algorithm
2); then follows an epoch of gradient steps on -log p(paths of the item | request), and so on. The first time
they move by an untrained model, which puts together what resembles each other. The towers learn
at the same time, from their own softmax and from the paths; they re-score what is found.

Legend: Q = requests, D = width of a vector, N = items, J = paths of an item, P = paths looked at for a
request, C = paths, E = pairs of an item and a path that its requests find likely.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.path_index import PathIndex, likeliest
from training.models.path_model import PathModel, PathModelConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_TOGETHER = 1024
"""Requests whose paths are looked for at once."""
_LEAST_LOG_P = -60.0
"""What no path is less likely than, so that every one has a logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTraining:
    """How to train paths."""

    model: PathModelConfig = field(default_factory=PathModelConfig)
    weight: float = 1.0
    """What the paths' loss counts beside that of the towers."""
    penalty: float = 1e-3
    """What a path of n items costs: penalty * n ** 4 / 4."""
    looked_at: int = 16
    """Likely paths of a request that its item may move to."""
    beam: int = 32
    """Paths that a search follows."""

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.penalty < 0:
            raise ValueError("weight must be positive and penalty must not be negative")
        if self.looked_at < self.model.paths or self.beam < 1:
            raise ValueError("looked_at must be at least the paths of an item, and beam at least 1")


class PathLearner:
    """The paths of a catalogue while they are learned."""

    def __init__(self, training: PathTraining, *, width: int, items: int, generator: torch.Generator) -> None:
        self.training = training
        self.model = PathModel(training.model, width=width, items=items, generator=generator)

    def loss(self, vector_BD: Tensor, row_B: Tensor) -> Tensor:
        """Return the weighted mean of -log p(paths of the item | query)."""
        log_p_B: Tensor = self.model(vector_BD, row_B)
        return -self.training.weight * log_p_B.mean()

    def move(self, vector_QD: Tensor, row_Q: Tensor, vector_ND: Tensor) -> None:
        """Move items to where their requests find them; one that was never taken goes by its own vector."""
        never_X = torch.from_numpy(np.setdiff1d(np.arange(len(vector_ND)), row_Q.numpy()))
        likely = likely_paths(
            self.model,
            torch.cat([vector_QD, vector_ND[never_X]]).numpy(),
            torch.cat([row_Q, never_X]).numpy(),
            self.training.looked_at,
        )
        self.model.place(assigned(likely, self.model.path_numbers(), self.training.penalty))

    def index(self) -> PathIndex:
        """Return what searches the paths as they are now."""
        return PathIndex.of(self.model.arrays(), self.model.path_numbers())


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelyPaths:
    """Paths that requests of items find likely: item i has those from starts[i] to starts[i + 1].

    `score_E` is the sum of their probabilities over the item's requests, of which there are count_N.
    """

    starts: Ints
    path_E: Ints
    score_E: Floats
    count_N: Ints


def likely_paths(
    model: PathModel, vector_QD: NDArray[np.float32], row_Q: Ints, looked_at: int
) -> LikelyPaths:
    """Return what the requests of each item find likely, by the layers as they are."""
    layers, items = model.arrays(), len(model.node_NJL)
    found = [
        likeliest(layers, vector_QD[first : first + _TOGETHER], looked_at)
        for first in range(0, len(vector_QD), _TOGETHER)
    ]
    path_QP, log_p_QP = (np.concatenate(parts) for parts in zip(*found, strict=True))
    pair_E, back = np.unique(
        np.stack([np.repeat(row_Q, path_QP.shape[1]), path_QP.ravel()], axis=1), axis=0, return_inverse=True
    )
    p_E = np.exp(np.maximum(log_p_QP.ravel(), _LEAST_LOG_P).astype(np.float64))
    return LikelyPaths(
        starts=np.searchsorted(pair_E[:, 0], np.arange(items + 1)),
        path_E=pair_E[:, 1],
        score_E=np.bincount(back.ravel(), weights=p_E).astype(np.float64),
        count_N=np.bincount(row_Q, minlength=items),
    )


def assigned(likely: LikelyPaths, before_NJ: Ints, penalty: float) -> Ints:
    """Return the paths [N, J] of items by coordinate descent (algorithm 2): one item after the other, each
    path in turn the one that gains most likelihood for what it makes a crowded path cost more.

    An item with too few likely paths stays on what it has of the rest.
    """
    path_C, at = np.unique(np.concatenate([before_NJ.ravel(), likely.path_E]), return_inverse=True)
    before_at, likely_at = at[: before_NJ.size].reshape(before_NJ.shape), at[before_NJ.size :]
    size_C = np.bincount(before_at.ravel(), minlength=len(path_C)).astype(np.float64)
    after_at = before_at.copy()
    for item, (first, last) in enumerate(zip(likely.starts[:-1], likely.starts[1:], strict=True)):
        at_E, score_E = likely_at[first:last], likely.score_E[first:last]
        free_E, total = np.ones(last - first, np.bool_), 0.0
        for place in range(min(before_NJ.shape[1], last - first)):
            size_C[before_at[item, place]] -= 1
            size_E = size_C[at_E]
            gain_E = likely.count_N[item] * np.log((score_E + total) / (total or 1.0))
            cost_E = penalty * ((size_E + 1) ** 4 - size_E**4) / 4
            best = int(np.where(free_E, gain_E - cost_E, -np.inf).argmax())
            free_E[best] = False
            total += score_E[best]
            size_C[at_E[best]] += 1
            after_at[item, place] = at_E[best]
    return path_C[after_at]


def path_recall(
    index: PathIndex, vector_QD: Tensor, row_Q: Tensor, vector_ND: Tensor, *, beam: int, k: int
) -> tuple[float, float]:
    """Return the share of requests whose item is among the k best of those on its paths, and the mean share
    of the catalogue that was scored for it.
    """
    found, scored = 0, 0
    for vector_D, row in zip(vector_QD, row_Q.tolist(), strict=True):
        rows = index.reached(vector_D.numpy()[np.newaxis], beam)
        scored += len(rows)
        if row in rows:
            score_M = vector_ND[torch.from_numpy(rows)] @ vector_D
            found += int((score_M > vector_ND[row] @ vector_D).sum()) < k
    count = max(len(row_Q), 1)
    return found / count, scored / count / len(vector_ND)
