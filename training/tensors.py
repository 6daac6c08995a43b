"""Encoded features as tensors, and rows of them."""

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Tensors = dict[str, Tensor]


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the arrays as tensors that share their memory."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def rows_of(tensors: Mapping[str, Tensor], rows: Tensor) -> Tensors:
    """Return the given rows of every tensor."""
    return {name: tensor[rows] for name, tensor in tensors.items()}
