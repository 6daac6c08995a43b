"""What a program takes, checked against the manifest; whatever runs it sees nothing else."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import MismatchedBundle
from shards.manifest import ProgramSpec, TensorSpec

Arrays = Mapping[str, NDArray[Any]]


class ProgramInputs:
    """The inputs of one program; MismatchedBundle where the manifest names a type that arrays do not have."""

    def __init__(self, spec: ProgramSpec) -> None:
        self._file = spec.file
        self._wanted = tuple((tensor, self._dtype(tensor)) for tensor in spec.inputs)

    def of(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Return what the program takes; MismatchedBundle where that is not what the manifest says."""
        return {tensor.name: self._checked(tensor, dtype, arrays) for tensor, dtype in self._wanted}

    def _checked(self, tensor: TensorSpec, dtype: np.dtype[Any], arrays: Arrays) -> NDArray[Any]:
        array = arrays.get(tensor.name)
        if array is None:
            raise MismatchedBundle(self._file, f"needs input {tensor.name!r}, which is no feature")
        if array.dtype != dtype or not _fits(array.shape, tensor.shape):
            raise MismatchedBundle(
                self._file,
                f"takes {tensor.name!r} as {tensor.dtype} {tensor.shape}, not {array.dtype} {array.shape}",
            )
        return array

    def _dtype(self, tensor: TensorSpec) -> np.dtype[Any]:
        try:
            return np.dtype(tensor.dtype)
        except TypeError as error:
            raise MismatchedBundle(self._file, f"takes {tensor.name!r} as {tensor.dtype}: {error}") from error


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    # Most inputs are of one shape, and there are dozens of them to a search.
    return shape == expected or (
        len(shape) == len(expected)
        and all(wanted in (None, size) for size, wanted in zip(shape, expected, strict=True))
    )
