"""Encoded features as tensors, and rows of them."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

Tensors = dict[str, Tensor]


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the arrays as tensors that share their memory."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class Joined(Protocol):
    """Features that are put together when rows of them are asked for."""

    def rows(self, rows: Tensor, /) -> Tensors:
        """Return the given rows of every feature."""


RowSource = Mapping[str, Tensor] | Joined
"""Where the features of a batch come from: whole tensors, or parts that are joined."""


def rows_of(source: RowSource, rows: Tensor) -> Tensors:
    """Return the given rows of every tensor."""
    if isinstance(source, Mapping):
        return {name: tensor[rows] for name, tensor in source.items()}
    return source.rows(rows)
