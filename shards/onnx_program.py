"""A program run by ONNX Runtime, which computes small ones several times faster than torch: ADR 11.

A session is made without Python's lock, so that those who serve meanwhile do not wait for it, and goes as
soon as the last reference does.
"""

from pathlib import Path
from typing import Any

import onnxruntime

onnxruntime.disable_telemetry_events()

_WARNINGS_NO_MORE = 3
"""Log errors only: what is worth a warning was so when the program was exported."""


class OnnxProgram:
    """A program on the CPU; threads may share it. ValueError where ONNX Runtime cannot load the file.

    `threads` compute one call; with 1 it is the caller's own.
    """

    def __init__(self, source: Path | bytes, *, threads: int = 1) -> None:
        try:
            self._session = onnxruntime.InferenceSession(
                source, _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # Its exceptions have no base of their own.
            raise ValueError(str(error) or repr(error)) from error
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        self.outputs = tuple(node.name for node in self._session.get_outputs())

    def __call__(self, inputs: dict[str, Any]) -> list[Any]:
        """Return the outputs in order; RuntimeError says why there are none."""
        try:
            return self._session.run(None, inputs)  # type: ignore[no-any-return]
        except Exception as error:
            raise RuntimeError(str(error) or repr(error)) from error


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _WARNINGS_NO_MORE
    # Threads that spin while they wait take the time of those that compute.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Each session would keep the memory of its largest call for good. Without, calls take no longer.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options
