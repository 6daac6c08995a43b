"""Programs for ONNX Runtime, written into a bundle where they are what computes faster on a CPU.

Legend: R = rows of the inputs that vary.
"""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from shards.onnx_program import OnnxProgram
from training.tensors import Tensors

_ROWS = 200
"""Rows that both are timed with: about what a stage is asked."""
_GAIN = 0.9
"""Where it takes more than this share of torch's time, one form of the program is enough."""
_RUNS = 30
_MOST_BYTES = 1 << 30
"""Protobuf, which the file is, ends at twice as much."""


def faster_onnx(
    exported: torch.export.ExportedProgram, example: Tensors, varying: Sequence[str]
) -> bytes | None:
    """Return the program for ONNX Runtime; None where torch computes it as fast, or where it is too large."""
    if sum(weight.nbytes for weight in exported.state_dict.values()) > _MOST_BYTES:
        return None
    document = to_onnx(exported)
    program, module = (
        OnnxProgram(document, threads=torch.get_num_threads()),
        exported.module(check_guards=False),
    )
    tensors = {name: _resized(value) if name in varying else value for name, value in example.items()}
    arrays = {name: tensors[name].numpy() for name in program.inputs}
    with torch.inference_mode():
        torch_s = _fastest(lambda: module(**tensors))
    return document if _fastest(lambda: program(arrays)) < _GAIN * torch_s else None


def to_onnx(exported: torch.export.ExportedProgram) -> bytes:
    """Return the program as an ONNX model, weights included."""
    with _quiet():
        program = torch.onnx.export(exported, dynamo=True, verbose=False, external_data=False)
    assert program is not None
    return program.model_proto.SerializeToString()


def _resized(value: torch.Tensor) -> torch.Tensor:
    """Return the tensor with R rows, its own repeated or cut."""
    return value[torch.arange(_ROWS) % len(value)]


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few runs: what else the machine does only ever adds to them."""
    took_s = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        run()
        took_s.append(time.perf_counter() - started)
    return min(took_s)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on operators that are not used, and on what it did not fold, to itself."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
