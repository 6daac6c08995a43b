"""Runs the programs of a bundle, arrays in, arrays out, by what computes them fastest on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.errors import MismatchedBundle, Unavailable
from shards.manifest import ProgramSpec
from shards.onnx_program import OnnxProgram
from shards.program import prepare_program
from shards.program_inputs import Arrays, ProgramInputs


class Runner(Protocol):
    """Runs one program; threads may share it."""

    @property
    def spec(self) -> ProgramSpec:
        """Return how the program is called."""

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs by name; `inputs` may hold more than the program takes.

        MismatchedBundle where they are not what the manifest says, Unavailable where the program fails.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedProgramRunner:
    """A loaded torch.export program, called by keyword in inference mode on one device."""

    spec: ProgramSpec
    inputs: ProgramInputs
    forward: Callable[..., Any]
    device: torch.device

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs by name."""
        tensors = {name: self._tensor(array) for name, array in self.inputs.of(inputs).items()}
        try:
            with torch.inference_mode():
                outputs = self.forward(**tensors)
        except (RuntimeError, IndexError, AssertionError) as error:
            raise _failed(self.spec.file, error) from error
        given = outputs if isinstance(outputs, tuple | list) else (outputs,)
        if len(given) != len(self.spec.outputs):
            raise _other_outputs(self.spec.file, self.spec, len(given))
        return {name: out.cpu().numpy() for name, out in zip(self.spec.outputs, given, strict=True)}

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        # Torch warns of memory that it could write to and numpy could not.
        if not (array.flags.c_contiguous and array.flags.writeable):
            array = np.require(array, requirements=["C", "W"])
        return torch.from_numpy(array).to(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRunner:
    """The same program in ONNX Runtime, on the CPU."""

    spec: ProgramSpec
    inputs: ProgramInputs
    program: OnnxProgram

    def __call__(self, inputs: Arrays, /) -> dict[str, NDArray[Any]]:
        """Return the outputs by name."""
        arrays = self.inputs.of(inputs)
        try:
            outputs = self.program({name: arrays[name] for name in self.program.inputs})
        except RuntimeError as error:
            raise _failed(self.spec.onnx_file, error) from error
        return dict(zip(self.spec.outputs, outputs, strict=True))


def open_runner(bundle: Bundle, program: str, device: str) -> Runner:
    """Load a program of the bundle onto `device`, "cpu" or "cuda:0".

    MismatchedBundle names a file that cannot be loaded here; Unavailable says that there is no such device,
    or that the process which reads programs fails.
    """
    spec = bundle.program(program)
    target = _usable(device)
    bundle.rest()
    by_onnx = spec.onnx_file and target.type == "cpu"
    runner = _onnx(bundle, spec) if by_onnx else _exported(bundle, spec, target)
    bundle.rest()
    return runner


def _onnx(bundle: Bundle, spec: ProgramSpec) -> OnnxRunner:
    try:
        # As many threads as the shard gives to torch.
        program = OnnxProgram(bundle.file(spec.onnx_file), threads=torch.get_num_threads())
    except ValueError as error:
        raise MismatchedBundle(
            spec.onnx_file, f"is not a program that ONNX Runtime can load: {error}"
        ) from error
    if unknown := sorted(set(program.inputs) - {tensor.name for tensor in spec.inputs}):
        raise MismatchedBundle(spec.onnx_file, f"takes {unknown[0]!r}, which the manifest does not name")
    if len(program.outputs) != len(spec.outputs):
        raise _other_outputs(spec.onnx_file, spec, len(program.outputs))
    return OnnxRunner(spec=spec, inputs=ProgramInputs(spec), program=program)


def _exported(bundle: Bundle, spec: ProgramSpec, target: torch.device) -> ExportedProgramRunner:
    read_program = bundle.read_program or prepare_program
    try:
        prepared = read_program(bundle.file(spec.file), str(target))
    except ValueError as error:
        raise MismatchedBundle(spec.file, f"is not a program that torch can load: {error}") from error
    forward = prepared.bind(target)
    return ExportedProgramRunner(spec=spec, inputs=ProgramInputs(spec), forward=forward, device=target)


def _failed(file: str, error: BaseException) -> Unavailable:
    return Unavailable(f"program {file} failed: {str(error).partition(chr(10))[0]}")


def _other_outputs(file: str, spec: ProgramSpec, count: int) -> MismatchedBundle:
    return MismatchedBundle(file, f"gives {count} outputs, not {', '.join(spec.outputs)}")


def _usable(device: str) -> torch.device:
    target = torch.device(device)
    try:
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise Unavailable(f"device {device!r} cannot be used here: {error}") from error
    return target
