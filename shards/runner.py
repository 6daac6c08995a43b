"""Runs the torch.export programs of a bundle: arrays in, arrays out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.errors import MismatchedBundle, Unavailable
from shards.manifest import ProgramSpec, TensorSpec
from shards.program import prepare_program

Arrays = Mapping[str, NDArray[Any]]


class Runner(Protocol):
    """Runs one program; threads may share it."""

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs by name; `inputs` may hold more than the program takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedProgramRunner:
    """A loaded torch.export program, called by keyword in inference mode on one device."""

    spec: ProgramSpec
    forward: Callable[..., Any]
    device: torch.device

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs by name.

        MismatchedBundle where the inputs are not what the manifest says, Unavailable where the program fails.
        """
        tensors = {tensor.name: self._tensor(tensor, inputs) for tensor in self.spec.inputs}
        try:
            with torch.inference_mode():
                outputs = self.forward(**tensors)
        except (RuntimeError, IndexError, AssertionError) as error:
            raise Unavailable(
                f"program {self.spec.file} failed: {str(error).partition(chr(10))[0]}"
            ) from error
        given = outputs if isinstance(outputs, tuple | list) else (outputs,)
        if len(given) != len(self.spec.outputs):
            raise MismatchedBundle(
                self.spec.file, f"gives {len(given)} outputs, not {', '.join(self.spec.outputs)}"
            )
        return {name: out.cpu().numpy() for name, out in zip(self.spec.outputs, given, strict=True)}

    def _tensor(self, tensor: TensorSpec, inputs: Arrays) -> torch.Tensor:
        array = inputs.get(tensor.name)
        if array is None:
            raise MismatchedBundle(self.spec.file, f"needs input {tensor.name!r}, which is no feature")
        if array.dtype != np.dtype(tensor.dtype) or not _fits(array.shape, tensor.shape):
            raise MismatchedBundle(
                self.spec.file,
                f"takes {tensor.name!r} as {tensor.dtype} {tensor.shape}, not {array.dtype} {array.shape}",
            )
        # Torch warns of memory that it could write to and numpy could not.
        if not (array.flags.c_contiguous and array.flags.writeable):
            array = np.require(array, requirements=["C", "W"])
        return torch.from_numpy(array).to(self.device)


def open_runner(bundle: Bundle, program: str, device: str) -> ExportedProgramRunner:
    """Load a program of the bundle onto `device`, "cpu" or "cuda:0".

    MismatchedBundle names a file that this torch cannot load; Unavailable says that there is no such device,
    or that the process which reads programs fails.
    """
    spec = bundle.program(program)
    target = _usable(device)
    read_program = bundle.read_program or prepare_program
    try:
        prepared = read_program(bundle.file(spec.file), device)
    except ValueError as error:
        raise MismatchedBundle(spec.file, f"is not a program that torch can load: {error}") from error
    return ExportedProgramRunner(spec=spec, forward=prepared.bind(target), device=target)


def _usable(device: str) -> torch.device:
    target = torch.device(device)
    try:
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise Unavailable(f"device {device!r} cannot be used here: {error}") from error
    return target


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, size) for size, wanted in zip(shape, expected, strict=True)
    )
