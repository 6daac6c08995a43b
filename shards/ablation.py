"""What each feature contributes to a score: the score, less that with the feature at its neutral value.

Neutral is, of a candidate's numbers and vectors, the mean over the candidates; of the request's numbers, 0,
which scaling makes the mean of training; of ids, 0, which stands for a missing value.
Legend: C = candidates, E = explained ones, the first of them, V = variants, K = cross features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Floats
from shards.errors import DeadlineExceeded

Arrays = Mapping[str, NDArray[Any]]
Score = Callable[[dict[str, NDArray[Any]]], Floats]
"""Gives one score for each candidate of a program's inputs."""

CROSS = "cross"
"""The input whose columns are features of their own."""

MOST_EXPLAINED = 50
_MOST_ROWS = 512
"""Rows that one run of the program scores at most, so that a call that is given up ends soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Inputs of a scorer: of the request [1, …] and of the candidates [C, …]."""

    request: Arrays
    candidates: Arrays
    cross_names: Sequence[str]


def contributions(
    inputs: Inputs, count: int, score: Score, *, wanted: Callable[[], bool]
) -> tuple[Floats, dict[str, Floats]]:
    """Return the scores of the first `count` candidates [E], and each feature's contribution to them [E].

    Raises DeadlineExceeded between two runs where the answer is no longer `wanted`.
    """
    explained = {name: values_C[:count] for name, values_C in inputs.candidates.items()}
    found: dict[str, Floats] = {}
    score_E = score({**inputs.request, **explained})

    def check() -> None:
        if not wanted():
            raise DeadlineExceeded("nobody waits for the explanation any more")

    left, together = _variants(inputs, explained), max(1, _MOST_ROWS // len(score_E))
    while variants := list(islice(left, together)):
        check()
        stacked = {name: np.concatenate([v[name] for _, v in variants]) for name in explained}
        without_VE = score({**inputs.request, **stacked}).reshape(len(variants), -1)
        found |= {name: score_E - lost_E for (name, _), lost_E in zip(variants, without_VE, strict=True)}
    for name, value in inputs.request.items():
        check()
        found[name] = score_E - score({**inputs.request, name: np.zeros_like(value), **explained})
    return score_E, {
        name: np.where(np.isfinite(v), v, np.nan).astype(np.float32) for name, v in found.items()
    }


def _variants(inputs: Inputs, explained: Arrays) -> Iterator[tuple[str, Arrays]]:
    """Yield each feature of the candidates, and their inputs [E, …] without it."""
    for name, value_E in explained.items():
        neutral = _neutral(inputs.candidates[name])
        if name == CROSS:
            for k, feature in enumerate(inputs.cross_names):
                without_EK = value_E.copy()
                without_EK[:, k] = neutral[k]
                yield feature, {**explained, name: without_EK}
        else:
            yield name, {**explained, name: np.broadcast_to(neutral, value_E.shape).astype(value_E.dtype)}


def _neutral(value_C: NDArray[Any]) -> NDArray[Any]:
    if np.issubdtype(value_C.dtype, np.floating):
        return np.asarray(value_C.mean(axis=0))
    return np.zeros(value_C.shape[1:], value_C.dtype)
