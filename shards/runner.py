"""Runs the torch.export programs of a bundle: arrays in, arrays out."""

import functools
import linecache
import operator
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass

from shards.bundle import Bundle
from shards.errors import MismatchedBundle, Unavailable
from shards.manifest import ProgramSpec, TensorSpec

Arrays = Mapping[str, NDArray[Any]]

_READING = threading.Lock()
"""Torch reads one program at a time: its deserialiser is a global."""


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
        if array.dtype.name != tensor.dtype or not _fits(array.shape, tensor.shape):
            raise MismatchedBundle(
                self.spec.file,
                f"takes {tensor.name!r} as {tensor.dtype} {tensor.shape}, not {array.dtype} {array.shape}",
            )
        # Torch warns of memory that it could write to and numpy could not.
        writable = np.require(array, requirements=["C", "W"])
        return torch.from_numpy(writable).to(self.device)


def open_runner(bundle: Bundle, program: str, device: str) -> ExportedProgramRunner:
    """Load a program of the bundle onto `device`, "cpu" or "cuda:0".

    MismatchedBundle names a file that this torch cannot load; Unavailable says that there is no such device.
    """
    spec = bundle.program(program)
    try:
        with _READING:
            exported = torch.export.load(bundle.file(spec.file))
    except Exception as error:  # Torch raises whatever its readers met.
        raise MismatchedBundle(spec.file, f"is not a program that torch can load: {error}") from error
    target = torch.device(device)
    if target.type != "cpu":
        exported = _moved(exported, target)
    forward = _forward(exported.module())
    _forget_sources()
    return ExportedProgramRunner(spec=spec, forward=forward, device=target)


def _forward(module: torch.fx.GraphModule) -> Callable[..., Any]:
    """Return the program's generated code, bound to nothing but the weights and parts that it names.

    A graph and its module are rings of thousands of objects, each a class of its own, which only the garbage
    collector can free, and which it must look through again and again while they live. Neither is needed to
    compute. The code checks its inputs itself, and `ExportedProgramRunner` what the manifest says of them.
    """
    bound = types.SimpleNamespace()
    for name in ("_in_spec", "_out_spec"):
        if hasattr(module, name):
            setattr(bound, name, getattr(module, name))
    for node in module.graph.nodes:
        if node.op in ("get_attr", "call_module"):
            *parents, leaf = str(node.target).split(".")
            holder: Any = bound
            for parent in parents:
                holder.__dict__.setdefault(parent, types.SimpleNamespace())
                holder = getattr(holder, parent)
            part = operator.attrgetter(str(node.target))(module)
            setattr(holder, leaf, _forward(part) if isinstance(part, torch.fx.GraphModule) else part)
    return functools.partial(type(module).forward, bound)


def _forget_sources() -> None:
    """Drop the texts of generated code, which torch keeps for tracebacks of every program ever loaded."""
    for name in [name for name in linecache.cache if name.startswith("<eval_with_key>")]:
        linecache.cache.pop(name, None)
    loader = getattr(torch.fx.graph_module, "_loader", None)
    if loader is not None:
        loader.eval_cache.clear()


def _moved(exported: torch.export.ExportedProgram, target: torch.device) -> torch.export.ExportedProgram:
    try:
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise Unavailable(f"device {str(target)!r} cannot be used here: {error}") from error
    return move_to_device_pass(exported, target)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, size) for size, wanted in zip(shape, expected, strict=True)
    )
